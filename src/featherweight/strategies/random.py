"""Uniform random search: every hole is drawn from its own domain, and no filling comes twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..records import History
from ..space import Space
from ..space.space import key
from .base import Proposal, Strategy, unseen_sample

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Random(Strategy):
    """Draws each living hole independently (Bergstra and Bengio, "Random search for hyper-parameter optimization", 2012).

    The yardstick for every other strategy: it needs no history and no assumption about the objectives.
    """

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        out: list[Proposal] = []
        also: set[str] = set()
        for _ in range(n):
            filling = unseen_sample(space, history, rng, also)
            if filling is None:
                break
            also.add(key(filling))
            out.append(Proposal(filling))
        return out
