"""The columns of a table as features, and a net's outputs as numbers in their own units.

Notation: n rows, C columns of numbers, the first M of which may have no value, K of categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

FAR = 10.0  # standard deviations from the mean at which a number is cut off


class Standardise(nn.Module):
    """[n, C + M] -> [n, C + M]: numbers less the mean, divided by the standard deviation, at most
    `FAR`; where the last M say that there is no value, the mean; then these M.

    Columns may lie in other orders of magnitude, so `stays_float`.
    """

    stays_float: ClassVar[bool] = True
    mean: Tensor
    inverse: Tensor

    def __init__(self, mean: Sequence[float], scale: Sequence[float], missing: int) -> None:
        super().__init__()
        self.columns, self.missing = len(mean), missing
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("inverse", torch.tensor([1 / s if s else 0.0 for s in scale], dtype=torch.float32))

    def forward(self, numbers: Tensor) -> Tensor:
        # a runtime would rename the input after a slice that is all of it
        known = numbers[:, : self.columns] if self.missing else numbers
        z = ((known - self.mean) * self.inverse).clamp(-FAR, FAR)
        if not self.missing:
            return z
        flags = numbers[:, self.columns :]
        return torch.cat([z[:, : self.missing] * (1 - flags), z[:, self.missing :], flags], dim=1)


class Columns(nn.Module):
    """numbers float32 [n, C + M], if there are some, and categories int64 [n, K], if there are some
    -> [n, features]: the standardised numbers, then a learned vector for each category. What is no
    number of a category is category 0.

    sizes: (values and 1 for all others, width of the vector) of each column of categories.
    """

    values: Tensor

    def __init__(
        self, mean: Sequence[float], scale: Sequence[float], missing: int, sizes: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__()
        self.numbers = Standardise(mean, scale, missing) if len(mean) else None
        self.tables = nn.ModuleList(nn.Embedding(values, width) for values, width in sizes)
        ends = torch.tensor([values for values, _ in sizes], dtype=torch.int64)
        self.register_buffer("values", ends, persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        found = [] if self.numbers is None else [self.numbers(inputs[0])]
        if len(self.tables):
            codes = inputs[-1]
            known = torch.where((codes >= 0) & (codes < self.values), codes, 0)
            found += [table(known[:, i]) for i, table in enumerate(self.tables)]
        return torch.cat(found, dim=1) if len(found) > 1 else found[0]


class Units(nn.Module):
    """[n, 1] -> the numbers times a fixed scale, plus a fixed shift.

    Losses are in the numbers' units, and their gradients in training as of standardised numbers:
    else those of prices in thousands would be cut off, and those of small numbers vanish. power: of
    the scale that a loss has (2: squared errors, 1: absolute ones).
    """

    stays_float: ClassVar[bool] = True
    scale: Tensor
    shift: Tensor

    def __init__(self, scale: float, shift: float, power: int = 2) -> None:
        super().__init__()
        self.power, self._size = power, scale
        self.register_buffer("scale", torch.tensor([scale], dtype=torch.float32))
        self.register_buffer("shift", torch.tensor([shift], dtype=torch.float32))

    def forward(self, y: Tensor) -> Tensor:
        out = y * self.scale + self.shift
        if self.training and out.requires_grad:
            factor = self._size**-self.power
            out.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
        return out
