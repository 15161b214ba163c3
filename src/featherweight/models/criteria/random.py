"""Random: no weight matters more than another. What every other criterion has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class Random(Criterion):
    """Uniform on [0, 1), drawn with `rng`, weight by weight."""

    comparable = True

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        return torch.rand(seen.weight.shape, generator=rng, device=rng.device).to(seen.weight.device)  # [O, I, *k]
