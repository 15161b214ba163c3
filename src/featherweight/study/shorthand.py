"""What a caller may write for short, as the command line does: limits and the budget by name, one
step for a recipe, a text for a list, a model and data for a task."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..limits import LIMITS, Budget, Constraint
from ..recipe import Recipe, Transform
from ..space import Domain

if TYPE_CHECKING:
    from ..task.task import Task

TRIALS = 40  # if neither trials nor minutes are given
ENDS = tuple(f.name for f in dataclasses.fields(Budget))
# how a task is made of a model and data, as `task.accept.task_of` takes it
MADE_OF = ("loss", "metric", "baseline", "label", "output", "classes", "class_axis", "name")


def task_and_recipe(
    mode: str, task: Any, data: Any, recipe: Any, options: Mapping[str, Any]
) -> tuple[Task, Recipe | None]:
    """The task that was named or is made of a model and data, and the recipe. options: by the names
    of `MADE_OF`. InputError if they do not go together."""
    from ..task.load import load_task
    from ..task.task import Task

    if recipe is None and _is_recipe(data):
        data, recipe = None, data
    given = {name: value for name, value in options.items() if value is not None}
    found = None if recipe is None else recipe_of(mode, recipe)
    if mode == "search" and data is None and task is not None and not isinstance(task, (Task, str, Path, dict)):
        task, data = None, task
    if data is None and (
        isinstance(task, (Task, str, Path)) or isinstance(task, dict) and {"file", "kind"} & set(task)
    ):
        if given:
            raise InputError(
                "these settings belong to a model and data, and a task has its own",
                got=", ".join(given),
                fix="set them in the Task",
            )
        return load_task(task), found
    if data is None:
        raise InputError(
            f"{mode} needs a task, or a model and data",
            got=type(task).__name__,
            allowed='"FILE.py:NAME", fw.Task(..), or a model and (inputs, targets)',
            fix=f"fw.{mode}(net, (X, y), ..)" if mode == "optimize" else "fw.search(data=(X, y), ..)",
        )
    if isinstance(task, Task):
        raise InputError("a task has its own data", got="a Task and data", fix="leave the data out")
    if task is None and mode == "optimize":
        raise InputError("optimize needs a model", got="None", fix="fw.search(data=..) finds one")
    from ..task.accept import task_of

    return task_of(task, data, **given), found


def _is_recipe(value: Any) -> bool:
    steps = value if isinstance(value, (list, tuple)) and value else [value]
    return isinstance(value, Recipe) or all(isinstance(s, (Transform, Domain)) for s in steps)


def recipe_of(mode: str, recipe: Any) -> Recipe:
    """A recipe, or one of the step or steps that were given."""
    if isinstance(recipe, Recipe):
        return recipe
    if _is_recipe(recipe):
        return Recipe(*recipe) if isinstance(recipe, (list, tuple)) else Recipe(recipe)
    fix = None
    if isinstance(recipe, type) and issubclass(recipe, Transform):
        fix = f"{recipe.__name__}(..)"
    elif hasattr(recipe, "shape") or hasattr(recipe, "__getitem__") and not isinstance(recipe, str):
        fix = f"inputs and targets are one argument: fw.{mode}(net, (X, y))"
    raise InputError(
        f"{mode} takes a recipe",
        got=repr(recipe)[:200],
        allowed="fw.Recipe(..), one step as fw.Prune(..), a list of steps, or None",
        fix=fix,
    )


def full(mode: str, given: Mapping[str, Any], known: list[str]) -> dict[str, Any]:
    """The settings of a call, what was written for short in full. known: the settings that it has.
    InputError for one that it does not have, with the near names."""
    out = {name: value for name, value in given.items() if name not in LIMITS and name not in ENDS}
    for name in out:
        if name not in known:
            every = [*known, *LIMITS, *ENDS, *MADE_OF, "data", "recipe", "out", "on_event", "verbose"]
            near = difflib.get_close_matches(name, every, 3, 0.5)
            raise InputError(f"{mode} has no such setting", got=name, allowed=", ".join(near or every))
    limits = {name: LIMITS[name][0](given[name]) for name in LIMITS if given.get(name) is not None}
    if limits:
        before = out.get("constraints") or ()
        before = [before] if isinstance(before, Constraint) else list(before)
        twice = [n for n, c in limits.items() if c.quantity in {getattr(b, "quantity", None) for b in before}]
        if twice:
            raise InputError("a limit is given twice", got=", ".join(twice), fix="leave it out of constraints")
        out["constraints"] = [*before, *limits.values()]
    elif isinstance(out.get("constraints"), Constraint):
        out["constraints"] = [out["constraints"]]
    if isinstance(out.get("minimize"), str):
        out["minimize"] = [part.strip() for part in out["minimize"].split(",") if part.strip()]
    out["budget"] = _budget(mode, out.get("budget"), {n: given[n] for n in ENDS if given.get(n) is not None})
    return out


def _budget(mode: str, budget: Any, ends: dict[str, Any]) -> Budget:
    """A Budget, minutes, or what was given by the names of its ends."""
    if isinstance(budget, (int, float)) and not isinstance(budget, bool):
        budget = Budget(minutes=budget)
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(
            f"this is no budget for {mode}",
            got=repr(budget)[:200],
            allowed="minutes=10, trials=40, both, or fw.Budget(trials=40, minutes=10)",
        )
    twice = [n for n in ends if budget is not None and getattr(budget, n) is not None]
    if twice:
        raise InputError("an end of the search is given twice", got=", ".join(twice), fix="leave it out of the budget")
    texts = [n for n, v in ends.items() if isinstance(v, str)]
    if texts:
        raise InputError(f"{texts[0]} is a number", got=repr(ends[texts[0]]), allowed=f"{texts[0]}=10")
    if budget is not None:
        return dataclasses.replace(budget, **ends)
    if ends.get("trials") is None and ends.get("minutes") is None:
        ends["trials"] = TRIALS
    return Budget(**ends)


def folder(task: Task, mode: str) -> Path:
    """Where a study goes whose folder nobody named: runs/TASK."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", task.name).strip("-.") or "task"
    return Path("runs") / (name + ("-search" if mode == "search" else ""))
