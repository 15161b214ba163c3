"""The weight scales with the least squared rounding error, by search over clip ratios.

Notation: w weight, s scale, z zero point, r clip ratio; w' = nearest(w; r s, z). The search of
GPTQ's and AWQ's published code; the criterion is that of Nagel et al. 2021 (arXiv:2106.08295,
section 3.1, "Mean squared error"): argmin over the range of ||w - w'||^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .grid import Grid, blocks, fit, nearest

STEPS, LEAST = 80, 0.2  # ratios 1.00, 0.99 .. 0.21


def search(w: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(s, z) in the shapes of `grid`: each scale is the ratio of its min-max scale with the least
    squared error, never worse than min-max.

    Both ends of an asymmetric range shrink by the same ratio,
    which leaves its zero point where it is.
    """
    widest, z = fit(w, grid)
    best_s, best = widest, torch.full_like(widest, torch.inf)
    for i in range(STEPS):
        s = widest * (1 - (1 - LEAST) * i / STEPS)
        error = blocks((w.detach().float() - nearest(w, s, z, grid)).square(), grid).sum(-1).reshape(s.shape)
        better = error < best
        best_s, best = torch.where(better, s, best_s), torch.where(better, error, best)
    return best_s, z
