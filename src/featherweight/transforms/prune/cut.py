"""One structural cut: couple, score, allot, prove that the cut is exact, and remove."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...models.coupling import couple
from ...models.cutting import add_scores, cut
from ...models.exact import inexact
from ...models.groups import Group
from ...models.observe import observe
from ...models.package import Package
from ...models.recurrent import add_matrix_scores, matrices, matrix
from ...registry import find
from ...seeding import derive
from ...train.loop import tensors
from ..base import Context
from . import widths
from .allocate import by_latency, by_macs
from .cost import Macs

if TYPE_CHECKING:
    from ...models.criteria.base import Criterion


class Cutter:
    """Cuts a package's module in `prune.steps` steps towards the widths that `prune` asks for,
    which are shares of the first one's.

    prune: the Prune transform; module: what will be cut; batches: gives the training batches; note:
    what was done, for the package's notes.
    """

    def __init__(self, prune: Any, module: nn.Module, context: Context, batches: Any) -> None:
        self.prune, self.context, self.batches = prune, context, batches
        self.inputs = context.few(module)
        self.full: dict[str, int] = {}  # units of each group before the first cut
        self.macs: dict[int, float] = {}  # of each part of the depth before the first cut
        self.note: dict[str, Any] = {"widths": {}, "whole": {}}

    def cut(self, package: Package, step: int) -> None:
        """Step `step` (from 1), in place on the package's module."""
        module = package.module
        coupling = couple(module, self.inputs, self.prune.granularity)
        groups = list(coupling.groups)
        self.note["whole"] = dict(coupling.whole)
        if not groups and max((self.prune.ratio, *self.prune.ratios)) > 0:
            raise InputError(
                f"the model has nothing that can be cut at granularity {self.prune.granularity!r}",
                got=coupling.whole or "no such layers",
                allowed="channel, head, mlp, all: one that the model has",
            )
        if groups and len(self.prune.ratios) > len(groups):
            raise InputError(
                "more ratios than there are groups of layers to cut",
                got=f"{len(self.prune.ratios)} ratios, {len(groups)} groups: {', '.join(g.name for g in groups)[:300]}",
                fix=f"give at most {len(groups)}",
            )
        for g in groups:
            self.full.setdefault(g.name, len(g.units))
        importance = self._importance(module, groups, step)
        keeps = self._keeps(package, groups, importance, step)
        drops = [widths.least(s, k) for s, k in zip(importance, keeps, strict=True)]
        wrong = inexact(module, groups, self.inputs, drops=drops)
        self.note["whole"] |= wrong
        drops = [[] if g.name in wrong else drop for g, drop in zip(groups, drops, strict=True)]
        cut(module, groups, drops)
        for g, drop in zip(groups, drops, strict=True):
            self.note["widths"][g.name] = [self.full[g.name] * g.size, (len(g.units) - len(drop)) * g.size]

    def _importance(self, module: nn.Module, groups: Sequence[Group], step: int) -> list[Tensor]:
        """What each group's units matter: [U] each. Layer by layer, so that no more than one
        layer's scores are held."""
        judge: Criterion = find("models.criteria", self.prune.criterion)()
        rng = torch.Generator().manual_seed(derive(self.context.seed, "criterion", step))
        members = [(m, g) for g in groups for m in g.members if m.axis == 0 or judge.per_weight]
        of: dict[str, list[Group]] = {}
        for m, g in members:
            for path in _judged(module, m.path):
                if g not in of.setdefault(path, []):
                    of[path].append(g)
        total = {g.name: torch.zeros(len(g.units)) for g in groups}
        for path, seen in observe(module, list(of), judge.needs, self.batches, self.context.task.loss_fn):
            score = judge.score(seen, rng)
            for g in of[path]:
                layer, _, name = path.rpartition(".")
                cells = module.get_submodule(layer)
                if isinstance(cells, nn.RNNBase) and (own := matrix(cells, name)) is not None:
                    add_matrix_scores(total[g.name], g, layer, own, score)
                else:
                    add_scores(total[g.name], g, path, getattr(module.get_submodule(path), "groups", 1), score)
        return [total[g.name] for g in groups]

    def _keeps(self, package: Package, groups: Sequence[Group], importance: Sequence[Tensor], step: int) -> list[int]:
        """Units that stay in each group: the ratio of each part of the depth, by the allocation."""
        ratios = self.prune.ratios or (self.prune.ratio,)
        n = len(ratios)
        part = [i * n // len(groups) for i in range(len(groups))]
        keeps = [len(g.units) for g in groups]
        for p, ratio in enumerate(ratios):
            mine = [i for i, at in enumerate(part) if at == p]
            if ratio == 0 or not mine:
                continue
            left = (1 - ratio) ** (step / self.prune.steps)  # of the first model's
            found = self._allot(package, p, [groups[i] for i in mine], [importance[i] for i in mine], left, ratio)
            for i, keep in zip(mine, found, strict=True):
                keeps[i] = min(keep, keeps[i])
        return keeps

    def _allot(
        self, package: Package, part: int, groups: list[Group], importance: list[Tensor], left: float, ratio: float
    ) -> list[int]:
        prune, full = self.prune, [self.full[g.name] for g in groups]
        if prune.allocation == "uniform":
            return [widths.rounded(n * left, g, prune.round_to) for n, g in zip(full, groups, strict=True)]
        if prune.allocation == "global":
            share = widths.ranked(importance, [g.size for g in groups], full, left)
            return [widths.rounded(k, g, prune.round_to) for k, g in zip(share, groups, strict=True)]
        module, loss_fn = package.module, self.context.task.loss_fn
        if prune.allocation == "sensitivity":
            macs = Macs(module, self.inputs)
            # of the part, or of the whole model
            now = macs.of(groups) if prune.ratios else macs.left([], [])
            goal = now - self.macs.setdefault(part, now) * left
            keeps, report = by_macs(module, groups, importance, goal, prune.round_to, self.batches, loss_fn, macs)
        else:
            saving = 1 - (1 - ratio) ** (1 / prune.steps)  # of the time that the model takes now
            example = {k: v.cpu() for k, v in self.context.calibration(1).items()}
            keeps, report = by_latency(
                package, module, groups, importance, saving, prune.round_to, self.batches, loss_fn, prune.on, example
            )
        self.note.setdefault("allocation", []).append(report)
        return keeps


def _judged(module: nn.Module, path: str) -> list[str]:
    """What a criterion looks at of the layer at `path`: its weight, or every matrix of a recurrent
    layer; of others nothing."""
    layer = module.get_submodule(path)
    if isinstance(layer, nn.RNNBase):
        return [f"{path}.{m.name}" for m in matrices(layer)]
    return [path] if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) else []


@dataclass(frozen=True)
class TrainBatches:
    """`n` batches of 64 random training samples, the same each time it is called:
    (inputs in order, targets)."""

    context: Context
    n: int

    def __call__(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        train = self.context.splits.train
        generator = torch.Generator().manual_seed(derive(self.context.seed, "batches"))
        order = torch.randperm(len(train), generator=generator)[: 64 * self.n].numpy()
        for start in range(0, len(order), 64):
            yield tensors(train, order[start : start + 64], "cpu")
