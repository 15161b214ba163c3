"""Limits before training: a net that is too slow or too large is so before it has learned anything,
so it need not be trained.

The candidate's *twin* is the same recipe with trainings of no epochs: exported, its file has the
candidate's size and speed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FeatherweightError
from ..recipe import Recipe, Shape, Transform, shape_of, stated
from ..targets.base import Target
from ..transforms.base import Trained
from .messages import TrialJob

if TYPE_CHECKING:
    from .runner import Runner

QUANTITIES = ("latency", "size", "memory", "params", "macs")  # what can be limited before training
_OF_FILE = ("latency", "size", "memory")  # those of them that number formats change
_WHY = {
    Shape.WEIGHTS: "the structure that it leaves follows from the trained weights",
    Shape.FORMATS: "the number formats that it leaves follow from the trained weights",
    None: "it does not say what it does to the structure (`shape` of the transform)",
}
# a limit has to be broken by more than a tenth: what is measured briefly is not measured well
MARGIN = 1.1
_UNITS = {"latency": " ms", "size": " bytes", "memory": " bytes"}  # of absolute limits
_SECONDS = 0.5  # of timing, at most
_RETRAINED = ("epochs", "lr", "batch_size", "optimizer", "schedule", "weight_decay", "momentum", "warmup")


class OverLimits(FeatherweightError):
    """A candidate breaks limits before it is trained. over: by quantity, {"value": measured,
    "bound": allowed, "unit"}; violation: the summed excess, each relative to its bound."""

    def __init__(self, over: dict[str, dict[str, Any]]) -> None:
        self.over = over
        self.violation = sum(o["value"] / o["bound"] - 1.0 for o in over.values())
        said = [f"{q} {o['value']:.4g}{o['unit']} (allowed {o['bound']:.4g}{o['unit']})" for q, o in over.items()]
        super().__init__("over the limits before training: " + ", ".join(said))


def twin(recipe: Recipe) -> Recipe | None:
    """The recipe untrained; None if it does not begin with a step that builds, trains nothing, or
    what it makes follows from trained weights.

    Trainings that differ in how they train have one twin, so it is exported once
    for all of them."""
    if not recipe.steps or not recipe.steps[0].starts or not any(isinstance(s, Trained) for s in recipe.steps):
        return None
    if shape_of(recipe.steps) not in (Shape.KEEPS, Shape.FIELDS):
        return None
    return Recipe(*map(_untrained, recipe.steps))


def _untrained(value: Any) -> Any:
    """A step with trainings of no epochs, those in its fields, too; but not the teachers of a
    training, which have to be good."""
    if isinstance(value, Trained):
        plain: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Trained) if f.name in _RETRAINED}
        return dataclasses.replace(value, **{**plain, "epochs": 0})
    if isinstance(value, Recipe):
        return Recipe(*map(_untrained, value.steps))
    if isinstance(value, tuple):
        return tuple(map(_untrained, value))
    if isinstance(value, Transform):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
        return dataclasses.replace(value, **{name: _untrained(v) for name, v in fields.items()})  # type: ignore[type-var]
    return value


def unchecked(recipe: Recipe, limits: Iterable[str]) -> dict[str, str]:
    """{kind of a step: which limits cannot be checked before training because of it, and why} of a
    recipe that begins with a step that builds.

    limits: the quantities that are limited."""
    if not recipe.steps or not recipe.steps[0].starts:
        return {}
    limited = [q for q in QUANTITIES if q in set(limits)]
    shapes = [stated(s) for s in recipe.steps]
    # then the twin, which there is not, would have been counted
    cut = Shape.FIELDS in shapes[1:] and not {None, Shape.WEIGHTS} & set(shapes)
    out: dict[str, str] = {}
    for step, shape in zip(recipe.steps, shapes, strict=True):
        names = (
            []
            if shape in (Shape.KEEPS, Shape.FIELDS)
            else [q for q in limited if shape is not Shape.FORMATS or cut or q in _OF_FILE]
        )
        if names:
            out[step.kind] = (
                f"{', '.join(names)} cannot be checked before training where {step.kind} is used so: {_WHY[shape]}"
            )
    return out


def screen(runner: Runner, job: TrialJob, recipe: Recipe, target: Target) -> None:
    """OverLimits if the untrained twin breaks a limit in `job.screen` by more than `MARGIN`;
    the whole interval of a latency must.

    The limits are on latency, size, memory, params or macs, absolute, or for the latency relative
    to the reference's. What the twin cost is not counted as a step of the trial. Recipes without
    a twin pass.
    """
    from ..measure.run import measure

    untrained = twin(recipe)
    if untrained is None:
        return
    steps, reused = runner.steps, runner.reused
    artifact = runner.artifact(untrained, target)
    runner.steps, runner.reused = steps, reused
    manifest = json.loads((artifact / "manifest.json").read_text())
    # by quantity, the low end of its interval
    low = {"size": manifest["size_bytes"], "params": manifest["params"], "macs": manifest["macs"]}
    if any(c.quantity in ("latency", "memory") for c in job.screen):
        runner.report({"step": "screen"})
        ref = job.reference
        work = Path(tempfile.mkdtemp(prefix="featherweight-"))
        try:
            got = measure(
                artifact,
                target,
                reference=(Path(ref.artifact), Target.parse(ref.target)) if ref else None,
                example=runner.task.example(),
                inputs=None,
                seconds=min(_SECONDS, job.seconds),
                timeout_s=job.timeout_s,
                workdir=work,
            )
        finally:
            shutil.rmtree(work, ignore_errors=True)
        low["memory"] = got.peak_memory_bytes
        if got.speedup is not None and got.reference_ms is not None:
            low["latency ratio"] = 1.0 / got.speedup.ci95[1]
            low["latency"] = got.reference_ms.median * low["latency ratio"]
    over = {}
    for c in job.screen:
        value = low.get("latency ratio" if c.quantity == "latency" and c.relative else c.quantity)
        if value is not None and value > MARGIN * c.bound:
            unit = "x of the baseline" if c.relative else _UNITS.get(c.quantity, "")
            over[c.quantity] = {"value": float(value), "bound": float(c.bound), "unit": unit}
    if over:
        raise OverLimits(over)
