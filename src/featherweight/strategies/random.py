"""Uniform random search: every hole is drawn from its own domain, and no filling comes twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..records import History
from ..space import Space
from .base import Fresh, Proposal, Strategy


@dataclass(frozen=True)
class Random(Strategy):
    """Draws each living hole independently (Bergstra and Bengio,
    "Random search for hyper-parameter optimization", 2012).

    The yardstick for every other strategy: it needs no history and no assumption
    about the objectives.
    """

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        fresh = Fresh(space, history)
        out: list[Proposal] = []
        for _ in range(n):
            filling = fresh.sample(rng)
            if filling is None:
                break
            out.append(fresh.take(filling))
        return out
