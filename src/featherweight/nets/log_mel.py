"""LogMel: a net on the log-mel features of waveforms, which are computed inside the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..space import Choice, Int, param
from ..task.fronts.spectrum import Spectrum
from ._inside import fitted, more
from .base import Cost, Net
from .conv_net import ConvNet

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LogMel(Net):
    """Waveforms [n, samples] -> log-mel features [n, 1, mels, frames] (or, without planes,
    [n, mels, frames]) -> what `net` gives. Nothing is learned of the features."""

    net: Any = param(ConvNet(in_channels=1), doc="what reads the features: ConvNet(..), Mlp(..)")
    rate: int = param(16_000, legal=Int(1_000, 768_000), doc="samples a second")
    samples: int = param(16_000, legal=Int(1, 100_000_000), doc="samples of a waveform")
    mels: int = param(40, search=Choice(20, 30, 40), legal=Int(1, 1_000), doc="bands of the spectrum")
    block: int = param(80, legal=Int(1, 1_000_000), doc="samples of half a hop from frame to frame")
    blocks: int = param(5, legal=Int(1, 1_000), doc="half hops in a frame")
    planes: bool = param(True, doc="with an axis of one channel, as images have it")
    centred: bool = param(True, doc="less the mean of all bands and frames")

    @property
    def _spectrum(self) -> Spectrum:
        return Spectrum(self.rate, self.samples, self.mels, self.block, self.blocks)

    @property
    def features(self) -> tuple[int, ...]:
        """The shape of one sample's features."""
        s = self._spectrum
        return (1, s.mels, s.frames) if self.planes else (s.mels, s.frames)

    def check(self) -> None:
        self._spectrum.check()
        self._inside.check()

    @property
    def _inside(self) -> Net:
        return fitted(self.kind, self.net, math.prod(self.features))

    def module(self) -> nn.Module:
        from ..task.fronts import log_mel
        from ..task.fronts.around import Around

        return Around(log_mel.LogMel(self._spectrum, self.planes, self.centred), self._inside.module())

    def cost(self, shape: Sequence[int]) -> Cost:
        self.require(tuple(shape) == (self.samples,), shape, f"samples = {self.samples} numbers")
        return more(self._inside.cost(self.features), macs=self._spectrum.macs)
