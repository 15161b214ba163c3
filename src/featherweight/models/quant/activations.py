"""Grids of activations: what goes into each layer, seen on calibration samples,
and the 8-bit grid that is to hold it.

Notation: x a layer's input [B, ...]; lo, hi the ends of the clipping range; q codes from Q_lo to
Q_hi; s scale, z zero point: x' = (q - z) s, q = clip(round(x / s) + z, Q_lo, Q_hi)
(Nagel et al. 2021, arXiv:2106.08295, eq. 4-6). `u8`: 0..255, any z; `s8`: -127..127, z = 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError
from ..hooks import watched
from .grid import SMALLEST

CODES = {"u8": (0, 255), "s8": (-127, 127)}
CALIBRATIONS = ("minmax", "percentile", "mse")
PERCENTILE = 99.999  # of the values inside the range; ONNX Runtime's default
BINS = 2048  # of the histogram that the choices other than min-max look at
SHRINKINGS = 100  # clipping ranges that the mse choice compares


@dataclass(frozen=True)
class InputGrid:
    """The grid of one layer's input: scale, zero point, and the lowest and the highest code."""

    scale: float
    zero: int
    low: int
    high: int

    def nearest(self, x: Tensor) -> Tensor:
        """x on the grid, shaped as x: (clip(round(x / s) + z) - z) s, ties to even, as ONNX
        QuantizeLinear and DequantizeLinear."""
        return (((x / self.scale).round() + self.zero).clamp(self.low, self.high) - self.zero) * self.scale


def grid_of(lo: float, hi: float, activations: str) -> InputGrid:
    """The grid that holds [lo, hi] and zero. `u8`: s = (hi - lo) / 255, z = round(-lo / s)
    (Nagel et al. 2021, section 2.2.1);
    `s8`: s = max|x| / 127. An input that is always 0 gets the scale 1."""
    low, high = CODES[activations]
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if hi - lo < SMALLEST:
        return InputGrid(1.0, 0, low, high)
    if activations == "s8":
        return InputGrid(float(np.float32(max(-lo, hi, SMALLEST) / high)), 0, low, high)
    s = float(np.float32(max((hi - lo) / high, SMALLEST)))
    return InputGrid(s, min(max(round(-lo / s), low), high), low, high)


def chunks(inputs: dict[str, Tensor], size: int = 32) -> list[tuple[Tensor, ...]]:
    """Input tensors [n, ...] by name as positional batches of at most `size` samples."""
    n = len(next(iter(inputs.values())))
    return [tuple(v[i : i + size] for v in inputs.values()) for i in range(0, n, size)]


def watch(module: nn.Module, paths: Iterable[str], batches: Sequence[tuple[Tensor, ...]], see: Any) -> None:
    """Run the module (as it is, no gradients) and call see(path, x) with the first input of each
    named layer, as often as the layer runs."""

    def look(path: str, _: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
            see(path, args[0])

    with torch.no_grad(), watched(module, before={path: partial(look, path) for path in paths}):
        for batch in batches:
            module(*batch)


def same_inputs(module: nn.Module, paths: Sequence[str], batch: tuple[Tensor, ...]) -> list[list[str]]:
    """The layers in groups that read one and the same tensor (queries, keys and values; both ways
    of a residual block): in a graph such a tensor can have one grid only. In the order of `paths`;
    a layer that runs more than once, or not at all, is a group of its own."""
    seen: dict[str, list[Any]] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def see(path: str, x: Tensor) -> None:
        alive.append(x)
        seen.setdefault(path, []).append((x.data_ptr(), tuple(x.shape), x.stride(), x._version))

    watch(module, paths, [batch], see)
    groups: dict[Any, list[str]] = {}
    for path in paths:
        keys = seen.get(path, [])
        groups.setdefault(keys[0] if len(keys) == 1 else path, []).append(path)
    return list(groups.values())


def input_grids(
    module: nn.Module, paths: Sequence[str], batches: Sequence[tuple[Tensor, ...]], activations: str, calibrate: str
) -> dict[str, InputGrid]:
    """The grid of each named layer's input, from one pass over the batches for `minmax` and
    two for the others.

    A layer that no batch reaches is left out. InputError for an unknown way to calibrate, or for
    values that are not finite.
    """
    if calibrate not in CALIBRATIONS or activations not in CODES:
        raise InputError(
            "these activation grids cannot be computed here",
            got=f"{calibrate}, {activations}",
            allowed=f"{', '.join(CALIBRATIONS)}; u8, s8",
        )
    ends: dict[str, tuple[float, float]] = {}

    def see_ends(path: str, x: Tensor) -> None:
        lo, hi = (float(v) for v in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
        before = ends.get(path, (lo, hi))
        ends[path] = (min(lo, before[0]), max(hi, before[1]))

    watch(module, paths, batches, see_ends)
    bad = {path: e for path, e in ends.items() if not abs(e[0]) + abs(e[1]) < float("inf")}
    if bad:
        raise InputError(
            "these layers have inputs that are not finite, which no grid can hold", got=bad, fix="skip them"
        )
    if calibrate == "minmax":
        return {path: grid_of(*ends[path], activations) for path in paths if path in ends}
    counts = {path: torch.zeros(BINS, dtype=torch.float64) for path in ends}

    def see_counts(path: str, x: Tensor) -> None:
        lo, hi = ends[path]
        if lo < hi:
            counts[path] += torch.histc(x.float().cpu().flatten(), BINS, lo, hi).double()

    watch(module, paths, batches, see_counts)
    choose = {"percentile": percentile, "mse": least_squares}[calibrate]
    return {
        path: grid_of(*choose(counts[path], *ends[path], activations), activations) for path in paths if path in ends
    }


def percentile(counts: Tensor, lo: float, hi: float, activations: str) -> tuple[float, float]:
    """The range that leaves (100 - PERCENTILE) / 2 percent of the values out at each end.
    counts: [BINS] over [lo, hi]."""
    if lo == hi or not counts.sum():
        return lo, hi
    share = counts.cumsum(0) / counts.sum()
    cut = (100 - PERCENTILE) / 200
    width = (hi - lo) / len(counts)
    first = int(torch.searchsorted(share, torch.tensor(cut, dtype=share.dtype), right=True))
    last = int(torch.searchsorted(share, torch.tensor(1 - cut, dtype=share.dtype)))
    return lo + first * width, min(lo + (last + 1) * width, hi)


def least_squares(counts: Tensor, lo: float, hi: float, activations: str) -> tuple[float, float]:
    """Among `SHRINKINGS` ranges (a lo, a hi), 0 < a <= 1, the one with the least squared error
    ||x - x'||^2 (Nagel et al. 2021, eq. 9)."""
    if lo == hi or not counts.sum():
        return lo, hi
    width = (hi - lo) / len(counts)
    middles = lo + width * (torch.arange(len(counts), dtype=torch.float64) + 0.5)
    # a ReLU's zeros are zeros
    middles = torch.where(((middles - lo) < width) & (lo == 0), torch.zeros_like(middles), middles)
    errors = []
    for i in range(1, SHRINKINGS + 1):
        a = i / SHRINKINGS
        errors.append(float((counts * (middles - grid_of(a * lo, a * hi, activations).nearest(middles)) ** 2).sum()))
    a = (min(range(SHRINKINGS), key=lambda i: (errors[i], -i)) + 1) / SHRINKINGS
    return a * lo, a * hi
