"""Entropy: a channel matters as much as its activation tells samples apart.

Luo & Wu 2017, "An Entropy-based Pruning Method for CNN Compression", arXiv:1706.05791:
the activations are averaged over positions (global average pooling), and the entropy of each
channel's histogram over samples is its score.
Notation: p_b the share of the N samples whose activation falls into bin b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen

BINS = 100  # our choice, as is their common range


class Entropy(Criterion):
    """H_c = -sum_b p_b ln p_b, in nats. The bins divide the layer's whole range, so that a
    channel that hardly changes scores low; a layer whose output is constant, or was never
    seen, scores 0."""

    needs = frozenset({"outputs"})
    per_weight = False

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        outputs = seen.need("outputs").float()  # [N, O]
        n, channels = outputs.shape
        if n == 0 or bool(outputs.min() == outputs.max()):
            return torch.zeros(channels, device=outputs.device)
        low, high = outputs.min(), outputs.max()
        bins = ((outputs - low) / (high - low) * BINS).long().clamp(max=BINS - 1)  # [N, O]
        counts = torch.zeros(BINS, channels, device=outputs.device).scatter_add_(0, bins, torch.ones_like(outputs))
        p = counts / n
        return torch.as_tensor(torch.special.entr(p)).sum(0)  # [O]; entr(p) = -p ln p, and 0 at 0
