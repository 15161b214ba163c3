"""Coupled channels as plain data: what must be cut together. Belongs to no module object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

HEADS = "attention heads are not cut channel by channel"


@dataclass(frozen=True)
class Member:
    """One layer of a group. axis 0: its outputs are cut, axis 1: its inputs; channel [K]:
    the group's channel of position[K]. Or (`Group.held`) a parameter or buffer that belongs to no
    such layer: path is its own, and it is cut along `axis`."""

    path: str
    axis: int
    position: tuple[int, ...]
    channel: tuple[int, ...]

    def at(self, channels: set[int]) -> list[int]:
        """The positions of these channels of the group."""
        return [p for p, c in zip(self.position, self.channel, strict=True) if c in channels]


@dataclass(frozen=True)
class Group:
    """Channels that are coupled through the model. `name`: path of the layer that makes them, or of
    the attention whose heads they are.

    kind: "channel", "mlp" (the inner width of a feed-forward block) or "head"; units: channels that
    can only go together (one channel; one of each convolution group; one key-value head with its
    query heads), all of one size; counts: {attribute of the module `name`: its value for all
    units}, whole numbers that shrink with the number of units; held: parameters and buffers of
    no layer that have a place for each channel (a learned scale).
    """

    name: str
    kind: str
    channels: int
    units: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]
    counts: tuple[tuple[str, int], ...] = ()
    held: tuple[Member, ...] = ()

    def of(self, units: Iterable[int]) -> set[int]:
        """The channels of these units."""
        return {c for u in units for c in self.units[u]}

    @property
    def size(self) -> int:
        """Channels a unit."""
        return len(self.units[0])


@dataclass(frozen=True)
class Coupling:
    """The groups that can be cut, in forward order, and {layer path: reason} for
    what is left whole."""

    groups: tuple[Group, ...]
    whole: dict[str, str]


def owners(module: nn.Module) -> dict[int, set[str]]:
    """{id of a parameter: the paths of the modules that hold it}; more than one: it is shared."""
    held: dict[int, set[str]] = {}
    for name, m in module.named_modules():
        for p in m.parameters(recurse=False):
            held.setdefault(id(p), set()).add(name)
    return held
