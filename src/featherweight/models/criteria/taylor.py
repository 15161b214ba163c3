"""Taylor: a weight matters as the loss would change without it, to first order.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", arXiv:1906.10771.
Notation: g the loss's gradient, w weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class Taylor(Criterion):
    """(g w)^2, summed over the batches that were seen."""

    needs = frozenset({"gradient"})
    comparable = True

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        w = seen.weight.detach().float()
        total = torch.zeros_like(w)  # [O, I, *k]
        for g in seen.need("gradient"):  # one batch at a time: no second tensor of B weights
            total += (g.float() * w) ** 2  # eq. 8
        return total
