"""Finds methods by file name: `transforms/prune/__init__.py` holds the transform of kind `prune`. There is no other list.

A plug-in package adds its own with an entry point of group `featherweight.transforms`, `featherweight.strategies`,
`featherweight.targets`, `featherweight.nets` or `featherweight.stoppers`, whose value is `module:Class`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from typing import Any

from .errors import InputError

GROUPS = ("transforms", "strategies", "stoppers", "targets", "nets")
_SHARED = {"base", "shared"}  # what holds what the siblings share, no method


def class_name(kind: str) -> str:
    """`drop_blocks` -> `DropBlocks`."""
    return "".join(part.capitalize() for part in kind.split("_"))


@cache
def names(group: str) -> tuple[str, ...]:
    """The kinds of a group, sorted."""
    package = importlib.import_module(f"featherweight.{group}")
    own = {m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in _SHARED and not m.name.startswith("_")}
    own |= {e.name for e in importlib.metadata.entry_points(group=f"featherweight.{group}")}
    return tuple(sorted(own))


@cache
def find(group: str, kind: str) -> Any:
    """The class of a kind; InputError with the near names if there is none."""
    if kind not in names(group):
        raise InputError(f"nothing in {group} is called {kind!r}", got=kind, allowed=", ".join(names(group)))
    for entry in importlib.metadata.entry_points(group=f"featherweight.{group}"):
        if entry.name == kind:
            return entry.load()
    return getattr(importlib.import_module(f"featherweight.{group}.{kind}"), class_name(kind))
