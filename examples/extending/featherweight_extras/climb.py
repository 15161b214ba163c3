"""Local search: next to the best trial, and now and then anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from featherweight.errors import InputError
from featherweight.records import History
from featherweight.space import Space
from featherweight.strategies.base import Fresh, Proposal, Strategy


@dataclass(frozen=True)
class Climb(Strategy):
    """Changes one hole of the best trial. Where all changes of it are known, and in a share
    `explore` of the proposals, a random filling is drawn."""

    explore: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.explore <= 1:
            raise InputError("explore is a share", got=self.explore, allowed="0 to 1")

    def propose(self, space: Space, history: History, n: int, rng: Generator) -> list[Proposal]:
        fresh, out = Fresh(space, history), list[Proposal]()
        best = min((t for t in history if t.usable), key=lambda t: t.score_key, default=None)
        for _ in range(n):
            filling, note = None, {}
            if best is not None and rng.random() >= self.explore:
                around = list(space.neighbours(best.filling, rng))
                order = rng.permutation(len(around))
                filling = next((around[i] for i in order if around[i] in fresh), None)
                note = {"from": best.number}
            if filling is None:
                filling, note = fresh.sample(rng), {}
            if filling is None:
                break
            out.append(fresh.take(filling, note))
        return out
