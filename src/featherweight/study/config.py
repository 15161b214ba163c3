"""What a study can be told, in one list, and what it was told, decided.

From `Settings` come the arguments of `optimize` and `search`, the options of the two commands, the
command in the report and the settings of a study that is resumed; from `Config` the study's log,
run.yaml and what makes it the same study.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..limits import Budget, Constraint
from ..recipe import Recipe
from ..targets.base import Target
from ..warm.guess import Guess
from . import words
from .shorthand import full, recipe_of

MODES = ("optimize", "search")


@dataclass(frozen=True)
class Option:
    """How a setting is written on the command line.

    help: of both commands, or of `optimize` where `search` has another one;
    {names of a registry's group} are filled in. kind: of one value; several: may be given more than
    once; flag: without it, the field's name; write: a value as the words that give it again, none
    where it goes without saying.
    """

    help: str
    kind: type = str
    flag: str = ""
    metavar: str | None = None
    several: bool = False
    search: str = ""
    write: Callable[[Any], list[str]] = words.plain


def setting(default: Any, doc: str, option: Option | None = None, modes: tuple[str, ...] = MODES) -> Any:
    """A field of `Settings`: what it means, how the command line says it (None: it cannot),
    and which calls take it."""
    return field(default=default, metadata={"doc": doc, "option": option, "modes": modes})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `optimize` and `search` are asked for. Every field has its meaning in its metadata
    (`Settings.describe`)."""

    mode: str = field(default="optimize", metadata={"modes": ()})
    # None: the task's own, or one that suits it
    recipe: Recipe | None = field(default=None, metadata={"modes": ()})
    compress: bool = setting(
        False,
        "the default recipe also prunes and quantizes",
        Option("The default space also prunes and quantizes.", bool, write=lambda _: []),
        ("search",),
    )
    constraints: tuple[Constraint, ...] = setting(
        (), "what must hold; `optimize` without a floor lets the metric drop by 0.01 (of errors: by 1 %)"
    )
    confidence: float = setting(
        0.5,
        "a candidate counts as within the floor if it will be certified on test with at least this chance",
        Option("The chance of being certified that a candidate needs \\[default: 0.5].", float),
    )
    polish: float = setting(
        1 / 3,
        "share of the budget that is kept to train the finalists longer (0: none)",
        Option("Share of the budget kept to train the finalists longer \\[default: a third].", float),
    )
    minimize: tuple[str, ...] | None = setting(
        None,
        (
            "objectives: latency, size, memory, params, macs, error. Default: latency and size; of a search the error, "
            "and without constraints also the latency"
        ),
        Option(
            "What to make small, separated by commas: {objectives} \\[default: latency,size].",
            search="Separated by commas: {objectives} \\[default: error, and without limits error,latency].",
            write=lambda names: [",".join(names)],
        ),
    )
    strategy: str = setting("adaptive", "what proposes candidates", Option("{strategies} \\[default: adaptive]."))
    stopper: str | dict[str, Any] | None = setting(
        None,
        (
            "what ends weak trials while they train: asha, hyperband, successive_halving, median; "
            "settings in brackets: asha(eta=2)"
        ),
        Option(
            "Ends weak trials while they train: {stoppers}; "
            "with settings: 'asha(eta=2)', or 'asha(min_budget=0.25)' to look after a quarter of the data.",
            write=words.stopper_text,
        ),
    )
    proxy: str | None = setting(
        None,
        "naswot:0.25 trains only nets that this score puts among the best quarter of random ones [default share: half]",
        Option("Trains only nets that score well untrained: {proxies}; 'naswot:0.25' keeps a quarter."),
        ("search",),
    )
    supernet: str | None = setting(
        None,
        (
            "darts, gumbel or oneshot: one net that holds all of the space is trained first, "
            "and its ranking is tried first"
        ),
        Option("{supernets}: train one net that holds them all first."),
        ("search",),
    )
    guesses: tuple[Guess, ...] = setting(
        (),
        "fillings, also of some holes only, to begin with",
        Option(
            "A filling to begin with, also of some holes only. May be repeated.",
            flag="--guess",
            metavar="JSON[@WEIGHT]",
            several=True,
            write=lambda guesses: [f"{json.dumps(dict(g.values))}@{g.weight:.15g}" for g in guesses],
        ),
    )
    earlier: tuple[str | Path, ...] = setting(
        (),
        "folders of studies of the same space to learn from",
        Option(
            "The folder of a study of the same space to learn from. May be repeated.",
            Path,
            several=True,
            write=lambda folders: list(map(str, folders)),
        ),
    )
    target: str = setting(
        "onnxruntime",
        (
            "what the model will run on: onnxruntime, openvino:bf16, several separated by commas (a hole), "
            "or auto (all that run here)"
        ),
        Option("onnxruntime, openvino:bf16, several separated by commas, or auto \\[default: onnxruntime]."),
    )
    threads: int = setting(
        1,
        "of one inference of the artifact",
        Option("Threads of one inference \\[default: 1].", int, write=words.not_one),
    )
    batch: int = setting(
        1,
        "samples in one inference of the artifact",
        Option("Samples in one inference \\[default: 1].", int, write=words.not_one),
    )
    budget: Budget = setting(None, "what the search may spend")
    seed: int = setting(
        0,
        "the same seed proposes the same candidates",
        Option("The same seed proposes the same candidates \\[default: 0].", int),
    )
    workers: int | None = setting(
        None,
        "trials at a time [default: one per two cores]",
        Option("Trials at a time \\[default: one per two cores].", int, write=lambda _: []),
    )
    reuse: bool = setting(
        True,
        "steps that were computed before come from the store",
        Option(
            "Take steps that were computed before from the cache \\[default: reuse].",
            bool,
            "--reuse/--no-reuse",
            write=lambda on: [] if on else ["--no-reuse"],
        ),
    )
    force: bool = setting(
        False,
        "search even if the original is no better than guessing",
        Option(
            "Search even if the original is no better than guessing.",
            bool,
            write=lambda on: ["--force"] if on else [],
        ),
    )
    device: str = setting("cpu", "where models are trained: cpu, or cuda")
    measure_seconds: float = setting(2.0, "of timing a candidate, at most")

    @classmethod
    def of(cls, mode: str, recipe: Any = None, **given: Any) -> Settings:
        """The settings of a call, which may be written for short (`shorthand`). InputError for one
        that the call does not have, with the near names, and for a value that the setting cannot
        have."""
        known = [f.name for f in cls.fields(mode)]
        for name in given:
            other = next((m for m in MODES if name in (f.name for f in cls.fields(m))), None)
            if name not in known and other:
                raise InputError(f"{mode} has no such setting", got=name, fix=f"it belongs to `{other}`")
        recipe = None if recipe is None else recipe_of(mode, recipe)
        given = full(mode, given, known)
        values = {f.name: _checked(f, given[f.name]) for f in cls.fields(mode) if f.name in given}
        return cls(mode=mode, recipe=recipe, **values)

    @classmethod
    def fields(cls, mode: str) -> list[dataclasses.Field[Any]]:
        """The settings that a call takes by name, in order."""
        return [f for f in dataclasses.fields(cls) if mode in f.metadata["modes"]]

    @classmethod
    def describe(cls, mode: str) -> str:
        """The settings of a call as lines for its docstring."""
        hanging: Any = {"width": 90, "initial_indent": "    ", "subsequent_indent": "        "}
        return "\n".join(textwrap.fill(f"{f.name}: {f.metadata['doc']}", **hanging) for f in cls.fields(mode))

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the call that gives these settings again."""
        return {"recipe": self.recipe, **{f.name: getattr(self, f.name) for f in self.fields(self.mode)}}


_PLAIN: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}
_PLAIN |= {"dict[str, Any]": dict, "None": type(None)}
_ITEMS: dict[str, tuple[type | tuple[type, ...], str]] = {  # of the settings that are lists
    "constraints": (Constraint, "[fw.max_drop(0.01), fw.max_latency('0.5x')]"),
    "minimize": (str, "['latency', 'size']"),
    "guesses": (Guess, "[fw.Guess({'train.lr': 0.01})]"),
    "earlier": ((str, Path), "['runs/before']"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value


def _is_plain(value: Any) -> bool:
    """Is it JSON data whose mappings have names?"""
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _is_reference(task: Any) -> bool:
    """Is it how a task is loaded again (`Task.ref`)?"""
    if not isinstance(task, dict) or not _is_plain(task):
        return False
    if "kind" in task:
        options = task.get("options", {})
        texts = [v for v in options.values() if isinstance(v, str)] if isinstance(options, dict) else [""]
        return isinstance(task["kind"], str) and all(map(_is_path, texts))
    return _is_path(task.get("file")) and isinstance(task.get("name", ""), str)


_LEAST = {"threads": 1, "batch": 1, "workers": 1}
_MOST = 4096  # workers, and threads


def _checked(f: dataclasses.Field[Any], value: Any) -> Any:
    """A setting's value, lists as tuples. InputError if it cannot be the setting's."""
    if f.name in _ITEMS:
        kind, example = _ITEMS[f.name]
        if value is None:
            return f.default
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, kind) for item in value):
            raise InputError(f"{f.name} is a list", got=repr(value)[:200], allowed=example)
        return tuple(value)
    kinds = [part.strip() for part in str(f.type).split("|")]
    if all(kind in _PLAIN for kind in kinds):
        fits = any(isinstance(value, _PLAIN[kind]) for kind in kinds)
        if not fits or (isinstance(value, bool) and "bool" not in kinds):
            raise InputError(f"{f.name} cannot be this", got=repr(value)[:200], allowed=str(f.type))
    if f.name in _LEAST and value is not None and value < _LEAST[f.name]:
        raise InputError(f"{f.name} has to be at least {_LEAST[f.name]}", got=value)
    if f.name in ("threads", "workers") and value is not None and value > _MOST:
        raise InputError(f"{f.name} can be at most {_MOST}", got=value)
    if f.name == "seed" and abs(value) >= 2**63:
        raise InputError("seed is a number of 64 bits", got=hex(value)[:40])
    if f.name == "polish" and not 0 <= value < 1:
        raise InputError("polish is a share of the budget", got=value, allowed="from 0, below 1, as 0.3")
    if f.name == "confidence" and not 0 < value < 1:
        raise InputError("confidence is a probability", got=value, allowed="above 0 and below 1, as 0.5 or 0.9")
    if f.name == "measure_seconds" and not 0 < value < float("inf"):
        raise InputError("measure_seconds has to be positive", got=value)
    return value


@dataclass(frozen=True)
class Targets:
    """What `target` means here: its text; choice: text or a hole (JSON), as the space has it;
    runtimes: of the candidates; reference: the baseline's; originals: where the original is
    measured, too."""

    text: str
    choice: Any
    runtimes: tuple[str, ...]
    reference: str
    originals: tuple[str, ...]


def decided(same: bool, default: Any = dataclasses.MISSING) -> Any:
    """A field of `Config`. same: a study whose field differs is another study; default: of studies
    that were made before it was."""
    return field(default=default, metadata={"same": same})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A study's settings, all defaults decided: what its log and run.yaml hold. Recipes, tasks and
    stoppers are JSON data in it."""

    mode: str = decided(True, "optimize")
    # the recipe of the fixed net that stands for the original, if the task has none
    baseline: Any = decided(True, None)
    extra_baselines: tuple[dict[str, Any], ...] = decided(False, ())
    # the recipe that the task trains its own model with; studies of before do not say it
    original: Any = decided(True, None)
    stopper: dict[str, Any] | None = decided(True, None)
    guesses: tuple[Guess, ...] = decided(True, ())
    earlier: tuple[str, ...] = decided(True, ())
    proxy: dict[str, Any] | None = decided(True, None)
    supernet: str | None = decided(True, None)
    confidence: float = decided(True, 0.5)
    polish: float = decided(True, 0.0)
    task: Any = decided(False)  # how a worker loads it; None: it was made in a program
    task_name: str = decided(True)
    fingerprint: str = decided(True)
    recipe: Any = decided(True)
    target: Targets = decided(True)
    constraints: tuple[Constraint, ...] = decided(True)
    minimize: tuple[str, ...] = decided(True)
    strategy: str = decided(True)
    budget: Budget = decided(False)
    seed: int = decided(True)
    device: str = decided(False, "cpu")
    workers: int = decided(False, 1)
    train_threads: int = decided(False, 1)
    reuse: bool = decided(False, True)
    measure_seconds: float = decided(False, 2.0)
    force: bool = decided(False, False)
    store: str = decided(False, "")
    # the Python files that the task and the recipe name, sealed by who began the study (`trust`)
    code: dict[str, Any] | None = decided(False, None)
    # the fields that a log or run.yaml did not say, as they were decided before there were any
    unsaid: tuple[str, ...] = field(default=(), compare=False, repr=False, metadata={"same": False})

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives back an equal config."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del out["unsaid"]
        out["guesses"] = [[dict(g.values), g.weight] for g in self.guesses]
        out |= {name: dataclasses.asdict(out[name]) for name in ("target", "budget")}
        out["constraints"] = [c.to_json() for c in self.constraints]
        plain: dict[str, Any] = json.loads(json.dumps(out))
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Config:
        """Of a study of any age. InputError if the data are no settings of a study."""
        known = {f.name for f in dataclasses.fields(cls)} - {"unsaid"}
        values = {k: v for k, v in data.items() if k in known}
        values["unsaid"] = tuple(sorted(known - set(values)))
        try:
            values["target"] = Targets(
                **{**data["target"], **{k: tuple(data["target"][k]) for k in ("runtimes", "originals")}}
            )
            values["constraints"] = tuple(Constraint(**c) for c in data["constraints"])
            values["guesses"] = tuple(Guess(guessed, weight) for guessed, weight in data.get("guesses") or ())
            values["budget"] = Budget(**data["budget"])
            for name in ("minimize", "earlier", "extra_baselines"):
                values[name] = tuple(data.get(name) or ())
            made = cls(**values)
            made.check()
            return made
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise InputError(
                "these are no settings of a study",
                got=f"{type(e).__name__}: {e}",
                allowed="a run.yaml that a run wrote",
            ) from e

    def check(self) -> None:
        """InputError for a field that cannot be a study's, as in a file that was edited."""
        texts = (self.task_name, self.fingerprint, self.strategy, self.device, self.store, self.target.text)
        kinds = {
            "mode": self.mode in MODES,
            "stopper": self.stopper is None or isinstance(self.stopper, dict) and "kind" in self.stopper,
            "proxy": self.proxy is None or isinstance(self.proxy, dict) and set(self.proxy) == {"kind", "keep"},
            "earlier": all(isinstance(folder, str) for folder in self.earlier),
            "minimize": bool(self.minimize) and all(isinstance(name, str) for name in self.minimize),
            "constraints": all(isinstance(c.quantity, str) and _is_number(c.bound) for c in self.constraints),
            "guesses": all(isinstance(g.values, dict) and _is_number(g.weight) for g in self.guesses),
            "target": all(isinstance(t, str) for t in (self.target.reference, *self.target.runtimes)),
            "seed": _is_whole(self.seed) and abs(self.seed) < 2**63,
            "workers": _is_whole(self.workers) and 0 < self.workers <= _MOST,
            "train_threads": _is_whole(self.train_threads) and 0 < self.train_threads <= _MOST,
            "task": self.task is None or _is_reference(self.task),
            "confidence": _is_number(self.confidence) and 0 < self.confidence < 1,
            "polish": _is_number(self.polish) and 0 <= self.polish < 1,
            "reuse": isinstance(self.reuse, bool),
            "force": isinstance(self.force, bool),
            "measure_seconds": _is_number(self.measure_seconds) and self.measure_seconds > 0,
            "code": self.code is None or isinstance(self.code, dict) and _is_plain(self.code),
            "supernet": self.supernet is None or isinstance(self.supernet, str),
            "task_name, fingerprint, strategy, device, store or target": all(isinstance(t, str) for t in texts),
        }
        wrong = [name for name, fits in kinds.items() if not fits]
        if wrong:
            got = "; ".join(f"{name}: {getattr(self, name, '')!r}"[:200] for name in wrong)
            raise InputError("these are no settings of a study", got=got, allowed="a run.yaml that a run wrote")

    def settings(self, budget: Budget | None = None) -> Settings:
        """What was asked for, so that the call gives this configuration again; budget:
        another one instead."""
        return dataclasses.replace(self.asked(), recipe=Recipe.from_json(self.recipe), budget=budget or self.budget)

    def asked(self) -> Settings:
        """What was asked for besides the recipe, which may be one of another version."""
        same = {
            name: getattr(self, name)
            for name in ("mode", "constraints", "minimize", "strategy", "stopper", "supernet", "guesses", "confidence")
        }
        same |= {
            name: getattr(self, name)
            for name in ("polish", "earlier", "seed", "workers", "reuse", "device", "measure_seconds", "force")
        }
        return Settings(
            **same,
            proxy=words.proxy_text(self.proxy) if self.proxy else None,
            target=self.target.text,
            threads=self._asked("threads"),
            batch=self._asked("batch"),
            budget=self.budget,
        )

    def _asked(self, name: str) -> int:
        """Threads or batch, as asked for: those of a target whose text does not say its own."""
        texts = self.target.text.split(",")
        for text, runtime in zip(texts, self.target.runtimes, strict=False):
            if text.strip() == "auto" or getattr(Target.parse(text), name) == 1:
                return int(getattr(Target.parse(runtime), name))
        return 1

    def differences(self, other: Config) -> list[str]:
        """The fields by which the other is another study. What one of an older version does not say
        is not compared."""
        mine, theirs = self.to_json(), other.to_json()
        told = [f.name for f in dataclasses.fields(self) if f.metadata["same"]]
        if None in (mine["original"], theirs["original"]):
            told.remove("original")
        return [name for name in told if mine[name] != theirs[name]]
