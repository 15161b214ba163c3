"""What a study was asked for: settings checked, written as data, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import recipes, registry
from .errors import InputError, StoreError
from .limits import OBJECTIVES, Budget, Constraint, max_drop
from .recipe import Recipe, encode
from .space import Choice
from .state import StudyState
from .store.artifacts import default_root
from .store.events import EventStore
from .targets.base import Target

if TYPE_CHECKING:
    from .task import Task

_SAME = ("task_name", "fingerprint", "recipe", "target", "constraints", "minimize", "strategy", "seed")  # what makes it the same study


def configure(
    task: Task,
    recipe: Recipe | None = None,
    *,
    target: str = "onnxruntime",
    constraints: Sequence[Constraint] = (),
    minimize: Sequence[str] = ("latency", "size"),
    strategy: str = "greedy",
    budget: Budget,
    seed: int = 0,
    workers: int | None = None,
    threads: int = 1,
    batch: int = 1,
    device: str = "cpu",
    reuse: bool = True,
    measure_seconds: float = 2.0,
) -> dict[str, Any]:
    """The study's settings as JSON data, all defaults decided and everything checked that can be checked before running."""

    registry.find("strategies", strategy)
    for name in minimize:
        if name not in OBJECTIVES:
            raise InputError("no such objective", got=name, allowed=", ".join(OBJECTIVES))
    if not minimize:
        raise InputError("nothing to minimize", allowed=", ".join(OBJECTIVES))
    if any(c.quantity in ("drop", "metric") for c in constraints):
        limits = list(constraints)
    else:
        limits = [max_drop(0.01), *constraints]
    recipe = recipe or task.recipe or recipes.default(task)
    if recipe.is_filled:
        recipe.check()
    n = workers or max(1, (os.cpu_count() or 1) // 2)

    return {
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
    }


def check_same_study(state: StudyState, config: dict[str, Any], out: Path) -> None:
    """StoreError if the folder holds a study with other settings: mixing two would compare what cannot be compared."""
    if not state.config:
        return
    odd = [k for k in _SAME if json.dumps(state.config[k], sort_keys=True) != json.dumps(json.loads(json.dumps(config[k])), sort_keys=True)]
    if odd:
        what = ["the task's code or data" if k == "fingerprint" else k for k in odd]
        raise StoreError(
            "this folder holds a study with other settings",
            got=f"{out}: different {', '.join(what)}",
            fix="use another --out, or the same settings to go on (the budget may grow)",
        )
