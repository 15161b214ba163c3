"""What an error calls an option in Python, as it is written on the command line."""

from __future__ import annotations

import inspect
import re
from typing import TypeVar

from ..errors import FeatherweightError, Whole

# options of a kind of task that have a flag of their own
FLAGS = ("model", "data", "text_column", "label_column", "max_length")
E = TypeVar("E", bound=FeatherweightError)


def in_flags(error: E, kind: str) -> E:
    """The error with the options of a kind of task as flags, in place: `size=64` as
    `--task-option size=64`, `label_column` as --label-column."""
    from ..task.kinds import kind as found
    from ..task.kinds import kinds

    if kind.replace("_", "-") not in kinds():
        return error
    names = list(inspect.signature(found(kind)).parameters)
    for part in ("what", "got", "allowed", "fix"):
        said = getattr(error, part)
        if isinstance(said, str):
            kept = type(said) if isinstance(said, Whole) else str
            setattr(error, part, kept(_translated(said, names)))
    return error


def _translated(text: str, names: list[str]) -> str:
    """A name counts where it is given a value (`size=64`), or could be no word (`label_column`)."""
    given = re.compile(rf"(?<![\w.(-])(?<!task-option )({'|'.join(map(re.escape, names))})(=(?=\S))")
    text = given.sub(lambda m: f"{_flag(m[1])} " if m[1] in FLAGS else f"--task-option {m[1]}=", text)
    longer = [name for name in names if "_" in name]
    if not longer:
        return text
    alone = re.compile(rf"(?<![\w.(-])(?<!task-option )({'|'.join(map(re.escape, longer))})(?![\w=])")
    return alone.sub(lambda m: _flag(m[1]) if m[1] in FLAGS else f"--task-option {m[1]}=..", text)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
