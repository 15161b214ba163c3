"""Prune: remove whole channels or heads with everything that is coupled to them,
or set single weights to zero.

Cutting channels gives an ordinary smaller model, which computes what the model with these channels
silenced computes. That channels are coupled through a model is as in Fang et al. 2023
(arXiv:2301.12900); iterative pruning with recovery between the cuts is that of Han et al. 2015
(arXiv:1506.02626). Notation: `ratio` r is the share of all cuttable channels to remove.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ... import registry
from ...errors import InputError
from ...machine import machine
from ...recipe import Made, Mark, Recipe, Shape, Transform, shape_of
from ...seeding import derive
from ...space import Choice, Domain, Float, Int, param
from ..base import Context, applied

if TYPE_CHECKING:
    from ...models.package import Package

STRUCTURAL = ("channel", "head", "mlp", "all")
_PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")
# in the order that spaces know them by
_FIRST = ("magnitude", "l1", "bn_scale", "taylor", "wanda", "obs", "lamp", "fpgm", "entropy", "random")
# new ones and plug-ins' after them
_CRITERIA = (*_FIRST, *(name for name in registry.names("models.criteria") if name not in _FIRST))
_ALLOCATIONS = ("global", "uniform", "sensitivity", "latency")


@dataclass(frozen=True)
class Prune(Transform):
    """Cut the least important channels. Layers that cannot be coupled are named in the
    notes and left whole."""

    says = "Remove the parts of the model that matter least"

    version = 5

    ratio: float = param(
        0.5,
        search=Float(0.0, 0.8),
        legal=Float(0.0, 1.0),
        doc="share to remove: of channels or weights; of MACs or latency by allocation",
    )
    granularity: str = param(
        "channel",
        search=Choice("channel", "all"),
        doc=(
            "what goes: channel (all but heads), head, mlp (inner widths of feed-forward blocks), all, weight, "
            "or N:M such as 2:4"
        ),
    )
    criterion: str = param("magnitude", search=Choice(*_CRITERIA), legal=Choice(*_CRITERIA), doc="what matters least")
    allocation: str = param(
        "global",
        search=Choice("global", "uniform", "sensitivity"),
        legal=Choice(*_ALLOCATIONS),
        doc=(
            "how much from where: one ranking, the ratio everywhere, or the least loss for MACs (sensitivity) or time "
            "(latency) saved"
        ),
    )
    round_to: int = param(
        8,
        search=Choice(1, 4, 8, 16),
        legal=Int(1, 1024),
        doc="widths are multiples of this (heads: at least one whole head)",
    )
    ratios: tuple[float, ...] = param(
        (), legal=Float(0.0, 1.0), doc="instead of ratio: one for each of n equal parts of the depth"
    )
    threshold: float = param(
        0.0, legal=Float(0.0, 1e300), doc="for weights: remove all below it in absolute value; ratio is 0 then"
    )
    update: bool = param(False, doc="for weights, with criterion obs: adjust the weights that stay (SparseGPT)")
    batches: int = param(8, legal=Int(1, 100_000), doc="training batches of 64 that criterion and allocation see")
    steps: int = param(
        1, legal=Int(1, 1000), doc="cuts on the way; after i of n cuts (1 - ratio)^(i/n) of the width is left"
    )
    recover: Any = param(None, doc="a recipe that runs after each cut but the last")
    on: str = param("onnxruntime", doc="the target whose time counts for allocation latency")

    def __post_init__(self) -> None:
        super().__post_init__()
        open_ = isinstance(self.granularity, Domain)
        for value in (self.granularity.options(None) or []) if open_ else [self.granularity]:  # type: ignore[attr-defined]
            pattern = _PATTERN.fullmatch(str(value))
            if value not in (*STRUCTURAL, "weight") and not (pattern and int(pattern[1]) < int(pattern[2])):
                raise InputError(
                    "prune.granularity is out of its range",
                    got=repr(value),
                    allowed=f"{', '.join(STRUCTURAL)}, weight, or N:M with N < M, such as 2:4",
                )

    @property
    def structural(self) -> bool:
        """Does it cut layers (True) or set weights to zero (False)?"""
        return self.granularity in STRUCTURAL

    @property
    def makes(self) -> frozenset[Mark]:
        pattern = {Made.NM_PATTERN} if _PATTERN.fullmatch(str(self.granularity)) else set()
        return frozenset() if self.structural else frozenset({Made.ZERO_WEIGHTS, *pattern})

    @property
    def refuses(self) -> dict[Mark, str]:
        out: dict[Mark, str] = {
            Made.INTEGER_WEIGHTS: "channels must be cut before their weights are bound to integer scales"
        }
        return (
            out | {Made.NM_PATTERN: "cutting inputs would move zeros out of their groups"} if self.structural else out
        )

    @property
    def shape(self) -> Shape:
        """Of the cuts (an even one takes as much from everywhere, whatever matters least there) and
        of what recovers between them."""
        own = Shape.KEEPS if not self.structural else Shape.FIELDS if self.allocation == "uniform" else Shape.WEIGHTS
        return shape_of([own, *(Recipe(self.recover).steps if self.recover is not None and self.steps > 1 else ())])

    @property
    def depends(self) -> str:
        if self.allocation != "latency" or not self.structural:
            return ""
        facts = machine()
        return f"latency on {facts['cpu']}, {sorted(facts['versions'].items())}"

    @property
    def idle(self) -> bool:
        cuts = self.ratios or self.threshold or _PATTERN.fullmatch(self.granularity)
        return self.ratio == 0 and not cuts and not self.update and self.steps == 1

    def apply(self, model: Package, context: Context) -> Package:
        from ...models.zeros import holding

        self._check()
        recover = self._recovery()
        if not self.structural:
            return self._zero(model, context, recover)
        from ...models.attention import apart
        from .cut import Cutter, TrainBatches

        model = model if self.idle else apart(model, lambda: context.few(model.module))
        module = model.copied().eval()
        cutter = Cutter(self, module, context, TrainBatches(context, self.batches))
        package = model.edited(module=module)
        for i in range(1, self.steps + 1):
            cutter.cut(package, i)
            if i < self.steps:
                package = _recovered(package, recover, context, i)
        notes = package.notes[len(model.notes) :]
        package = package.edited(notes=model.notes, sparse=holding(package.module, package.sparse))
        return package.noted(step="prune", **cutter.note, **({"recover": list(notes)} if notes else {}))

    def _check(self) -> None:
        """InputError for fields that contradict each other."""
        if self.structural and (self.threshold > 0 or self.update):
            raise InputError(
                "threshold and update are for single weights",
                got=f"granularity={self.granularity}",
                fix="granularity='weight' or '2:4'",
            )
        if not self.structural and (self.ratios or self.allocation in ("sensitivity", "latency")):
            raise InputError(
                "single weights are allotted by one ranking or evenly",
                got=f"allocation={self.allocation}, ratios={self.ratios}",
                allowed="global, uniform",
            )
        if self.ratios and self.allocation == "latency":
            raise InputError(
                "the time of a part of the network is not measured",
                got=f"ratios={self.ratios}",
                fix="use ratio, or another allocation",
            )

    def _recovery(self) -> tuple[Transform, ...]:
        """The steps of `recover`. RecipeError if a cut could not follow them,
        InputError if they make another model."""
        if self.recover is None:
            return ()
        recipe = Recipe(self.recover)
        Recipe(recipe, replace(self, recover=None)).check()
        if any(s.starts for s in recipe.steps):
            raise InputError(
                "recovery goes on with the model that was cut", got=str(recipe), allowed="steps that train the model"
            )
        return recipe.steps

    def _zero(self, model: Package, context: Context, recover: tuple[Transform, ...]) -> Package:
        import torch

        from ...models.computed import WHY, computed
        from ...models.sparsify import sparsify
        from ...models.zeros import holding
        from .cut import TrainBatches

        package = model.edited(module=model.copied().eval())
        zeros: dict[str, float] = {}
        patterned = _PATTERN.fullmatch(self.granularity) is not None
        # a pattern and a threshold have no half way
        steps = 1 if patterned or self.threshold > 0 else self.steps
        for i in range(1, steps + 1):
            zeros = sparsify(
                package.module,
                granularity=self.granularity,
                ratio=1 - (1 - self.ratio) ** (i / steps),
                threshold=self.threshold,
                criterion=self.criterion,
                scope=self.allocation,
                update=self.update,
                batches=TrainBatches(context, self.batches),
                loss_fn=context.task.loss_fn,
                rng=torch.Generator().manual_seed(derive(context.seed, "criterion", i)),
            )
            claims = sorted({*package.sparse, *(f"{path}.weight" for path in zeros)})
            package = package.edited(sparse=holding(package.module, claims))
            if i < steps:
                package = _recovered(package, recover, context, i)
        notes = package.notes[len(model.notes) :]
        whole = {path: WHY for path, m in package.module.named_modules() if computed(m)}
        more = ({"whole": whole} if whole else {}) | ({"recover": list(notes)} if notes else {})
        return package.edited(notes=model.notes).noted(step="prune", zeros=zeros, **more)


def _recovered(package: Package, steps: tuple[Transform, ...], context: Context, i: int) -> Package:
    for step in steps:
        package = applied(step, package, context.child("recover", i, step.kind))
    return package
