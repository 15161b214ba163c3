"""Cross-layer equalization: give the channels between two layers the same range on both sides,
without changing the function.

Nagel et al. 2019, arXiv:1906.04721, section 4.1. Notation: for channel i between W1 and W2,
r1_i = max_j |W1_ij| (row i) and r2_i = max_j |W2_ji| (column i); W1 <- S^-1 W1, b1 <- S^-1 b1,
W2 <- W2 S with S = diag(s).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .pairs import Pair, column_range, rescale, row_range

ROUNDS, ENOUGH = 20, 1e-3  # rounds over all pairs; the largest |log s| at which they have settled


def scales(r1: Tensor, r2: Tensor) -> Tensor:
    """s [C] = sqrt(r1 r2) / r2 (eq. 11), after which both ranges are sqrt(r1 r2);
    1 where a side is all zeros."""
    alive = (r1 > 0) & (r2 > 0)
    return torch.where(alive, (r1.clamp(min=1e-30) / r2.clamp(min=1e-30)).sqrt(), torch.ones_like(r1))


def equalize(module: nn.Module, pairs: list[Pair]) -> int:
    """Equalize the pairs whose producer is a layer, in place, pair by pair until nothing moves
    (the end of section 4.1). How many pairs."""
    joined = [p for p in pairs if not p.is_norm]
    for _ in range(ROUNDS):
        moved = 0.0
        for pair in joined:
            s = scales(row_range(module, pair), column_range(module, pair))
            rescale(module, pair, s)
            moved = max(moved, float(s.log().abs().max()))
        if moved < ENOUGH:
            break
    return len(joined)
