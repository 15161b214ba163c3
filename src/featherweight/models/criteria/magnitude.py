"""Magnitude: a weight matters as its square does.

Li et al. 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, with the L2 norm for the
L1 norm. Notation: w weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class Magnitude(Criterion):
    """w^2: summed over a channel it is the channel's squared L2 norm."""

    comparable = True

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        return seen.weight.detach().float() ** 2  # [O, I, *k]
