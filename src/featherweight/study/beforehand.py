"""Steps of a recipe that no filling can make work on the task's model: told before the baselines
are measured, not trial by trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import InputError
from ..recipe import Recipe, Transform
from ..recipes import builds
from ..seeding import generator
from ..space import Space
from ..space.domains import Choice, Maybe, Order
from ..task.data import Subset
from ..task.task import Task

_TRIES = 6  # fillings of a step, at most
_ROWS = 256  # training samples that it is tried with


def check_steps(task: Task, recipe: Recipe, seed: int) -> None:
    """InputError, with the reason of the last refusal, for a step whose fillings (a few, those that
    do something) are all refused by the model as it is, untrained: steps that say so
    (`Transform.tried`). Recipes that build their own model pass."""
    steps = [] if task.model is None or builds(recipe) else [s for s in _inside(recipe) if s.tried]
    if not steps:
        return
    from ..models.package import Package
    from ..transforms.base import Context

    splits = task.splits()
    few = dataclasses.replace(splits, train=Subset(splits.train, np.arange(min(_ROWS, len(splits.train)))))
    context = Context(task, few, seed, teacher=_none, teacher_outputs=_none, report=lambda _: None)
    model = Package(task.build().eval())
    for step in steps:
        why = _refusal(step, model, context, seed)
        if why is not None:
            raise InputError(
                f"the step {step.kind} cannot work on this model, whatever its fields are",
                got=f"{why.what}: {why.got}" if why.got is not None else why.what,
                allowed=None if why.allowed is None else str(why.allowed),
                fix=why.fix or f"leave {step.kind} out of the recipe",
            )


def _refusal(step: Transform, model: Any, context: Any, seed: int) -> InputError | None:
    """Why the last of its fillings was refused; None if one was not, or none does anything."""
    space, why = Space(step), None
    rng = generator(seed, "beforehand", step.kind)
    every = space.size <= _TRIES
    for i in range(int(space.size) if every else _TRIES):
        filled: Transform = space.fill(space.at(i) if every else space.sample(rng))
        if filled.idle:
            continue
        try:
            filled.apply(model, context)
        except InputError as e:
            why = e
        else:
            return None
    return why


def _inside(item: Any) -> Iterator[Transform]:
    """The steps of a recipe, those in holes, too."""
    if isinstance(item, Transform):
        yield item
    elif isinstance(item, Recipe):
        for step in item.steps:
            yield from _inside(step)
    elif isinstance(item, Maybe):
        yield from _inside(item.item)
    elif isinstance(item, (Choice, Order)):
        for option in item.items:
            yield from _inside(option)


def _none(recipe: Any) -> Any:
    raise InputError("there is no teacher yet", got=recipe)
