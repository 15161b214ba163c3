"""Modules whose forward is not called with inputs by position, or gives more than one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Adapter(nn.Module):
    """A module that takes its inputs by position, and gives one tensor of what `model` gives.

    names: of the inputs, if `model` takes them by name (None: by position); output: a key or a
    place in what it gives (None: it gives one tensor)."""

    def __init__(self, model: nn.Module, names: tuple[str, ...] | None, output: str | int | None) -> None:
        super().__init__()
        self.model, self._names, self._output = model, names, output

    def forward(self, *inputs: Tensor) -> Tensor:
        if self._names is None:
            out = self.model(*inputs)
        else:
            out = self.model(**dict(zip(self._names, inputs, strict=True)))
        return picked(out, self._output)


def wrapped(module: nn.Module) -> nn.Module:
    """The module as `task_of` wraps those that it has to, for their weights' names."""
    return Adapter(module, None, None)


def picked(out: Any, output: str | int | None) -> Tensor:
    """One tensor of what a model gave."""
    if output is None:
        found: Tensor = out
    elif isinstance(output, str) and not isinstance(out, Mapping):
        found = getattr(out, output)
    else:
        found = out[output]
    return found


def outputs_of(out: Any) -> dict[str | int, Tensor]:
    """The tensors that a model gave, by key or place; {} if it gave one tensor by itself."""
    if isinstance(out, Tensor):
        return {}
    if isinstance(out, Mapping):
        pairs: list[tuple[Any, Any]] = list(out.items())
    elif isinstance(out, (tuple, list)) and not hasattr(out, "_fields"):
        pairs = list(enumerate(out))
    elif hasattr(out, "_fields"):
        pairs = [(name, getattr(out, name)) for name in out._fields]
    elif hasattr(out, "__dict__"):
        pairs = list(vars(out).items())
    else:
        pairs = []
    return {k: v for k, v in pairs if isinstance(v, Tensor)}
