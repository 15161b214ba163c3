"""What a study was asked for: everything checked that can be checked before it runs,
every default decided."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import recipes, registry
from ..errors import InputError, NoStudy, RecipeError, TaskError
from ..limits import OBJECTIVES, Budget, Constraint, max_drop
from ..measure.accuracy import metric_of
from ..recipe import Recipe, encode
from ..space import Choice, Domain, Space
from ..store.artifacts import default_root
from ..targets.base import Target
from ..task.task import Task
from ..train.relax_settings import METHODS
from ..warm.guess import Guess
from .beforehand import check_steps
from .config import Config, Settings, Targets
from .fitting import check_evidence, check_fit
from .polish import LONGER
from .words import can_pause, proxy_of, stopper_of


def configure(task: Task, asked: Settings, before: Config | None = None) -> Config:
    """The study's settings, all defaults decided and everything checked that can be
    checked before running. before: of the study that goes on; the epochs of a recipe that nobody
    gave stay as they were timed when it began, and its targets as they were found then."""
    registry.find("strategies", asked.strategy)
    check_device(asked.device)
    searching = asked.mode == "search"
    limits = _of_metric(task, asked.constraints)
    minimize = objectives_of(asked.minimize, searching, bool(limits))
    if not searching and not any(c.quantity in ("drop", "metric") for c in limits):
        limits = (_default_floor(task, before), *limits)
    cores = os.cpu_count() or 1
    workers = asked.workers or max(1, cores // 2)
    threads = max(1, cores // workers)
    if asked.recipe is None:  # then the task is trained for some steps, to see how long one takes
        check_fit(task)
    recipe = recipe_of(task, asked, threads)
    if asked.recipe is None and before is not None and _as_default(recipe.to_json()) == _as_default(before.recipe):
        recipe = Recipe.from_json(before.recipe)
    if before is None:
        check_evidence(task)
    check_floors(task, limits)
    if asked.recipe is not None:
        check_fit(task)
    if before is None:
        check_steps(task, recipe, asked.seed)
    check_known(asked.guesses, asked.earlier, recipe)
    check_end(asked.budget, asked.strategy)
    supernet = asked.supernet
    if searching and asked.strategy == "oneshot" and supernet is None:
        supernet = "oneshot"
    check_supernet(supernet, recipe)
    if before is not None and "polish" in before.unsaid:  # it began before there was any
        asked = replace(asked, polish=0.0)
    polish = float(asked.polish) if any(map(can_pause, recipe.steps)) else 0.0
    fixed = recipes.fixed(task, recipe, 1 + LONGER if polish else 1).to_json() if searching else None
    beside = fixed is not None and task.model is not None  # the task's own model is the baseline
    return Config(
        mode=asked.mode,
        baseline=None if beside else fixed,
        original=(task.baseline or Recipe()).to_json() if task.model is not None else None,
        extra_baselines=({"label": "fixed net", "recipe": fixed},) if beside else (),
        stopper=stopper_of(asked.stopper, recipe),
        guesses=asked.guesses,
        earlier=tuple(str(Path(p).resolve()) for p in asked.earlier),
        proxy=proxy_of(asked.proxy, searching),
        supernet=supernet,
        confidence=float(asked.confidence),
        polish=polish,
        task=task.ref,
        task_name=task.name,
        fingerprint=task.fingerprint,
        recipe=recipe.to_json(),
        target=_still(targets_of(asked.target, asked.threads, asked.batch), before),
        constraints=limits,
        minimize=minimize,
        strategy=asked.strategy,
        budget=asked.budget,
        seed=asked.seed,
        device=asked.device,
        workers=workers,
        train_threads=threads,
        reuse=asked.reuse,
        measure_seconds=asked.measure_seconds,
        force=asked.force,
        store=str(default_root()),
    )


def _of_metric(task: Task, limits: Sequence[Constraint]) -> tuple[Constraint, ...]:
    """The limits as they are meant for the task's metric."""
    within = metric_of(task).within
    return tuple(limits) if within is None else tuple(c.of_metric(*within) for c in limits)


def _default_floor(task: Task, before: Config | None) -> Constraint:
    """A drop of one point, or of one percent of an error that has no upper end; of a study that
    goes on, what it was begun with."""
    begun = [c for c in before.constraints if c.quantity == "drop"] if before is not None else []
    (found,) = _of_metric(task, [max_drop("1%")])
    return begun[0] if begun else found if found.relative else max_drop(0.01)


def objectives_of(given: Sequence[str] | None, searching: bool, limited: bool) -> tuple[str, ...]:
    """What is to be minimized; InputError for what cannot be. limited: are there constraints?"""
    if given is None:
        return (("error",) if limited else ("error", "latency")) if searching else ("latency", "size")
    for name in given:
        if name not in OBJECTIVES:
            raise InputError("no such objective", got=name, allowed=", ".join(OBJECTIVES))
    if not given:
        raise InputError("nothing to minimize", allowed=", ".join(OBJECTIVES))
    if len(set(given)) < len(given):
        raise InputError(
            "an objective is named twice", got=", ".join(given), fix=f"name each once: {','.join(dict.fromkeys(given))}"
        )
    return tuple(given)


def recipe_of(task: Task, asked: Settings, threads: int = 1) -> Recipe:
    """The recipe to search: the one given, the task's own, or one that suits the task, the time
    and the threads of a training. RecipeError, TaskError if it is not for this mode."""
    searching, minutes, trials = asked.mode == "search", asked.budget.minutes, asked.budget.trials or recipes.TRIALS
    if not searching and task.model is None:
        raise TaskError(
            f"task {task.name!r} has no model to optimize",
            fix="search for one: fw.search(task, ..) or `featherweight search`",
        )
    own = task.recipe if task.recipe is not None and (not searching or recipes.builds(task.recipe)) else None
    recipe = asked.recipe or own
    if recipe is None and searching:
        recipe = recipes.search(task, asked.compress, asked.stopper is not None, minutes, threads, trials)
    elif recipe is None:
        recipe = recipes.default(task, minutes, threads, trials)
    if searching and not recipes.builds(recipe):
        raise RecipeError(
            "a search of architectures needs a recipe that begins with Build",
            got=str(recipe),
            fix="fw.Recipe(fw.Build(fw.ConvNet.space(..)), fw.Train(..)), or `optimize` for a model that you have",
        )
    if recipe.is_filled:
        recipe.check()
    return recipe


def _as_default(recipe: Any) -> str:
    """A default recipe without what depends on how fast the machine was (epochs, batches) or on the
    release (embeddings), by which the one that a study began with is known again."""
    text = re.sub(r'"epochs": \d+', '"epochs": 0', json.dumps(recipe))
    return re.sub(r',? ?"(batches|embeddings)": (\d+|\{[^}]*\})', "", text)


def check_device(device: str) -> None:
    """InputError for a device that is not here."""
    import torch

    if device.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise InputError("models cannot be trained on this device here", got=device, allowed="cpu: there is no CUDA")


def check_known(guesses: Sequence[Guess], earlier: Sequence[str | Path], recipe: Recipe) -> None:
    """InputError, NoStudy for guesses that do not fit the recipe's space,
    and earlier studies that are not there."""
    for guess in guesses:
        guess.checked(Space(recipe))
    missing = [str(p) for p in earlier if not (Path(p) / "study.db").is_file()]
    if missing:
        raise NoStudy(
            "there is no study in this folder to learn from",
            got=", ".join(missing),
            fix="name folders that were given as --out",
        )


def check_end(budget: Budget, strategy: str) -> None:
    """InputError if the search is to end by what its strategy expects, and it expects nothing."""
    if budget.least_gain is not None and not registry.find("strategies", strategy).expects:
        able = [s for s in sorted(registry.built_in("strategies")) if registry.find("strategies", s).expects]
        raise InputError(
            "the search cannot end by what its strategy expects: it expects nothing",
            got=f"{strategy}, least_gain={budget.least_gain}",
            allowed=", ".join(able),
            fix="leave least_gain out, or use stall",
        )


def check_floors(task: Task, limits: Sequence[Constraint]) -> None:
    """InputError if the task's metric does not exist, or a floor makes no sense for it: less of it
    is better, or it never takes such values (of a function, that is seen with the baseline)."""
    asked = metric_of(task)
    for c in limits:
        if asked.within is not None and (fix := c.misfit(*asked.within)) is not None:
            low, high = asked.within
            raise floor_refused(c, asked.name, f"{asked.name} lies between {low:g} and {high:g}", fix)
    if any(c.quantity == "metric" for c in limits) and not asked.higher_is_better:
        raise InputError(
            "min_metric is a floor, but of this metric less is better",
            got=asked.name,
            fix="use max_drop: how much worse it may be",
        )


def floor_refused(limit: Constraint, name: str, known: str, fix: str) -> InputError:
    """known: what is known of the metric."""
    said = ", given in percentage points" if limit.points else ""
    return InputError(f"this floor makes no sense for {name}", got=f"{limit}{said}", allowed=known, fix=fix)


def check_supernet(method: str | None, recipe: Recipe) -> None:
    """InputError if there is no such method, or the recipe's net cannot be made into
    one supernet by it."""
    if method is None:
        return
    if method not in METHODS:
        raise InputError("no such supernet", got=method, allowed=", ".join(METHODS))
    net = getattr(recipe.steps[0], "net", None) if recipe.steps else None
    if net is None or isinstance(net, Domain):
        raise InputError(
            "a supernet needs a recipe that begins with Build of one net",
            got=str(recipe),
            fix="fw.Recipe(fw.Build(net), ..)",
        )
    if not len(Space(net)):
        raise InputError(
            "a supernet needs a net with holes", got=str(net), fix="open a field of it, or leave the supernet out"
        )
    if method == "oneshot":
        return
    import torch

    with torch.device("meta"):  # built without memory, only to hear what it objects to
        net.supernet()


def _still(found: Targets, before: Config | None) -> Targets:
    """What the study that goes on was begun with, if all of it still runs here: what was installed
    since is for new studies."""
    was = before.target if before is not None else found
    kept = set(was.runtimes) <= set(found.runtimes) and set(was.originals) <= set(found.originals)
    return was if was.text == found.text and kept else found


def targets_of(text: str, threads: int = 1, batch: int = 1) -> Targets:
    """What `--target` means here. TargetError if a target that is named cannot run here.

    `auto` is every runtime (but torch, which has to be named) and dtype that runs here. A single
    target that cannot run here is an error; in `auto` it is left out.
    """

    def here(target: Target) -> bool:
        try:
            return registry.find("targets", target.runtime)().problem(target, None) is None
        except InputError:  # a plug-in that cannot be loaded is not here; `featherweight doctor` names it
            return False

    if text.strip() == "auto":
        tried = [
            Target(runtime, dtype, threads=threads, batch=batch)
            for runtime in registry.names("targets")
            if registry.find("targets", runtime).automatic
            for dtype in ("fp32", "bf16")
        ]
        found = [t for t in tried if here(t)]
    else:
        found = []
        for part in text.split(","):
            t = Target.parse(part)
            t = replace(t, threads=threads if t.threads == 1 else t.threads, batch=batch if t.batch == 1 else t.batch)
            t.load_runtime()
            found.append(t)
    found = (
        sorted(dict.fromkeys(found), key=lambda t: (t.runtime != "onnxruntime", text != "auto"))
        if text == "auto"
        else list(dict.fromkeys(found))
    )
    names = [str(t) for t in found]
    reference = Target(found[0].runtime, threads=found[0].threads, batch=found[0].batch, device=found[0].device)
    originals = [Target(r, threads=reference.threads, batch=reference.batch) for r in registry.names("targets")]
    return Targets(
        text=text,
        choice=names[0] if len(names) == 1 else encode(Choice(*names)),
        runtimes=tuple(names),
        reference=str(reference),
        originals=tuple(str(t) for t in originals if here(t)),
    )
