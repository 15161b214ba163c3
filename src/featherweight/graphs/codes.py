"""Weights as integer codes for a file: the grids of `models.quant.grid`, on arrays, and how
runtimes want them packed.

Notation as there: w [O, I, *k], n = I * k; q codes, s scale, z zero point, w' = (q - z) s; plus
v = f w, the weight that the file holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import machine
from ..errors import TargetError
from ..plan import LayerPlan
from .sites import Site

if TYPE_CHECKING:
    from torch import Tensor

OFF = 0.02  # of a step: how far a weight may lie from the grid that it is said to lie on


@dataclass(frozen=True)
class Coded:
    """q: shaped as v, whole numbers; s, z: [1], [O] or [O, groups] by granularity; setting:
    the grid's; given: the plan had it."""

    q: np.ndarray
    s: np.ndarray
    z: np.ndarray
    setting: LayerPlan
    given: bool

    def rows(self, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes [O, G, block] (a short last block is filled with the zero point), s [O, G] and z
        [O, G], for blocks that divide the groups."""
        flat = self.q.reshape(len(self.q), -1)
        count = -(-flat.shape[1] // block)
        s, z = (self._spread(a, block, count) for a in (self.s, self.z))
        filled = np.repeat(z, block, axis=1).astype(flat.dtype)
        filled[:, : flat.shape[1]] = flat
        return filled.reshape(len(flat), count, block), s, z

    def _spread(self, a: np.ndarray, block: int, count: int) -> np.ndarray:
        if self.setting.granularity == "group":
            return np.repeat(a, self.setting.group // block, axis=1)[:, :count]
        return np.ascontiguousarray(np.broadcast_to(a.reshape(-1, 1), (len(self.q), count)))

    def values(self) -> np.ndarray:
        """v' = (q - z) s, float32, shaped as v."""
        from ..models.quant import grid

        return np.asarray(grid.values(_t(self.q), _t(self.s), _t(self.z), _grid(self.setting)).numpy())


def coded(v: np.ndarray, site: Site, scales: dict[str, Tensor], integer: bool = False) -> Coded:
    """The codes of a weight: on the plan's grid if it has one for this layer, else rounded to
    nearest on a min-max grid.

    integer: the codes will be multiplied as such (`models.quant.layers.grid_of`).
    TargetError if the weight does not lie on the given grid.
    """
    from ..models.quant import grid
    from ..models.quant.layers import grid_of

    if f"{site.path}.weight.scale" in scales and site.path:
        return _given(v, site, scales, integer)
    g, w = grid_of(site.setting, integer, machine.saturates()), _t(v)
    s, z = grid.fit(w, g)
    setting = replace(site.setting, bits=g.bits)
    return Coded(_codes(grid.codes(w, s, z, g).numpy()), s.numpy(), z.numpy(), setting, False)


def _given(v: np.ndarray, site: Site, scales: dict[str, Tensor], integer: bool) -> Coded:
    """The codes on the plan's grid. A row factor f scales the grid of its row by |f|; where f < 0
    the codes are mirrored: f (q - z) s = ((m - q) - (m - z)) |f| s with m = 0 (symmetric) or
    2^b - 1. A symmetric grid whose lowest code has no mirror image gets a zero point. A tensor's
    one scale becomes one a row if the rows differ."""
    from ..models.quant import grid
    from ..models.quant.layers import grid_of

    setting, f = site.setting, site.factor
    if f is None:
        raise TargetError(
            "the weight in the exported graph is not the layer's",
            got=site.path,
            fix="export this layer without a given grid",
        )
    g = grid_of(setting, integer, False)  # given codes may be of more than 7 bits
    s = scales[f"{site.path}.weight.scale"].detach().float().cpu()
    zero = scales.get(f"{site.path}.weight.zero")
    z = s.new_zeros(s.shape) if zero is None else zero.detach().float().cpu()
    groups = -(-int(np.prod(v.shape[1:])) // max(setting.group, 1))
    shape = {"tensor": (1,), "channel": (len(v),), "group": (len(v), groups)}[setting.granularity]
    if tuple(s.shape) != shape or tuple(z.shape) != shape or not bool((s > 0).all()):
        raise TargetError(
            f"the scales of {site.path} do not fit its weight",
            got=(tuple(s.shape), tuple(z.shape)),
            allowed=f"positive, {shape}",
        )
    w = _t(v / np.where(f == 0, 1.0, f).reshape(-1, *[1] * (v.ndim - 1)))
    q = grid.codes(w, s, z, g)
    step = grid.values(q * 0 + 1, s, z * 0, g).clamp(min=grid.SMALLEST)
    off = float(((grid.values(q, s, z, g) - w) / step).abs().max())
    if off > OFF:
        raise TargetError(
            f"the weight of {site.path} does not lie on its grid",
            got=f"{off:.3g} of a step away",
            allowed=f"at most {OFF}",
        )
    codes, s_, z_ = q.numpy(), s.numpy().astype(np.float64), z.numpy()
    if (f == 1).all():
        return Coded(_codes(codes), s_.astype(np.float32), z_, setting, True)
    if setting.granularity == "tensor":
        setting, s_, z_ = (
            LayerPlan(setting.bits, "channel", 0, setting.symmetric),
            np.repeat(s_, len(v)),
            np.repeat(z_, len(v)),
        )
    column = f.reshape(-1, *[1] * (s_.ndim - 1))
    mirrored = f.reshape(-1, *[1] * (v.ndim - 1)) < 0
    if setting.symmetric and (mirrored & (codes < -g.high)).any():
        codes, z_, setting = codes - g.low, z_ - g.low, replace(setting, symmetric=False)
    top = 0 if setting.symmetric else 2**setting.bits - 1
    codes, z_ = np.where(mirrored, top - codes, codes), np.where(column < 0, top - z_, z_)
    # a row that f = 0 emptied is on any grid
    s_ = np.maximum(s_ * np.where(column == 0, 1.0, np.abs(column)), grid.SMALLEST)
    return Coded(_codes(codes), s_.astype(np.float32), np.ascontiguousarray(z_, np.float32), setting, True)


def pack4(codes: np.ndarray) -> np.ndarray:
    """Two 4-bit codes a byte, the first in the low half; an odd last one is alone.
    [.., n] -> [.., ceil(n / 2)], uint8."""
    u = (codes.astype(np.int16) & 15).astype(np.uint8)
    if u.shape[-1] % 2:
        u = np.concatenate([u, np.zeros((*u.shape[:-1], 1), np.uint8)], axis=-1)
    return np.asarray(u[..., 0::2] | (u[..., 1::2] << 4))


def _codes(q: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rint(q).astype(np.int16))


def _grid(setting: LayerPlan) -> Any:
    from ..models.quant.grid import Grid

    return Grid(setting.bits, setting.granularity, setting.group, setting.symmetric)


def _t(a: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(np.array(a, dtype=np.float32))
