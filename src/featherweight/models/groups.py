"""Coupled channels as plain data: what must be cut together. Belongs to no module object."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

HEADS = "attention heads are not cut channel by channel"


@dataclass(frozen=True)
class Member:
    """One layer of a group. axis 0: its outputs are cut, axis 1: its inputs; channel [K]:
    the group's channel of position[K]."""

    path: str
    axis: int
    position: tuple[int, ...]
    channel: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that are coupled through the model. `name`: path of the layer that makes them, or of
    the attention whose heads they are.

    kind: "channel", "mlp" (the inner width of a feed-forward block) or "head"; units: channels that
    can only go together (one channel; one of each convolution group; one key-value head with its
    query heads), all of one size; counts: {attribute of the module `name`: its value for all
    units}, whole numbers that shrink with the number of units.
    """

    name: str
    kind: str
    channels: int
    units: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]
    counts: tuple[tuple[str, int], ...] = ()

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
