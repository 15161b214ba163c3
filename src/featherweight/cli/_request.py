"""From command-line options to the arguments of the calls in `study.calls`. Everything cheap is
checked before the task is loaded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..errors import InputError
from ..limits import LIMITS, OBJECTIVES, Budget, Constraint
from ..plain import read_text
from ..recipe import Recipe
from ..study.config import Config, Settings
from ..study.shorthand import TRIALS
from ..study.shorthand import folder as default_folder
from ..targets.base import Target
from ..warm.guess import Guess
from ._flags import FLAGS
from ._options import parameter

if TYPE_CHECKING:
    from ..task.task import Task

RECIPES = ("cnn", "encoder", "mlp", "ptq")  # that can be named, as they are in `featherweight.recipes`
_BUDGET = tuple(f.name for f in dataclasses.fields(Budget))


def settings(mode: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(the call, its keyword arguments). With a run.yaml its settings hold, and what was given on
    the command line goes before them.

    options: all those of the command, by parameter name; None where one was not given."""
    task, out = options["task"], dict[str, Any]({"constraints": []})
    if _is_run_file(task):
        asked = _config(Path(str(task))).settings()
        mode, out = (mode if mode == "search" else asked.mode), asked.arguments()
        # the file's threads and batch belong to the file's target
        if options["target"] is not None:
            out |= {"threads": 1, "batch": 1}
    out["constraints"] = _constraints(out["constraints"], _among(options, list(LIMITS)))
    out["budget"] = _budget(out.get("budget"), _among(options, _BUDGET))
    if options["recipe"] is not None:
        out["recipe"] = _recipe(options["recipe"])
    for f in Settings.fields(mode):
        value = options.get(parameter(f)) if f.metadata["option"] is not None else None
        if value is not None and value != []:
            out[f.name] = _READ[f.name](value) if f.name in _READ else value
    _check(out)
    return mode, out


def _among(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: options[name] for name in names if options.get(name) is not None}


def task(options: Mapping[str, Any]) -> Task:
    """The task that TASK or --task names, loaded. InputError if both or neither are given."""
    from ..task.load import load_task

    text, kind = options["task"], options["kind"]
    if text is not None and kind is None and text.endswith((".onnx", ".pt2")):
        options, text, kind = {**options, "model": text}, None, "model-file"
        if options["data"] is None:
            raise InputError(
                "a model file needs data", got=options["model"], fix="--data samples.npz, with one array an input"
            )
    known = _among(options, FLAGS) | dict(_option(text) for text in options["task_option"] or [])
    if (text is None) == (kind is None):
        raise InputError(
            "one task is needed",
            got="none" if text is None else f"{text} and --task {kind}",
            allowed="FILE.py, FILE.py:NAME, run.yaml, MODEL.onnx or .pt2 --data .., or --task KIND --model .. --data "
            "..",
            fix="featherweight optimize examples/digits.py",
        )
    if kind is not None:
        from ..task.kinds import make_task

        return make_task(kind, **known)
    if known:
        raise InputError(
            "these options belong to --task, not to a task file",
            got=", ".join(f"--{k.replace('_', '-')}" for k in known),
            fix="leave them out",
        )
    if _is_run_file(text):
        from ..study.trust import check_trusted

        config = _config(Path(str(text)))
        ref = config.task
        if ref is None:
            raise InputError(
                "this run's task was made in a program, not in a file, and cannot be loaded again",
                got=text,
                fix="call optimize(...) there again",
            )
        if not options.get("trust"):
            check_trusted(config, str(text))
        return load_task(ref)
    return load_task(str(text))


def refuse_without_out(text: str | None) -> None:
    """A run.yaml needs --out, so that a re-run never lands by mistake in the run
    that it repeats."""
    if _is_run_file(text):
        raise InputError(
            "to run a run.yaml again, say where", got=text, fix=f"featherweight optimize {text} --out runs/again"
        )


def folder(out: Path | None, task: Task, mode: str) -> Path:
    """--out, or runs/TASK."""
    return out or default_folder(task, mode)


def guesses(texts: Sequence[str]) -> list[Guess]:
    """`{"build.net.stem": 32}@2` as a guess of weight 2."""
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


def _config(path: Path) -> Config:
    import yaml

    from ..study.reading import read_config

    if not path.is_file():
        raise InputError("there is no such file", got=str(path), allowed="the run.yaml that an earlier run wrote")
    try:
        return read_config(path)
    except yaml.YAMLError as e:
        raise InputError("this file is not valid YAML", got=f"{path}: {e}") from e


def _constraints(before: Sequence[Constraint], limits: Mapping[str, Any]) -> list[Constraint]:
    """Limits by option name, in place of those of the same quantity in `before`."""
    new = [LIMITS[name][0](value) for name, value in limits.items()]
    return [c for c in before if c.quantity not in {n.quantity for n in new}] + new


def _budget(before: Budget | None, given: Mapping[str, Any]) -> Budget:
    values = {**(dataclasses.asdict(before) if before else {}), **given}
    if values.get("trials") is None and values.get("minutes") is None:
        values["trials"] = TRIALS
    return Budget(**values)


def _recipe(path: Path) -> Recipe:
    if str(path) in RECIPES and not path.exists():
        from .. import recipes

        made: Recipe = getattr(recipes, str(path))()
        return made
    try:
        text = read_text(path)
    except (OSError, ValueError) as e:
        raise InputError(
            "there is no such recipe" if isinstance(e, FileNotFoundError) else "the recipe cannot be read",
            got=str(path) if isinstance(e, FileNotFoundError) else f"{path}: {e}",
            allowed=f"a JSON or YAML file, or one of {', '.join(RECIPES)}",
        ) from e
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
    """InputError for a strategy, objective or target that does not exist,
    with the list of those that do."""
    if "strategy" in values and values["strategy"] not in registry.names("strategies"):
        raise InputError("no such strategy", got=values["strategy"], allowed=", ".join(registry.names("strategies")))
    odd = [name for name in values.get("minimize", ()) if name not in OBJECTIVES]
    if odd or values.get("minimize") == ():
        raise InputError(
            "no such objective", got=", ".join(odd) or "nothing to minimize", allowed=", ".join(OBJECTIVES)
        )
    for part in str(values.get("target", "auto")).split(","):
        if part.strip() != "auto":
            Target.parse(part)
    for name in ("threads", "batch", "workers"):
        if name in values and values[name] is not None and values[name] < 1:
            raise InputError(f"--{name} has to be at least 1", got=values[name])


def larger(out: Path, options: Mapping[str, Any]) -> Budget | None:
    """The study's budget with what the options say in its place; None if they say nothing."""
    from ..study.reading import read_config

    given = _among(options, _BUDGET)
    return _budget(read_config(out).budget, given) if given else None


# settings whose option is another text than the setting's own
_READ: dict[str, Callable[[Any], Any]] = {
    "minimize": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
    "guesses": guesses,
}
