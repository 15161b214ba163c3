"""LAMP: a weight matters as its share of what would be left of its layer.

Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", arXiv:2010.07611.
Notation: w weights of a layer, u, v their indices when sorted by size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class Lamp(Criterion):
    """w_u^2 / sum_{v >= u} w_v^2: within a layer it ranks as the magnitude does, and it is
    comparable over layers. A layer of zeros scores 0."""

    comparable = True

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        squares = seen.weight.detach().double().flatten() ** 2
        ascending, order = squares.sort(stable=True)
        # sum over v >= u; in float64: layers have millions of weights
        left = ascending.flip(0).cumsum(0).flip(0)
        # the LAMP score, section 2
        share = torch.where(left > 0, ascending / left, torch.zeros_like(left))
        return torch.empty_like(share).scatter_(0, order, share).float().reshape(seen.weight.shape)
