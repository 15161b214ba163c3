"""The command line that makes a study again."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..limits import Constraint
from .config import Config

# options of a kind of task; the rest go through --task-option
_OWN = ("model", "data", "text_column", "label_column", "max_length")
_FLAGS = {"drop": "max-drop", "metric": "min-metric"}
_UNITS = {"latency": "ms", "size": "B", "memory": "B"}


def command(config: Config, out: str | Path | None = None) -> str:
    """The command line that makes this study again, in the folder `out`."""
    if config.task is None:
        return "# The task was made in a program: call featherweight.optimize(...) there with the same arguments."
    asked, line = config.asked(), ["featherweight", config.mode, *_task_words(config.task)]
    for f in asked.fields(config.mode):
        value, option = getattr(asked, f.name), f.metadata["option"]
        if f.name == "constraints":
            line += [w for c in value for w in (f"--{_FLAGS.get(c.quantity, 'max-' + c.quantity)}", _bound(c))]
        elif f.name == "budget":
            spent = dataclasses.asdict(value)
            line += [
                w
                for name, v in spent.items()
                if v is not None
                for w in (_flag(name), f"{v:.15g}" if isinstance(v, float) else str(v))
            ]
        elif option is not None and value is not None:
            switch = option.kind is bool  # its words are flags themselves
            line += [
                w for text in option.write(value) for w in ([text] if switch else [option.flag or _flag(f.name), text])
            ]
    return shlex.join([*line, *(["--out", str(out)] if out else [])])


def goes_on(config: Config | None, out: str | Path) -> str:
    """What goes on with the study in the folder `out`."""
    if config is not None and config.task is None:
        return f"call fw.{config.mode} again with the same arguments"
    return f"featherweight resume {shlex.quote(str(out))}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _task_words(ref: Any) -> Sequence[str]:
    if not isinstance(ref, dict):
        return [str(ref)]
    if "file" in ref:
        return [f"{ref['file']}:{ref['name']}" if ref.get("name", "task") != "task" else str(ref["file"])]
    words = ["--task", str(ref.get("kind"))]
    for name, value in (ref.get("options") or {}).items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            words += [_flag(name), str(value)] if name in _OWN else ["--task-option", f"{name}={text}"]
    return words


def _bound(c: Constraint) -> str:
    if c.quantity == "drop" and c.relative:
        return f"{100 * c.bound:.15g}%"
    return f"{c.bound:.15g}x" if c.relative else f"{c.bound:.15g}{_UNITS.get(c.quantity, '')}"
