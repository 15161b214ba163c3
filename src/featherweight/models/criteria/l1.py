"""L1: a weight matters as its absolute value does.

Li et al. 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, section 3.1.
Notation: w weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class L1(Criterion):
    """|w|: summed over a channel it is the channel's L1 norm."""

    comparable = True

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        return seen.weight.detach().float().abs()  # [O, I, *k]
