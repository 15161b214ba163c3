"""FPGM: a filter matters as far as it lies from the others of its layer;
those near the middle can be stood in for.

He et al. 2019, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
Acceleration", arXiv:1811.00250.
Notation: F_i filter i as a vector [I * k].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class Fpgm(Criterion):
    """g(F_i) = sum_j ||F_i - F_j||_2 for each output channel i."""

    per_weight = False

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        filters = seen.weight.detach().float().flatten(1)  # [O, I * k]
        # [O, O]; a matmul would cancel near filters
        apart = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.sum(1)  # smallest near the geometric median, which minimises this sum
