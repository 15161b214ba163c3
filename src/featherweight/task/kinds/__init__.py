"""Built-in task kinds, which need no code: one file each, found by its name.
There is no other list."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import TaskError
from ...plain import check_unicode
from ..task import Task


def kinds() -> tuple[str, ...]:
    """The names of the built-in kinds, as the command line writes them: `text-classification`."""
    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def kind(name: str) -> Callable[..., Task]:
    """The function that makes tasks of a kind; its keyword arguments are the kind's options."""
    if name.replace("_", "-") not in kinds():
        raise TaskError(
            "there is no such kind of task",
            got=name,
            allowed=", ".join(kinds()),
            fix="give a task file, FILE.py:NAME, instead",
        )
    file = name.replace("-", "_")
    make: Callable[..., Task] = getattr(importlib.import_module(f"{__name__}.{file}"), file)
    return make


def make_task(name: str, /, **options: Any) -> Task:
    """A task of kind `name` with these options; its `ref` makes the same task in
    another process."""
    make = kind(name)
    known = inspect.signature(make).parameters
    unknown = sorted(set(options) - set(known))
    missing = [k for k, p in known.items() if p.default is p.empty and k not in options]
    if unknown or missing:
        said = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [f"missing: {', '.join(missing)}"] * bool(missing)
        raise TaskError(f"the options of {name} do not fit", got="; ".join(said), allowed=", ".join(known))
    check_unicode("a path of the task", *(v for v in options.values() if isinstance(v, (str, Path))))
    return make(**options)
