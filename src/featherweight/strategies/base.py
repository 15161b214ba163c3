"""What a strategy is: a pure function of space, history and an explicit
generator. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..records import History
from ..space import Filling, Space
from ..space.space import key


@dataclass(frozen=True)
class Proposal:
    """A filling to try, and what the strategy wants to find in the history again (JSON data)."""

    filling: Filling
    note: dict[str, Any] = field(default_factory=dict)


class Strategy(ABC):
    """Abstract. Holds settings, no state: what it needs to know it reads from the history,
    so resuming is replaying.

    What it derives from a history may be kept for the next call (in a `Digest`), as long as a
    history that was read anew gives the same proposals. Trials that it did not propose have notes
    that it does not know, or none.
    """

    # does it note (`ei`) how much it expects of a proposal, so that a search may end by it?
    expects: ClassVar[bool] = False

    @abstractmethod
    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> Sequence[Proposal]:
        """Up to `n` fillings that are not in the history; an empty list says that the
        space is exhausted.

        Running trials are part of the history. Objectives are minimised;
        `Trial.violation` is 0 if feasible.
        """


class Fresh:
    """What may still be proposed in one call: not in the history, not proposed in this call yet,
    not refused by the space."""

    def __init__(self, space: Space, history: History) -> None:
        self.space, self.history = space, history
        self.taken: set[str] = set()  # keys

    def __contains__(self, filling: Filling) -> bool:
        return self.unseen(filling) and self.space.refused(filling) is None

    def unseen(self, filling: Filling) -> bool:
        """Neither in the history nor taken; it may be one that the space refuses."""
        name = key(filling)
        return not self.history.seen_key(name) and name not in self.taken

    def take(self, filling: Filling, note: dict[str, Any] | None = None) -> Proposal:
        """A proposal of this filling, which is fresh no more."""
        self.taken.add(key(filling))
        return Proposal(filling, note or {})

    def sample(self, rng: np.random.Generator, tries: int = 200) -> Filling | None:
        """A random fresh filling; None if every filling is known. After `tries` draws that the
        space refuses, a refused one is given: whoever runs it says why it cannot run."""
        for _ in range(tries):
            filling = self.space.sample(rng)
            if filling in self:
                return filling
        return unseen_sample(self.space, self.history, rng, self.taken)


def unseen_sample(
    space: Space, history: History, rng: np.random.Generator, also: Collection[str] = (), tries: int = 50
) -> Filling | None:
    """A random filling that is neither in the history nor in `also` (keys);
    None if there is none left.

    After `tries` repeats in a finite space, one of the remaining fillings is found by walking on
    from a random rank. In a space with a continuous hole a repeat can only mean that the draws keep
    missing it; after 20 times as many, one is given.
    """
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
