"""One-shot search: the sub-nets that a weight-sharing supernet ranked first are tried for
real, then varied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..records import History
from ..space import Filling, Space
from ..space.vary import mutated
from .base import Fresh, Proposal, Strategy
from .shared.ranked import check_ranked, guides, outcomes


@dataclass(frozen=True)
class Oneshot(Strategy):
    """Proposes `ranked`, best first; then mutations of the best trials so far (Guo et al. 2020,
    SPOS, arXiv:1904.00420, section 3.4, Algorithm 1, with real trials in the place of the
    supernet's accuracy).

    ranked: JSON texts of fillings, best first, as `featherweight.train.relax.run_relax` gives
    them back; holes that they do not fill (training, compression) take their middles. A strategy
    knows no weights: who drives it trains the supernet before the search. While none of the
    ranked has finished, they are the parents, in their order. Without any, the first `parents`
    fillings are random.
    parents: how many of the best trials may be varied; rate: the mean number of holes changed.
    """

    ranked: tuple[str, ...] = ()
    parents: int = 10
    rate: float = 1.5

    def __post_init__(self) -> None:
        check_ranked(self.ranked)
        if self.parents < 1 or not self.rate > 0:
            raise InputError(
                "oneshot needs at least one parent and a positive rate", got=f"parents={self.parents}, rate={self.rate}"
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes: {"from": "ranked", "rank"} or {"from": number of the parent}."""
        fresh, out = Fresh(space, history), list[Proposal]()
        best_first = guides(space, self.ranked)
        for rank, filling in enumerate(best_first):
            if len(out) < n and filling in fresh:
                out.append(fresh.take(filling, {"from": "ranked", "rank": rank}))
        while len(out) < n:
            proposal = self._vary(space, history, fresh, best_first, rng)
            if proposal is None:
                break
            out.append(proposal)
        return out

    def _vary(
        self, space: Space, history: History, fresh: Fresh, best_first: list[Filling], rng: np.random.Generator
    ) -> Proposal | None:
        told = outcomes(history)
        ready = told.count >= (1 if best_first else self.parents)
        parents = told.best(self.parents, rng) if ready else []
        for _ in range(40 if parents or best_first else 0):
            if parents:
                number = parents[int(rng.integers(len(parents)))]
                filling, note = (
                    mutated(space, history[number].filling, rng, self.rate),
                    dict[str, Any]({"from": number}),
                )
            else:
                rank = int(rng.integers(min(len(best_first), self.parents)))
                filling, note = mutated(space, best_first[rank], rng, self.rate), {"from": "ranked", "rank": rank}
            if filling in fresh:
                return fresh.take(filling, note)
        drawn = fresh.sample(rng)
        return None if drawn is None else fresh.take(drawn)
