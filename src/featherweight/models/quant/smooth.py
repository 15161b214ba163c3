"""SmoothQuant: move the range of a layer's inputs into its weights, so that both can be rounded.

Xiao et al. 2022, arXiv:2211.10438. Notation: X inputs, W weights, channel j of the input, s_j its
scale: Y = (X diag(s)^-1)(diag(s) W) (eq. 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .inputs import Batches, collect
from .pairs import Pair, by_channel, column_range, rescale

LEAST = 1e-5  # of a range and of a scale, as in the published code


def scales(x: Tensor, w: Tensor, alpha: float) -> Tensor:
    """s [C] = max|X_j|^alpha / max|W_j|^(1 - alpha) (eq. 4). x, w [C]: the ranges of the channel's
    inputs and weights; where one of them is zero there is no range to move, and s is 1."""
    s = (x.clamp(min=LEAST) ** alpha / w.clamp(min=LEAST) ** (1 - alpha)).clamp(min=LEAST)
    return torch.where((x > 0) & (w > 0), s, torch.ones_like(s))


def smooth(module: nn.Module, pairs: list[Pair], batches: Batches, alpha: float) -> int:
    """Smooth the input of every pair's consumers, in place, dividing what makes it by s. alpha:
    how much of the range moves into the weights. How many pairs."""
    paths = [c.path for p in pairs for c in p.consumers]
    seen = collect(module, paths, {"absmax"}, batches)
    for pair in pairs:
        ranges = [by_channel(seen[c.path].absmax, c.channel, pair.channels) for c in pair.consumers]
        x = torch.stack(ranges).amax(0)
        rescale(module, pair, scales(x, column_range(module, pair), alpha))
    return len(pairs)
