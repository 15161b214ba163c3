"""What a user should know before anything runs: of the data, and of what is not searched."""

from __future__ import annotations

import numpy as np

from .. import recipes
from ..errors import InputError, RecipeError
from ..proof.chance import outlook as outlook_of
from ..recipe import Candidate, Recipe, decode
from ..recipes import builds
from ..report import units
from ..report.provable import proof
from ..seeding import generator
from ..task.task import Task
from .config import Config
from .state import StudyState
from .statics import Statics, sample_shape

_DRAWN, _HARDLY = 200, 0.02  # nets that are drawn, and the share of them that is hardly any


def noticed(task: Task, config: Config) -> list[str]:
    """Sentences; none if there is nothing to say."""
    return [*task.notes, *_evidence(task), *_classes(task), *_training(task, config), *_room(task, config)]


def _evidence(task: Task) -> list[str]:
    """Samples that do not count by themselves."""
    out = []
    for name, numbers in task.splits().units.items():
        other, counted = int((numbers < 0).sum()), len(np.unique(numbers[numbers >= 0]))
        if other:
            out.append(
                f"{other} of {len(numbers)} samples of the {name} split are in a split before it, too: they are no "
                "evidence, and do not count in comparisons and certificates"
            )
        if counted < len(numbers) - other:
            out.append(
                f"the {name} split has {counted} samples of evidence among its {len(numbers)}: copies, and rows of a "
                "group, count as one"
            )
    return out


def _classes(task: Task) -> list[str]:
    """Classes that are trained on, and of which a split has nothing to say."""
    counts = task.splits().report.get("classes") or {}
    out = []
    for split, says in (("test", "certificates say"), ("valid", "the chance of a certificate knows")):
        missing = [name for name, n in counts.items() if n.get("train") and not n.get(split)]
        if missing:
            out.append(
                f"the {split} split has no sample of {len(missing)} of {len(counts)} classes "
                f"({', '.join(missing[:10])}{', ..' if len(missing) > 10 else ''}): {says} nothing of them"
            )
    return out


def _room(task: Task, config: Config) -> list[str]:
    """Does hardly any net of the space hold the limits that its description settles?"""
    statics = Statics(sample_shape(task.example()), len(task.splits().train), config.constraints)
    limits = [c for c in statics.limits if not c.relative]
    recipe = decode(config.recipe)
    if not limits or not isinstance(recipe, Recipe) or not builds(recipe):
        return []
    space, rng = statics.space(Candidate(recipe, decode(config.target.choice))), generator(config.seed, "room")
    drawn = [space.sample(rng) for _ in range(_DRAWN)]
    held = sum(space.refused(filling) is None for filling in drawn)
    if held >= _HARDLY * _DRAWN:
        return []
    names = " and ".join(str(c) for c in limits)
    few = f"{held} of {_DRAWN} random nets of the space hold" if held else f"none of {_DRAWN} random nets of the space"
    found = []
    for filling in drawn:
        try:
            found.append(statics.cost(space.fill(filling).recipe))
        except (InputError, RecipeError):  # its fields do not fit each other
            continue
    least = [f"{min(getattr(cost, c.quantity) for cost in found):,} {c.quantity}" for c in limits if found]
    return [
        f"{few}{'' if held else ' holds'} {names}"
        + (f"; the smallest has {' and '.join(least)}" if least else "")
        + ". Loosen the limits, or name a recipe with smaller nets"
    ]


def foreseen(state: StudyState) -> list[str]:
    """What the baselines showed of what can be proven at all; none if nothing stands in the way, or
    it was said before they ran."""
    outlook, base = state.outlook(), state.baseline
    least = next((c.bound for c in state.constraints if c.quantity == "metric"), None)
    out = []
    if least is not None and base.metric.value < least:
        own, floor = units.metric(base.metric.value, base.metric.name), units.metric(least, base.metric.name)
        out.append(f"the original itself has {base.metric.name} {own}, under the floor of {floor}")
    if outlook is not None and state.prospect() is None and "max_drop" in outlook:
        seen = [e.paired for e in state.baselines.values() if e.paired is not None]
        told = outlook_of(state.tested, outlook["max_drop"], seen) if seen else None
        if told is not None and (told["provable"] is None or told["provable"] < 0):
            out.append(proof(told, base.metric.name))
    return out


def _training(task: Task, config: Config) -> list[str]:
    """Is training left out because it does not fit the minutes?"""
    minutes = config.budget.minutes
    if minutes is None or task.recipe is not None or config.recipe != recipes.ptq().to_json():
        return []
    least = recipes.least_minutes(task, config.train_threads)
    if least <= minutes:  # it was given as the recipe
        return []
    return [
        f"no pruning or distillation is searched: a search with recovery by training takes about "
        f"{units.seconds(60 * least)} for this model and data, and {units.seconds(60 * minutes)} are given. Give "
        "more minutes and another --out, or a recipe"
    ]
