"""Gate: turn a transform's knob up as far as the metric's floor allows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, RecipeError
from ...recipe import Mark, Recipe, Shape, Transform, shape_of
from ...space import Choice, Float, Int, param
from ...space.node import is_filled
from ..base import Context, applied
from ..shared.drop import baseline_scores, evaluate_drop, runnable
from .knob import Knob, bisect, rungs, steps_of

if TYPE_CHECKING:
    from ...measure.race import Verdict
    from ...models.package import Package


@dataclass(frozen=True)
class Gate(Transform):
    """The strongest setting of one knob of `transform` that keeps the task's metric within
    `max_drop` on the validation split.

    `how="bisect"` applies the transform, then `recover`, anew to the incoming model for each
    setting tried. `how="step"` (iterative pruning) applies it to the model of the step before,
    with recovery after each step, and stops at the first that breaks the floor; the last that
    held is kept. If nothing holds, the model stays as it came in, and the note says so and
    whether that one holds.

    Each setting is judged in a race (`measure.race`) that errs with probability at most `alpha`, on
    right-or-wrong metrics; by the whole split otherwise. A model with a quantization plan is judged
    as it computes under that plan.
    """

    says = "Turn one setting up as far as the accuracy allows"

    transform: Any = param(None, doc="the transform, or the recipe, whose knob is turned")
    knob: str = param("ratio", doc="the field that is turned; STEP.FIELD (prune.ratio) where several steps have it")
    low: float = param(0.0, doc="mildest setting")
    high: Any = param(None, doc="strongest setting; none: the one that stands in the transform")
    values: Any = param(
        (), doc="settings from mild to strong, for a knob that is no number; takes the place of low and high"
    )
    how: str = param(
        "bisect",
        search=Choice("bisect", "step"),
        legal=Choice("bisect", "step"),
        doc="each setting anew, or one upon the other",
    )
    steps: int = param(
        5,
        search=Int(3, 10),
        legal=Int(2, 1000),
        doc="settings tried at most (bisect), or steps from low to high (step)",
    )
    compose: str = param(
        "auto",
        legal=Choice("auto", "left", "sum", "whole"),
        doc="how steps add up: a share of what is left, a sum, or each the whole; auto: by the knob",
    )
    max_drop: float = param(0.01, legal=Float(0.0, 1e9), doc="how much worse the metric may get, in its own unit")
    recover: Any = param(None, doc="a transform or a recipe that is run after each setting, such as training")
    reference: str = param(
        "baseline",
        legal=Choice("baseline", "input"),
        doc="what the drop is measured against: the study's baseline, or the incoming model",
    )
    alpha: float = param(0.05, legal=Float(1e-9, 0.5), doc="chance that an early verdict on one setting is wrong")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transform is None or not is_filled(self):
            return
        steps, recover = steps_of(self.transform, "transform"), steps_of(self.recover, "recover")
        if any(s.starts for s in (*steps, *recover)):
            raise RecipeError(
                "a gate changes the incoming model, so it holds no step that makes one of its own",
                got=str(Recipe(*steps, *recover)),
            )
        knob = Knob.of(self)
        Recipe(*steps, *recover, *(steps if self.how == "step" else ())).check()
        if self.how == "step" and knob.compose == "left" and not 0 <= knob.low <= knob.high < 1:
            raise RecipeError(
                f"{self.knob} cannot be turned up in steps of what is left",
                got=knob.high,
                allowed="0 <= low <= high < 1",
            )

    @property
    def makes(self) -> frozenset[Mark]:
        return frozenset(thing for s in self._inner for thing in s.makes)

    @property
    def refuses(self) -> dict[Mark, str]:
        return {thing: why for s in reversed(self._inner) for thing, why in s.refuses.items()}

    @property
    def shape(self) -> Shape:
        """Which setting holds follows from the weights: only what all of them keep is sure,
        and no number format is."""
        if self.transform is None:
            return Shape.WEIGHTS
        knob = Knob.of(self)
        turned = [
            s for position in range(len(knob.values)) or (knob.low, knob.high) for s in knob.at(knob.setting(position))
        ]
        inside = shape_of((*turned, *steps_of(self.recover, "recover")))
        return Shape.FORMATS if inside in (Shape.KEEPS, Shape.FORMATS) else Shape.WEIGHTS

    @property
    def depends(self) -> str:
        return " ".join(s.depends for s in self._inner if s.depends)

    @property
    def _inner(self) -> tuple[Transform, ...]:
        return (*steps_of(self.transform, "transform"), *steps_of(self.recover, "recover"))

    def apply(self, model: Package, context: Context) -> Package:
        if self.transform is None:
            raise InputError("a gate needs a transform", got="none", fix='Gate(Prune(), knob="ratio")')
        knob = Knob.of(self)
        reference = context.teacher(None) if self.reference == "baseline" else model
        run = _Run(self, knob, model, context, baseline_scores(runnable(reference, context), context))
        run.bisect() if self.how == "bisect" else run.climb()
        note: dict[str, Any] = {
            "step": self.kind,
            "knob": self.knob,
            "kept": run.kept,
            "held": True,
            "max_drop": self.max_drop,
            "reference": self.reference,
            "split": "valid",
            "alpha": self.alpha,
            "probes": run.probes,
        }
        if run.best is None:
            drop = evaluate_drop(
                runnable(model, context), run.baseline, context.child("incoming"), self.max_drop, self.alpha
            )
            why = f"no setting that was tried keeps the drop within {self.max_drop}; the model is as it came in"
            return model.noted(**{**note, "held": drop.held}, incoming=asdict(drop), why=why)
        return run.best.edited(notes=(*model.notes, {**note, "inside": list(run.best.notes[len(model.notes) :])}))


@dataclass
class _Run:
    """One application of a gate: what was tried, and the best model that held so far."""

    gate: Gate
    knob: Knob
    model: Package
    context: Context
    baseline: np.ndarray | float
    best: Package | None = None
    kept: Any = None
    probes: list[dict[str, Any]] = field(default_factory=list)

    def bisect(self) -> None:
        def holds(position: Any) -> bool:
            setting = self.knob.setting(position)
            return self._try(self.model, setting, setting, self.context.child("setting")) is not None

        # what held last is the strongest that held
        bisect(holds, self.knob.low, self.knob.high, self.gate.steps, self.knob.whole)

    def climb(self) -> None:
        knob, package = self.knob, self.model
        ladder = [(v, v) for v in knob.values] or rungs(knob.low, knob.high, self.gate.steps, knob.compose, knob.whole)
        for i, (total, setting) in enumerate(ladder):
            after = self._try(package, total, setting, self.context.child("step", i))
            if after is None:
                return
            package = after

    def _try(self, package: Package, total: Any, setting: Any, context: Context) -> Package | None:
        """The package with the knob at `setting`, recovered, if it keeps the floor;
        recorded either way."""
        context.report({"step": self.gate.kind, "knob": self.gate.knob, "setting": total})
        for i, step in enumerate((*self.knob.at(setting), *steps_of(self.gate.recover, "recover"))):
            package = applied(step, package, context.child(i, step.kind))
        # an order of samples of its own for each question
        judged = self.context.child("race", len(self.probes))
        verdict: Verdict = evaluate_drop(
            runnable(package, context), self.baseline, judged, self.gate.max_drop, self.gate.alpha
        )
        self.probes.append({"setting": total, **asdict(verdict)})
        if not verdict.held:
            return None
        self.best, self.kept = package, total
        return package
