"""RecurrentNet: an LSTM or GRU over series, with one linear layer after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..space import Choice, Float, Int, param
from ._tally import Tally
from .base import Cost, Net

if TYPE_CHECKING:
    from torch import nn

_GATES = {"lstm": 4, "gru": 3}


@dataclass(frozen=True)
class RecurrentNet(Net):
    """[n, in_channels, T] (time_first: [n, T, in_channels]) -> [n, classes]: recurrent layers of
    `hidden` units, the last moment or the mean over time, one linear layer. Any T.

    Sources: Hochreiter & Schmidhuber 1997; Cho et al. 2014 (arXiv:1406.1078).
    """

    in_channels: int = param(1, legal=Int(1, 65536), doc="numbers at each moment")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    time_first: bool = param(False, doc="does time come before the channels in a sample?")
    cell: str = param("lstm", search=Choice("lstm", "gru"), legal=Choice("lstm", "gru"), doc="recurrent layer")
    hidden: int = param(64, search=Int(8, 128, step=8), legal=Int(1, 65536), doc="units of each layer, each way")
    layers: int = param(1, search=Int(1, 2), legal=Int(1, 64), doc="recurrent layers, one after another")
    both_ways: bool = param(False, search=Choice(False, True), doc="from the end to the beginning, too")
    pool: str = param(
        "last", search=Choice("last", "mean"), legal=Choice("last", "mean"), doc="what is read: the end, or the mean"
    )
    dropout: float = param(
        0.0, search=Float(0.0, 0.3), legal=Float(0.0, 0.99), doc="share of values dropped in training, before the end"
    )

    def module(self) -> nn.Module:
        from ._modules import Recurrent

        return Recurrent(
            self.cell,
            self.in_channels,
            self.hidden,
            self.layers,
            self.both_ways,
            self.time_first,
            self.pool,
            self.dropout,
            self.classes,
        )

    def cost(self, shape: Sequence[int]) -> Cost:
        channels = 1 if self.time_first else 0
        self.require(
            len(shape) == 2 and shape[channels] == self.in_channels,
            shape,
            f"{'(T, C)' if self.time_first else '(C, T)'} with C = in_channels = {self.in_channels}",
        )
        tally, moments, ways, i = Tally(), shape[1 - channels], 2 if self.both_ways else 1, self.in_channels
        for _ in range(self.layers):
            tally.recurrent(i, self.hidden, _GATES[self.cell], moments, ways)
            i = ways * self.hidden
        tally.linear(i, self.classes)
        return Cost(tally.params, tally.macs, self.layers + 1, 1 + self.layers, tally.widest, 0.0)
