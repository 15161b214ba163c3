"""Integer grids: which values a quantized weight may take. Pure functions of tensors.

Notation: w weight [O, I, *k]; its flat form [O, n] with n = I * k; b bits; q integer codes;
s scale, z zero point, so w' = (q - z) s. Granularity `tensor`: s [1]; `channel`: s [O]; `group`:
s [O, ceil(n / g)], one for each run of g consecutive weights of a row. Asymmetric codes are
0 .. 2^b - 1, symmetric ones -2^(b-1) .. 2^(b-1) - 1 with z = 0 (Nagel et al. 2021,
arXiv:2106.08295, section 2.2). The smallest grid that holds a weight has s = max(max w / high,
min w / low). That is never larger than max|w| / high, which leaves the lowest code unused, and
up to an eighth smaller at 4 bits; s = max|w| / ((2^b - 1) / 2), which moves the largest weights by
half a step instead (compressed-tensors, `calculate_qparams`), costs more in groups of 32 and at 3
bits, and less at 4 bits in groups of 64 and more (decision 20).

Mirrored symmetric codes are -(2^(b-1) - 1) .. 2^(b-1) - 1, one less. Integer products need them:
kernels add two products of 8 bits in 16, which (-128)(-128) twice overflows (TensorFlow Lite's
quantization specification: int8 weights are in [-127, 127]; ONNX Runtime's and OpenVINO's
quantizers keep to it), and a batch norm with a negative factor turns the sign of a row's codes.
At 8 bits the lost code costs 0.4 % of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-30  # scales are at least this: a row of zeros has the grid {0}


@dataclass(frozen=True)
class Grid:
    """bits: of a code; granularity: `tensor`, `channel` or `group`; group: weights that share a
    scale, if by group; symmetric: no zero point; mirrored: of symmetric codes, the lowest is not
    used, as integer products need it."""

    bits: int = 8
    granularity: str = "channel"
    group: int = 0
    symmetric: bool = True
    mirrored: bool = False

    @property
    def low(self) -> int:
        return int(self.mirrored - 2 ** (self.bits - 1)) if self.symmetric else 0

    @property
    def high(self) -> int:
        return int(2 ** (self.bits - 1) - 1) if self.symmetric else int(2**self.bits - 1)


def blocks(w: Tensor, grid: Grid) -> Tensor:
    """The weight as rows that share a scale: [1, 1, O n], [O, 1, n] or [O, ceil(n / g), g]. A short
    last group is filled with zeros."""
    flat = w.flatten(1) if w.ndim > 1 else w.reshape(1, -1)
    if grid.granularity == "tensor":
        return flat.reshape(1, 1, -1)
    if grid.granularity == "channel":
        return flat.unsqueeze(1)
    short = -flat.shape[1] % grid.group
    padded = torch.nn.functional.pad(flat, (0, short))
    return padded.reshape(flat.shape[0], -1, grid.group)


def unblock(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `blocks`: shaped as `like`."""
    width = like[0].numel() if like.ndim > 1 else like.numel()
    return (
        rows.reshape(like.shape[0], -1)[:, :width].reshape(like.shape)
        if rows.shape[0] == like.shape[0]
        else rows.reshape(like.shape)
    )


def fit(w: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(s, z) of the smallest grid that holds the weight: min-max, in the shapes of the notation;
    z is float and whole."""
    rows = blocks(w.detach().float(), grid)
    if grid.symmetric:
        s = torch.maximum(rows.amax(-1) / grid.high, rows.amin(-1) / grid.low).clamp(min=SMALLEST)
        z = torch.zeros_like(s)
    else:
        # zero is always on the grid
        low, high = rows.amin(-1).clamp(max=0), rows.amax(-1).clamp(min=0)
        s = ((high - low) / grid.high).clamp(min=SMALLEST)
        z = (-low / s).round().clamp(0, grid.high)
    return _shaped(s, grid), _shaped(z, grid)


def codes(w: Tensor, s: Tensor, z: Tensor, grid: Grid) -> Tensor:
    """q, shaped as the weight: round to nearest, ties to even."""
    rows = blocks(w.detach().float(), grid)
    q = (rows / _column(s, grid) + _column(z, grid)).round().clamp(grid.low, grid.high)
    return unblock(q, w)


def values(q: Tensor, s: Tensor, z: Tensor, grid: Grid) -> Tensor:
    """(q - z) s, shaped as the codes; float32."""
    return unblock((blocks(q.float(), grid) - _column(z, grid)) * _column(s, grid), q)


def nearest(w: Tensor, s: Tensor, z: Tensor, grid: Grid) -> Tensor:
    """The weight on its grid."""
    return values(codes(w, s, z, grid), s, z, grid)


def _shaped(s: Tensor, grid: Grid) -> Tensor:  # s [rows, groups]
    return s if grid.granularity == "group" else s.reshape(-1)


def _column(s: Tensor, grid: Grid) -> Tensor:
    """A scale as [rows, groups, 1], to multiply what `blocks` gives."""
    return s.reshape(*((s.shape[0], -1) if grid.granularity == "group" else (-1, 1)), 1)
