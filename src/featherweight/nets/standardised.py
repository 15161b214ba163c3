"""Standardised: a net whose inputs and outputs are in units of their own, and which computes with
standardised numbers inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..space import Choice, Float, Int, param
from ._inside import fitted
from .base import Cost, Net
from .mlp import Mlp

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Standardised(Net):
    """float32 [n, *shape] -> each channel standardised, if there are means -> what `net` gives, in
    units of `scale`."""

    net: Any = param(Mlp(features=4), doc="what reads them: Mlp(..), SeriesNet(..), ConvNet(..)")
    shape: tuple[int, ...] = param((4,), legal=Int(1, 10_000_000), doc="of a sample")
    mean: tuple[float, ...] = param((), doc="of each channel; none: inputs stay as they are")
    deviation: tuple[float, ...] = param((), doc="its standard deviation; 0: the channel says nothing")
    axis: int = param(0, legal=Int(0, 8), doc="of channels in a sample")
    scale: float = param(1.0, legal=Float(1e-300, 1e300), doc="that outputs are multiplied by")
    shift: float = param(0.0, doc="that is added to outputs")
    power: int = param(0, legal=Choice(0, 1, 2), doc="of the scale in the loss; 0: outputs stay as they are")

    def check(self) -> None:
        fits = self.axis < len(self.shape) and len(self.mean) in (0, self.shape[self.axis])
        if not fits or len(self.mean) != len(self.deviation):
            raise InputError(
                "the channels do not go together",
                got=f"{len(self.mean)} means, {len(self.deviation)} deviations, axis {self.axis} of {self.shape}",
            )
        fitted(self.kind, self.net, 1).check()

    @property
    def features(self) -> tuple[int, ...]:
        """The shape that the net is given."""
        return self.shape

    def module(self) -> nn.Module:
        from torch import nn

        from ..task.fronts.around import Around
        from ..task.fronts.columns import Units
        from ..task.fronts.standardise import Channels

        dims = len(self.shape)
        front = Channels(self.mean, self.deviation, self.axis, dims) if self.mean else nn.Identity()
        return Around(front, self.net.module(), Units(self.scale, self.shift, self.power) if self.power else None)

    def cost(self, shape: Sequence[int]) -> Cost:
        self.require(tuple(shape) == self.shape, shape, f"{list(self.shape)}")
        found: Cost = self.net.cost(shape)
        return found
