"""What a model takes, what samples are, and how a batch in any form is told apart into inputs and
targets."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import TaskError
from ._arrays import batched

TARGETS = ("labels", "label", "target", "targets", "y", "class")  # by what names people call them


@dataclass(frozen=True)
class Wanted:
    """What the model's forward takes: names in order; required: how many of them it cannot do
    without; any: it takes any name. Of what is not known (a file, a builder): no names."""

    names: tuple[str, ...] = ()
    required: int = 1
    any: bool = False

    @classmethod
    def of(cls, forward: Callable[..., Any]) -> Wanted:
        """Of a module's forward."""
        try:
            known = list(inspect.signature(forward).parameters.values())
        except (TypeError, ValueError):
            return cls()
        named = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needed = sum(p.default is p.empty for p in named)
        return cls(tuple(p.name for p in named), max(1, needed), any(p.kind is p.VAR_KEYWORD for p in known))


class Samples(ABC):
    """Abstract: rows with inputs by name, and targets as they were given (None: there are none).
    classes: names of the targets 0, 1, ..., where the data say them; notes: what is to be said."""

    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def read(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Inputs by name [len(index), ...], and targets [len(index), ...]."""

    def targets(self) -> np.ndarray | None:
        """The targets of all rows."""
        rows = np.arange(len(self))
        parts = [self.read(rows[i : i + 256])[1] for i in range(0, len(rows), 256)]
        return None if not parts or parts[0] is None else np.concatenate([p for p in parts if p is not None])


def decoded(batch: Any, wanted: Wanted, label: str | None, n: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """(inputs by name, targets) of a batch as Datasets give it: a tensor, (inputs, targets),
    (input, input, .., targets) or a dictionary. Inputs without a name are named by their place."""
    inputs, targets = _told_apart(batch, wanted, label)
    out = {str(k): batched(v, f"the input {k!r}", n) for k, v in inputs.items()}
    return out, None if targets is None else batched(targets, "the targets", n, numbers=False)


def _told_apart(batch: Any, wanted: Wanted, label: str | None) -> tuple[dict[Any, Any], Any]:
    if isinstance(batch, Mapping):
        key = label_of(batch, label)
        rest = {k: v for k, v in batch.items() if k != key}
        if wanted.names and not wanted.any and any(k in wanted.names for k in rest):
            rest = {k: v for k, v in rest.items() if k in wanted.names}
        return rest, None if key is None else batch[key]
    if not isinstance(batch, (tuple, list)):
        return {"": batch}, None
    if len(batch) == 1:
        return _told_apart(batch[0], wanted, label)
    *first, last = batch
    if len(batch) == 2 and isinstance(batch[0], (tuple, list, Mapping)):
        return (dict(batch[0]) if isinstance(batch[0], Mapping) else dict(enumerate(batch[0]))), last
    if len(batch) == wanted.required and len(batch) > 1 and label is None:
        first, last = list(batch), None  # as many inputs as the model needs: nothing is left over
    return dict(enumerate(first)) if len(first) > 1 else {"": first[0]}, last


def label_of(batch: Mapping[Any, Any], label: str | None) -> Any:
    """The key of the targets. TaskError if the one that was named is not there."""
    if label is not None and label not in batch:
        raise TaskError("the data have no such targets", got=label, allowed=", ".join(map(str, batch)))
    return label if label is not None else next((k for k in TARGETS if k in batch), None)
