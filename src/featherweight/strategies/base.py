"""What a strategy is: a pure function of space, history and an explicit generator. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..records import History
from ..space import Filling, Space

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Proposal:
    """A filling to try, and what the strategy wants to find in the history again (JSON data)."""

    filling: Filling
    note: dict[str, Any] = field(default_factory=dict)


class Strategy(ABC):
    """Abstract. Holds settings, no state: what it needs to know it reads from the history, so resuming is replaying."""

    @abstractmethod
    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> Sequence[Proposal]:
        """Up to `n` fillings that are not in the history; an empty list says that the space is exhausted.

        Running trials are part of the history. Objectives are minimised; `Trial.violation` is 0 if feasible.
        """


def unseen_sample(space: Space, history: History, rng: np.random.Generator, also: Collection[str] = (), tries: int = 50) -> Filling | None:
    """A random filling that is neither in the history nor in `also` (keys); None if there is none left.

    After `tries` repeats in a finite space, one of the remaining fillings is found by walking on from a random rank. In a
    space with a continuous hole a repeat can only mean that the draws keep missing it; after 20 times as many, one is given.
    """
    from ..space.space import key

    size = space.size
    for _ in range(tries if size < float("inf") else 20 * tries):
        filling = space.sample(rng)
        if not history.seen(filling) and key(filling) not in also:
            return filling
    if size == float("inf"):
        return filling
    start = int(rng.integers(int(size)))
    for step in range(min(int(size), history.distinct + len(also) + 1)):
        rank = (start + step) % int(size)
        if not history.seen_key(space.key_at(rank)) and space.key_at(rank) not in also:
            return space.at(rank)
    return None
