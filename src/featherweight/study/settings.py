"""A study's settings, read back: from its folder or a run.yaml, to the arguments that give them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError, StoreError
from ..limits import Budget, Constraint
from ..recipe import Recipe
from ..store.events import EventStore
from ..targets.base import Target
from ..warm.guess import Guess
from .state import StudyState

_SAME = (  # what makes it the same study
    *("task_name", "fingerprint", "recipe", "target", "constraints", "minimize", "strategy", "seed"),
    *("mode", "baseline", "stopper", "guesses", "earlier", "proxy", "supernet"),
)


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
