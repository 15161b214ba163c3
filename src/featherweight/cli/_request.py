"""From command-line options to the arguments of `featherweight.study.calls.optimize`. Everything cheap is checked before the task is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..limits import Budget, Constraint
    from ..recipe import Recipe
    from ..task.task import Task
    from ..warm.guess import Guess

TRIALS = 40  # if neither trials nor minutes are given

# Options by what they are for.
TASK = ("model", "data", "text_column", "label_column", "max_length")
LIMITS = ("max_drop", "min_metric", "max_latency", "max_size", "max_memory", "max_params", "max_macs")
BUDGET = ("trials", "minutes", "trial_minutes", "trial_memory_gb", "enough", "stall", "least_gain")
SETTINGS = ("strategy", "stopper", "proxy", "supernet", "target", "threads", "batch", "seed", "workers", "reuse")


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `optimize`. With a run.yaml its settings hold, and what was given on the command line goes before them.

    options: all those of the command, by parameter name; None where one was not given."""
    from ..study.settings import settings as of_config

    task, minimize, recipe = options["task"], options["minimize"], options["recipe"]
    out: dict[str, Any] = of_config(_config(Path(str(task)))) if _is_run_file(task) else {"constraints": []}
    out["constraints"] = _constraints(out["constraints"], _among(options, LIMITS))
    out["budget"] = _budget(out.get("budget"), _among(options, BUDGET))
    if minimize is not None:
        out["minimize"] = tuple(part.strip() for part in minimize.split(",") if part.strip())
    if recipe is not None:
        out["recipe"] = _recipe(recipe)
    if _is_run_file(task) and options["target"] is not None:  # the file's threads and batch belong to the file's target
        out |= {"threads": 1, "batch": 1}
    out |= _among(options, SETTINGS)
    if options["guess"]:
        out["guesses"] = guesses(options["guess"])
    if options["earlier"]:
        out["earlier"] = options["earlier"]
    _check(out)
    return out


def _among(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: options[name] for name in names if options.get(name) is not None}


def task(options: Mapping[str, Any]) -> Task:
    """The task that TASK or --task names, loaded. InputError if both or neither are given."""
    from ..task.load import load_task

    text, kind = options["task"], options["kind"]
    known = _among(options, TASK) | dict(_option(text) for text in options["task_option"] or [])
    if (text is None) == (kind is None):
        raise InputError(
            "one task is needed",
            got="none" if text is None else f"{text} and --task {kind}",
            allowed="FILE.py, FILE.py:NAME, run.yaml, or --task KIND --model .. --data ..",
            fix="featherweight optimize examples/digits.py",
        )
    if kind is not None:
        from ..task.kinds import make_task

        return make_task(kind, **known)
    if known:
        raise InputError(
            "these options belong to --task, not to a task file", got=", ".join(f"--{k.replace('_', '-')}" for k in known), fix="leave them out"
        )
    if _is_run_file(text):
        ref = _config(Path(str(text)))["task"]
        if ref is None:
            raise InputError(
                "this run's task was made in a program, not in a file, and cannot be loaded again", got=text, fix="call optimize(...) there again"
            )
        return load_task(ref)
    return load_task(str(text))


def refuse_without_out(text: str | None) -> None:
    """A run.yaml needs --out, so that a re-run never lands by mistake in the run that it repeats."""
    if _is_run_file(text):
        raise InputError("to run a run.yaml again, say where", got=text, fix=f"featherweight optimize {text} --out runs/again")


def folder(out: Path | None, task: Task, suffix: str = "") -> Path:
    """--out, or runs/TASK."""
    return out or Path("runs") / ((re.sub(r"[^A-Za-z0-9_.-]+", "-", task.name).strip("-.") or "task") + suffix)


def guesses(texts: Sequence[str]) -> list[Guess]:
    """`{"build.net.stem": 32}@2` as a guess of weight 2."""
    from ..warm.guess import Guess

    out = []
    for text in texts:
        values, at, weight = text.rpartition("@")
        if not at or values.count("{") != values.count("}"):
            values, weight = text, "1"
        try:
            read, heavy = json.loads(values), float(weight)
            if not isinstance(read, dict):
                raise ValueError("no object")
        except ValueError as e:
            raise InputError("a --guess is JSON[@WEIGHT]", got=text, allowed="'{\"train.lr\": 0.01}@2'") from e
        out.append(Guess(read, heavy))
    return out


def _is_run_file(text: str | None) -> bool:
    return text is not None and text.endswith((".yaml", ".yml"))


def _config(path: Path) -> dict[str, Any]:
    import yaml

    from ..study.settings import read_config

    if not path.is_file():
        raise InputError("there is no such file", got=str(path), allowed="the run.yaml that an earlier run wrote")
    try:
        return read_config(path)
    except yaml.YAMLError as e:
        raise InputError("this file is not valid YAML", got=f"{path}: {e}") from e


def _constraints(before: Sequence[Constraint], limits: Mapping[str, Any]) -> list[Constraint]:
    """Limits by option name, in place of those of the same quantity in `before`."""
    from .. import limits as make

    new = [getattr(make, name)(value) for name, value in limits.items()]
    return [c for c in before if c.quantity not in {n.quantity for n in new}] + new


def _budget(before: Budget | None, given: Mapping[str, Any]) -> Budget:
    from dataclasses import asdict

    from ..limits import Budget

    values = {**(asdict(before) if before else {}), **given}
    if values.get("trials") is None and values.get("minutes") is None:
        values["trials"] = TRIALS
    return Budget(**values)


def _recipe(path: Path) -> Recipe:
    from ..recipe import Recipe

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError("the recipe cannot be read", got=f"{path}: {e}", allowed="a JSON or YAML file") from e
    return Recipe.from_yaml(text)  # JSON is YAML


def _option(text: str) -> tuple[str, Any]:
    """`epochs=3` as ("epochs", 3): the value is JSON if it can be read so, else text."""
    name, eq, value = text.partition("=")
    if not eq or not name:
        raise InputError("a --task-option is NAME=VALUE", got=text, allowed="epochs=3")
    try:
        return name.replace("-", "_"), json.loads(value)
    except json.JSONDecodeError:
        return name.replace("-", "_"), value


def _check(values: Mapping[str, Any]) -> None:
    """InputError for a strategy, objective or target that does not exist, with the list of those that do."""
    from .. import registry
    from ..limits import OBJECTIVES
    from ..targets.base import Target

    if "strategy" in values and values["strategy"] not in registry.names("strategies"):
        raise InputError("no such strategy", got=values["strategy"], allowed=", ".join(registry.names("strategies")))
    odd = [name for name in values.get("minimize", ()) if name not in OBJECTIVES]
    if odd or values.get("minimize") == ():
        raise InputError("no such objective", got=", ".join(odd) or "nothing to minimize", allowed=", ".join(OBJECTIVES))
    for part in str(values.get("target", "auto")).split(","):
        if part.strip() != "auto":
            Target.parse(part)
    for name in ("threads", "batch", "workers"):
        if name in values and values[name] is not None and values[name] < 1:
            raise InputError(f"--{name} has to be at least 1", got=values[name])


def larger(out: Path, options: Mapping[str, Any]) -> Budget | None:
    """The study's budget with what the options say in its place; None if they say nothing."""
    given = _among(options, BUDGET)
    if not given:
        return None
    from ..limits import Budget
    from ..study.settings import read_config

    return _budget(Budget(**read_config(out)["budget"]), given)
