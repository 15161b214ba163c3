"""What cutting a group saves and what it costs, measured: multiply-accumulates,
milliseconds on a runtime, and the loss.

Notation: groups g, candidate levels l of a group: how many of its units stay;
level 0 is the group as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...measure.ops import layer_macs
from ...measure.probe import repeated, time_pair
from ...models import recurrent
from ...models.copies import copied
from ...models.cutting import cut, silenced
from ...models.groups import Group
from ...models.package import Package
from ...targets.base import Target
from .widths import least, rounded

# called anew for each pass; gives (inputs in order, targets)
Batches = Callable[[], Iterable[tuple[list[Tensor], Tensor]]]
SHARES = (0.75, 0.5, 0.25, 0.1)  # of a group's units, that its levels try
SECONDS = 0.3  # of timing one candidate against the uncut model


def levels(group: Group, round_to: int) -> list[int]:
    """Units that stay at each level of a group, falling; the first is all of them."""
    n = len(group.units)
    return [n, *sorted({rounded(n * s, group, round_to) for s in SHARES} - {n}, reverse=True)]


def losses(
    module: nn.Module,
    groups: Sequence[Group],
    importance: Sequence[Tensor],
    keeps: Sequence[list[int]],
    batches: Batches,
    loss_fn: Any,
) -> list[list[float]]:
    """How much the mean training loss of the module rises with one group at one of its levels and
    all others whole: [g][l]."""
    whole = _loss(module, batches, loss_fn)
    out = []
    for group, s, row in zip(groups, importance, keeps, strict=True):
        rises = []
        for keep in row:
            with silenced(module, group, least(s, keep)):
                rises.append(_loss(module, batches, loss_fn) - whole)
        out.append(rises)
    return out


def _loss(module: nn.Module, batches: Batches, loss_fn: Any) -> float:
    total, n = 0.0, 0
    with torch.no_grad():
        for x, y in batches():
            total += float(loss_fn(module(*x), y)) * len(y)
            n += len(y)
    return total / max(n, 1)


class Macs:
    """Multiply-accumulates of a module's Linear, convolution and recurrent layers for one sample,
    and what is left of them after cuts."""

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.module, self.layer = module, layer_macs(module, inputs)

    def left(self, groups: Sequence[Group], keeps: Sequence[int]) -> float:
        """MACs with keeps[g] units of each group left. Units are alike,
        so which ones go does not matter."""
        share: dict[tuple[str, int], float] = {}
        for group, keep in zip(groups, keeps, strict=True):
            gone = 1 - keep / len(group.units)
            for m in group.members:
                width = self._width(m.path, m.axis)
                share[m.path, m.axis] = share.get((m.path, m.axis), 1.0) - gone * len(m.position) / width
        total = 0.0
        for name, n in self.layer.items():
            path, inner = self._of(name)
            total += n * share.get((path, 0), 1.0) * share.get((path, 0 if inner else 1), 1.0)
        return total

    def of(self, groups: Sequence[Group]) -> float:
        """MACs of the layers that are members of these groups."""
        paths = {m.path for g in groups for m in g.members}
        return sum(n for name, n in self.layer.items() if self._of(name)[0] in paths)

    def _of(self, name: str) -> tuple[str, bool]:
        """(path of the layer that an entry is about, does it read what the layer makes itself?), as
        some matrices of recurrent layers do."""
        parent, _, leaf = name.rpartition(".")
        layer = self.module.get_submodule(parent)
        m = recurrent.matrix(layer, leaf) if isinstance(layer, nn.RNNBase) else None
        return (name, False) if m is None else (parent, m.reads_units)

    def _width(self, path: str, axis: int) -> int:
        layer: Any = self.module.get_submodule(path)
        if isinstance(layer, nn.RNNBase):
            return recurrent.width(layer) if axis == 0 else layer.input_size
        names = ("out_channels", "out_features") if axis == 0 else ("in_channels", "in_features")
        return next((int(getattr(layer, n)) for n in names if hasattr(layer, n)), 1)


class Clock:
    """Times models of a package on a runtime: processor time of one inference, interleaved with the
    model as it is, one thread."""

    def __init__(self, package: Package, module: nn.Module, on: str, example: dict[str, Tensor]) -> None:
        self.package, self.module, self.example = package, module, example
        self.target = Target.parse(on)
        if self.target.threads != 1 or self.target.device != "cpu":
            raise InputError(
                "latency is told by processor time, which needs one thread on the processor",
                got=on,
                allowed="threads=1, device=cpu",
            )
        self.runtime = self.target.load_runtime()
        self.feed = repeated({k: v.numpy() for k, v in example.items()}, self.target.batch)
        self.folder = tempfile.TemporaryDirectory(prefix="featherweight-")
        self.count = 0
        self.base = self._session(module)
        self.base_ms = 0.0

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def saved(self, groups: Sequence[Group], drops: Sequence[Sequence[int]]) -> float:
        """The share of the model's latency that these cuts together save;
        negative: it got slower."""
        small = copied(self.module)
        cut(small, groups, drops)
        session = self._session(small)
        runs = (lambda: self.base.run(self.feed)), (lambda: session.run(self.feed))
        found = time_pair(*runs, "cpu", SECONDS, self.base_ms or None)
        self.base_ms = self.base_ms or float(found["reference_ms"]["cpu_median"])
        return 1.0 - 1.0 / float(found["speedup"]["ratio"])

    def _session(self, module: nn.Module) -> Any:
        self.count += 1
        folder = Path(self.folder.name) / str(self.count)
        folder.mkdir()
        self.runtime.export(self.package.edited(module=module), self.example, None, self.target, folder)
        return self.runtime.load(folder, self.target, self.target.batch)
