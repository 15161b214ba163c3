"""A user's network, FILE.py:NAME, and how it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import TaskError
from ...recipe import Recipe
from ..files import load_file, user_code

if TYPE_CHECKING:
    from torch import nn

EPOCHS = 10


def training(epochs: int) -> Recipe:
    settings = {
        "epochs": epochs,
        "lr": 2e-3,
        "batch_size": 64,
        "optimizer": "adamw",
        "schedule": "cosine",
        "weight_decay": 0.01,
    }
    return Recipe.from_json([{"train": settings}])


def net_of(file: Path, name: str, classes: int, features: Callable[[], int] | None = None) -> Callable[[], nn.Module]:
    """A function without arguments that makes the network: NAME of the file is called with what it
    takes of num_classes and features, or with the number of classes as its only argument."""
    module = load_file(file)
    with user_code(f"{file.name} cannot be asked for {name!r}", file):
        make = getattr(module, name, None)
    if not callable(make):
        functions = sorted(
            k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        )
        raise TaskError(
            f"{file.name} has no function {name!r}",
            got=f"{file}:{name}",
            allowed=f"its functions and classes: {', '.join(functions) or 'none'}",
        )
    known: dict[str, Callable[[], int]] = {"num_classes": lambda: classes}
    if features is not None:
        known["features"] = features
    given = inspect.signature(make).parameters
    needed = [k for k, p in given.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    said = {k: v for k, v in known.items() if k in given}
    other = [k for k in needed if k not in said]
    if other and (len(needed) > 1 or given[other[0]].kind == inspect.Parameter.KEYWORD_ONLY):
        raise TaskError(
            f"{name} in {file.name} has the wrong arguments",
            got=f"{name}({', '.join(needed)})",
            allowed=f"{name}() or {name}({', '.join(known)})",
        )

    def build() -> nn.Module:
        return make(classes) if other else make(**{k: v() for k, v in said.items()})  # type: ignore[no-any-return]

    return build
