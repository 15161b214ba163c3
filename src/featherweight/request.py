"""What a study was asked for: settings checked, written as data, and read back."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import recipes, registry
from .errors import InputError, RecipeError, StoreError, TaskError
from .limits import OBJECTIVES, Budget, Constraint, max_drop
from .recipe import Recipe, encode
from .space import Choice, Domain, Maybe, Space
from .state import StudyState
from .store.artifacts import default_root
from .store.events import EventStore
from .targets.base import Target
from .transforms.base import Trained
from .warm import Guess

if TYPE_CHECKING:
    from .task import Task

EXPECT = ("adaptive", "bayesian")  # strategies that note how much they expect of a proposal
SUPERNETS = ("darts", "gumbel", "oneshot")  # methods of `train.relax`
_SAME = (  # what makes it the same study
    *("task_name", "fingerprint", "recipe", "target", "constraints", "minimize", "strategy", "seed"),
    *("mode", "baseline", "stopper", "guesses", "earlier", "proxy", "supernet"),
)


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
    from .measure.accuracy import metric

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


def stopper_of(given: str | dict[str, Any] | None, recipe: Recipe) -> dict[str, Any] | None:
    """{"kind": .., its fields}. `asha` and `asha(eta=2, min_budget=1)` as text. InputError if there is no such stopper, or no training to stop."""
    if given is None:
        return None
    if isinstance(given, str):
        match = re.fullmatch(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", given)
        if match is None:
            raise InputError("this is no stopper", got=given, allowed="a name such as asha, or asha(eta=2, min_budget=1)")
        given = {
            "kind": match[1],
            **{k.strip(): _number(v) for k, _, v in (part.partition("=") for part in (match[2] or "").split(",") if part.strip())},
        }
    kind, fields = str(given.get("kind")), {k: v for k, v in given.items() if k != "kind"}
    cls = registry.find("stoppers", kind)
    known = {f.name: f.default for f in dataclasses.fields(cls)}
    if set(fields) - set(known):
        raise InputError(f"{kind} has no such setting", got=", ".join(sorted(set(fields) - set(known))), allowed=", ".join(known))
    for name, value in fields.items():
        if isinstance(value, str) != isinstance(known[name], str) or not isinstance(value, (str, int, float, type(None))):
            raise InputError(
                f"{kind} cannot be set like this", got=f"{name}={value}", allowed="a word" if isinstance(known[name], str) else "a number"
            )
    cls(**fields)
    if not any(map(_can_pause, recipe.steps)):
        raise InputError(
            "a stopper needs training that can pause",
            got=str(recipe),
            allowed="steps such as train and distill",
            fix="leave it out, or add such a step",
        )
    return {"kind": kind, **fields}


def _can_pause(part: Any) -> bool:
    """Is the step, or one of those that a hole offers, training that a stopper can make wait?"""
    if isinstance(part, Maybe):
        return _can_pause(part.item)
    if isinstance(part, Choice):
        return any(map(_can_pause, part.items))
    if isinstance(part, Recipe):
        return any(map(_can_pause, part.steps))
    return isinstance(part, Trained) and part.pauses and part.epochs != 0


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def proxy_of(text: str | None, searching: bool) -> dict[str, Any] | None:
    """`synflow` or `synflow:0.25` as {"kind": "synflow", "keep": 0.25}: only nets that score like the best quarter are trained [default: half]."""
    if text is None:
        return None
    if not searching:
        raise InputError("a proxy ranks untrained nets, so it belongs to a search of architectures", got=text, fix="leave it out")
    kind, _, keep = text.partition(":")
    registry.find("models.proxies", kind)
    share = _number(keep) if keep else 0.5
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise InputError("the share that a proxy keeps is wrong", got=keep, allowed="a number above 0, up to 1: synflow:0.25")
    return {"kind": kind, "keep": float(share)}


def targets_of(text: str, threads: int = 1, batch: int = 1) -> dict[str, Any]:
    """What `--target` means: {"text", "choice" (text or a hole, as JSON), "runtimes": [..], "reference": the baseline's, "originals": [..]}.

    `auto` is every runtime (but torch, which has to be named) and dtype that runs here. A single target that cannot run here is an error; in
    `auto` it is left out.
    """

    def here(target: Target) -> bool:
        return registry.find("targets", target.runtime)().problem(target, None) is None

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
    found = sorted(dict.fromkeys(found), key=lambda t: (t.runtime != "onnxruntime", text != "auto")) if text == "auto" else list(dict.fromkeys(found))
    names = [str(t) for t in found]
    reference = Target(found[0].runtime, threads=found[0].threads, batch=found[0].batch, device=found[0].device)
    originals = [Target(r, threads=reference.threads, batch=reference.batch) for r in registry.names("targets")]
    return {
        "text": text,
        "choice": names[0] if len(names) == 1 else encode(Choice(*names)),
        "runtimes": names,
        "reference": str(reference),
        "originals": [str(t) for t in originals if here(t)],
    }


def read_config(out: Path) -> dict[str, Any]:
    """The settings of the study in a folder, or of a run.yaml."""
    import yaml

    if out.is_file():
        data = yaml.safe_load(out.read_text())
        if not isinstance(data, dict) or "fingerprint" not in data:
            raise InputError("this file is no run.yaml of an earlier run", got=str(out))
        return data

    if not (out / "study.db").exists():
        raise StoreError("there is no study in this folder", got=str(out), fix="name the folder that was given as --out")
    store = EventStore(out / "study.db")
    try:
        config = StudyState().fold(store.read()).config
    finally:
        store.close()
    if not config:
        raise StoreError("this study was never begun", got=str(out), fix="run `featherweight optimize` with this --out")
    return config


def settings(config: dict[str, Any], budget: Budget | None = None) -> dict[str, Any]:
    """The keyword arguments of `optimize` that give this configuration again."""
    target = config["target"]
    first = Target.parse(target["reference"])
    return {
        "recipe": Recipe.from_json(config["recipe"]),
        "target": target["text"],
        "constraints": [Constraint(**c) for c in config["constraints"]],
        "minimize": config["minimize"],
        "strategy": config["strategy"],
        "budget": budget or Budget(**config["budget"]),
        "seed": config["seed"],
        "workers": config["workers"],
        "threads": first.threads,
        "batch": first.batch,
        "device": config["device"],
        "reuse": config["reuse"],
        "measure_seconds": config["measure_seconds"],
        "mode": config.get("mode", "optimize"),
        "stopper": config.get("stopper"),
        "guesses": [Guess(values, weight) for values, weight in config.get("guesses", ())],
        "earlier": config.get("earlier", ()),
        **(_only_search(config) if config.get("mode") == "search" else {}),
    }


def _only_search(config: dict[str, Any]) -> dict[str, Any]:
    proxy = config.get("proxy")
    return {"proxy": f"{proxy['kind']}:{proxy['keep']}" if proxy else None, "supernet": config.get("supernet")}


def check_same_study(state: StudyState, config: dict[str, Any], out: Path) -> None:
    """StoreError if the folder holds a study with other settings: mixing two would compare what cannot be compared."""
    if not state.config:
        return
    odd = [k for k in _SAME if json.dumps(state.config.get(k), sort_keys=True) != json.dumps(json.loads(json.dumps(config[k])), sort_keys=True)]
    if odd:
        what = ["the task's code or data" if k == "fingerprint" else k for k in odd]
        raise StoreError(
            "this folder holds a study with other settings",
            got=f"{out}: different {', '.join(what)}",
            fix="use another --out, or the same settings to go on (the budget may grow)",
        )
