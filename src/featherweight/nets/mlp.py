"""Mlp: a classifier or regressor of features, in layers that are all connected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..space import Choice, Float, Int, param
from ._tally import Tally
from .base import ACTIVATIONS, Cost, Net, activation

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Mlp(Net):
    """[n, ...] of `features` numbers a sample (flattened) -> [n, classes]. Each hidden layer:
    linear, norm, activation, dropout."""

    features: int = param(64, legal=Int(1, 10_000_000), doc="numbers a sample")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    hidden: tuple[int, ...] = param(
        (64, 64), search=Int(8, 512, log=True), legal=Int(1, 1_000_000), doc="width of each hidden layer"
    )
    activation: str = param(
        "relu", search=Choice("relu", "gelu", "silu"), legal=Choice(*ACTIVATIONS), doc="after each hidden layer"
    )
    norm: str = param(
        "none",
        search=Choice("none", "batch", "layer"),
        legal=Choice("none", "batch", "layer"),
        doc="normalisation in each hidden layer",
    )
    dropout: float = param(
        0.0, search=Float(0.0, 0.5), legal=Float(0.0, 0.99), doc="share of hidden values dropped in training"
    )

    def module(self) -> nn.Module:
        from torch import nn

        from ._modules import Rows

        layers: list[nn.Module] = [Rows()]
        i = self.features
        for o in self.hidden:
            norm = [nn.BatchNorm1d(o)] if self.norm == "batch" else [nn.LayerNorm(o)] if self.norm == "layer" else []
            layers += [
                nn.Linear(i, o),
                *norm,
                activation(self.activation),
                *([nn.Dropout(self.dropout)] if self.dropout else []),
            ]
            i = o
        return nn.Sequential(*layers, nn.Linear(i, self.classes))

    def cost(self, shape: Sequence[int]) -> Cost:
        self.require(
            len(shape) > 0 and math.prod(shape) == self.features,
            shape,
            f"features = {self.features} numbers, in any shape",
        )
        tally = Tally()
        for i, o in zip((self.features, *self.hidden), (*self.hidden, self.classes), strict=True):
            tally.linear(i, o)
        for o in self.hidden if self.norm != "none" else ():
            tally.norm(o)
        layers = len(self.hidden) + 1
        return Cost(tally.params, tally.macs, layers, layers, tally.widest, 0.0)
