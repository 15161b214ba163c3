"""Columns: a net on a table's columns, which are standardised and embedded inside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..space import Choice, Float, Int, param
from ..task.fronts.widths import widths
from ._inside import fitted, more
from .base import Cost, Net
from .mlp import Mlp

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Columns(Net):
    """numbers float32 [n, C + M], categories int64 [n, K] (either may be left out) -> standardised
    numbers, a learned vector for each category -> what `net` gives, in units of `scale`."""

    net: Any = param(Mlp(), doc="what reads the features: Mlp(..), whose sizes of inputs and outputs are set")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    mean: tuple[float, ...] = param((), doc="of each column of numbers")
    deviation: tuple[float, ...] = param((), doc="its standard deviation; 0: the column says nothing")
    missing: int = param(0, legal=Int(0, 1_000_000), doc="of the first so many, a flag says that there is no value")
    values: tuple[int, ...] = param((4,), legal=Int(1, 100_000_000), doc="of each column of categories, 0 among them")
    widest: int = param(
        16, search=Choice(4, 8, 16, 32), legal=Int(1, 4096), doc="numbers of a category's vector, at most"
    )
    scale: float = param(1.0, legal=Float(1e-300, 1e300), doc="that outputs are multiplied by")
    shift: float = param(0.0, doc="that is added to outputs")
    power: int = param(2, legal=Choice(0, 1, 2), doc="of the scale in the loss; 0: outputs stay as they are")

    def check(self) -> None:
        if len(self.mean) != len(self.deviation) or not 0 <= self.missing <= len(self.mean):
            raise InputError(
                "the columns do not go together",
                got=f"{len(self.mean)} means, {len(self.deviation)} deviations, {self.missing} with missing values",
            )
        if not self.mean and not self.values:
            raise InputError("there are no columns", got="no numbers and no categories")
        self._inside.check()

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        return widths(self.values, self.widest)

    @property
    def features(self) -> int:
        """Numbers that the net is given of a row."""
        return len(self.mean) + self.missing + sum(width for _, width in self._sizes)

    @property
    def _inside(self) -> Net:
        return fitted(self.kind, self.net, self.features, self.classes)

    def module(self) -> nn.Module:
        from ..task.fronts import columns
        from ..task.fronts.around import Around

        front = columns.Columns(self.mean, self.deviation, self.missing, self._sizes)
        back = columns.Units(self.scale, self.shift, self.power) if self.power else None
        return Around(front, self._inside.module(), back)

    def cost(self, shape: Sequence[int]) -> Cost:
        first = len(self.mean) + self.missing or len(self.values)
        self.require(tuple(shape) == (first,), shape, f"{first} numbers, of the first input")
        return more(self._inside.cost((self.features,)), params=sum(v * w for v, w in self._sizes))
