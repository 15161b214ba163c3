"""Numbers of any shape, standardised channel by channel.

Notation: n samples, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


class Channels(nn.Module):
    """[n, ...] with C channels on `axis` (counted without n) -> the same, each channel less its
    mean, divided by its standard deviation (0: it says nothing, and is 0).

    Channels may lie in other orders of magnitude, so `stays_float`."""

    stays_float: ClassVar[bool] = True
    mean: Tensor
    inverse: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float], axis: int, dims: int) -> None:
        super().__init__()
        form = [-1 if i == axis else 1 for i in range(dims)]
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(form))
        inverse = [1 / d if d else 0.0 for d in deviation]
        self.register_buffer("inverse", torch.tensor(inverse, dtype=torch.float32).reshape(form))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.inverse
