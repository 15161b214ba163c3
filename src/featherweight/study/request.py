"""What a study was asked for: settings checked, written as data, and read back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import recipes, registry
from ..errors import InputError, RecipeError, StoreError, TaskError
from ..limits import OBJECTIVES, Budget, Constraint, max_drop
from ..recipe import Recipe
from ..space import Domain, Space
from ..store.artifacts import default_root
from ..warm.guess import Guess
from .words import proxy_of, stopper_of, targets_of

if TYPE_CHECKING:
    from ..task.task import Task

EXPECT = ("adaptive", "bayesian")  # strategies that note how much they expect of a proposal
SUPERNETS = ("darts", "gumbel", "oneshot")  # methods of `train.relax`


def configure(
    task: Task,
    recipe: Recipe | None = None,
    *,
    target: str = "onnxruntime",
    constraints: Sequence[Constraint] = (),
    minimize: Sequence[str] | None = None,
    strategy: str = "adaptive",
    budget: Budget,
    seed: int = 0,
    workers: int | None = None,
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    reuse: bool = True,
    measure_seconds: float = 2.0,
    mode: str = "optimize",
    compress: bool = False,
    stopper: str | dict[str, Any] | None = None,
    guesses: Sequence[Guess] = (),
    earlier: Sequence[str | Path] = (),
    proxy: str | None = None,
    supernet: str | None = None,
) -> dict[str, Any]:
    """The study's settings as JSON data, all defaults decided and everything checked that can be checked before running.

    mode: "optimize" (a model that there is) or "search" (the recipe begins with Build); compress: a search without a recipe of its own
    prunes and quantizes, too. The others are those of `study.optimize` and `study.search`.
    """
    registry.find("strategies", strategy)
    searching = mode == "search"
    minimize = objectives_of(minimize, searching, bool(constraints))
    limits = list(constraints)
    if not searching and not any(c.quantity in ("drop", "metric") for c in constraints):
        limits = [max_drop(0.01), *limits]
    recipe = recipe_of(task, recipe, searching, compress, stopper is not None)
    if any(c.quantity == "metric" for c in limits):
        check_floor(task)
    check_known(guesses, earlier, recipe)
    check_end(budget, strategy)
    if searching and strategy == "oneshot" and supernet is None:
        supernet = "oneshot"
    check_supernet(supernet, recipe)
    n = workers or max(1, (os.cpu_count() or 1) // 2)
    fixed = recipes.fixed(task, recipe) if searching else None
    return {
        "mode": mode,
        "baseline": fixed.to_json() if fixed is not None and task.model is None else None,
        "extra_baselines": [{"label": "fixed net", "recipe": fixed.to_json()}] if fixed is not None and task.model is not None else [],
        "stopper": stopper_of(stopper, recipe),
        "guesses": [[dict(g.values), g.weight] for g in guesses],
        "earlier": [str(Path(p).resolve()) for p in earlier],
        "proxy": proxy_of(proxy, searching),
        "supernet": supernet,
        "task": task.ref,
        "task_name": task.name,
        "fingerprint": task.fingerprint,
        "recipe": recipe.to_json(),
        "target": targets_of(target, threads, batch),
        "constraints": [c.to_json() for c in limits],
        "minimize": list(minimize),
        "strategy": strategy,
        "budget": asdict(budget),
        "seed": seed,
        "device": device,
        "workers": n,
        "train_threads": max(1, (os.cpu_count() or 1) // n),
        "reuse": reuse,
        "measure_seconds": measure_seconds,
        "store": str(default_root()),
    }


def objectives_of(given: Sequence[str] | None, searching: bool, limited: bool) -> tuple[str, ...]:
    """What is to be minimized; InputError for what cannot be. limited: are there constraints?"""
    if given is None:
        return (("error",) if limited else ("error", "latency")) if searching else ("latency", "size")
    for name in given:
        if name not in OBJECTIVES:
            raise InputError("no such objective", got=name, allowed=", ".join(OBJECTIVES))
    if not given:
        raise InputError("nothing to minimize", allowed=", ".join(OBJECTIVES))
    return tuple(given)


def recipe_of(task: Task, given: Recipe | None, searching: bool, compress: bool, stopped: bool) -> Recipe:
    """The recipe to search: the one given, the task's own, or one that suits the task. RecipeError, TaskError if it is not for this mode."""
    if not searching and task.model is None:
        raise TaskError(f"task {task.name!r} has no model to optimize", fix="search for one: fw.search(task, ..) or `featherweight search`")
    own = task.recipe if task.recipe is not None and (not searching or recipes.builds(task.recipe)) else None
    recipe = given or own or (recipes.search(task, compress=compress, stopped=stopped) if searching else recipes.default(task))
    if searching and not recipes.builds(recipe):
        raise RecipeError(
            "a search of architectures needs a recipe that begins with Build",
            got=str(recipe),
            fix="fw.Recipe(fw.Build(fw.ConvNet.space(..)), fw.Train(..)), or `optimize` for a model that you have",
        )
    if recipe.is_filled:
        recipe.check()
    return recipe


def check_known(guesses: Sequence[Guess], earlier: Sequence[str | Path], recipe: Recipe) -> None:
    """InputError, StoreError for guesses that do not fit the recipe's space, and earlier studies that are not there."""
    for guess in guesses:
        guess.checked(Space(recipe))
    missing = [str(p) for p in earlier if not (Path(p) / "study.db").is_file()]
    if missing:
        raise StoreError("there is no study in this folder to learn from", got=", ".join(missing), fix="name folders that were given as --out")


def check_end(budget: Budget, strategy: str) -> None:
    """InputError if the search is to end by what its strategy expects, and it expects nothing."""
    if budget.least_gain is not None and strategy not in EXPECT:
        raise InputError(
            "the search cannot end by what its strategy expects: it expects nothing",
            got=f"{strategy}, least_gain={budget.least_gain}",
            allowed=", ".join(EXPECT),
            fix="leave least_gain out, or use stall",
        )


def check_floor(task: Task) -> None:
    """InputError if less of the task's metric is better: then a floor asks for the worse."""
    from ..measure.accuracy import metric

    asked = metric(task.metric)
    if not asked.higher_is_better:
        raise InputError("min_metric is a floor, but of this metric less is better", got=asked.name, fix="use max_drop: how much worse it may be")


def check_supernet(method: str | None, recipe: Recipe) -> None:
    """InputError if there is no such method, or the recipe's net cannot be made into one supernet by it."""
    if method is None:
        return
    if method not in SUPERNETS:
        raise InputError("no such supernet", got=method, allowed=", ".join(SUPERNETS))
    net = getattr(recipe.steps[0], "net", None) if recipe.steps else None
    if net is None or isinstance(net, Domain):
        raise InputError("a supernet needs a recipe that begins with Build of one net", got=str(recipe), fix="fw.Recipe(fw.Build(net), ..)")
    if not len(Space(net)):
        raise InputError("a supernet needs a net with holes", got=str(net), fix="open a field of it, or leave the supernet out")
    if method == "oneshot":
        return
    import torch

    with torch.device("meta"):  # built without memory, only to hear what it objects to
        net.supernet()
