"""What is derived from a history: kept beside it, and brought up to date as its trials appear and
end. No torch here."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Self
from weakref import WeakKeyDictionary

from .records import History, State, Trial
from .space import Space


class Digest:
    """Abstract. One reader of a history; it must not hold the history itself,
    which would never be freed then.

    Every trial is told to `begun` once, whatever its state is by then. An update tells of each
    trial, as it is now, what is new since the last one; what it was in between is not seen:

    - that ran, or was not there yet, and is complete or failed now: `told`, for the last time, it
      is not looked at any more;
    - that ran, or was not there yet, and is stopped now: `told`; it may go on, so it is looked at
      again;
    - that was stopped and runs now: `resumed`; after that it is as any that runs;
    - that was stopped and is complete or failed now: `told` again, for the last time;
    - that runs, or is stopped, as before: nothing.

    First all new trials begin, then the others are called for, each in order of number. So a
    history that is read anew tells of each trial once, one that was followed perhaps more often,
    and in the order in which trials ended: what a digest holds in the end should not depend on
    that. A call that raises is made again by the next update.
    """

    def __init__(self, *key: Any) -> None:
        self.read = 0  # trials that have begun
        # of those that may still change: the state at the last update
        self._open: dict[int, State] = {}

    def begun(self, trial: Trial) -> None:
        """A trial has appeared."""

    def told(self, trial: Trial) -> None:
        """A trial has got an outcome."""

    def resumed(self, trial: Trial) -> None:
        """A trial that had been told as stopped runs again."""

    @property
    def open(self) -> list[int]:
        """Numbers of the trials that may still change, ascending."""
        return list(self._open)

    def update(self, history: History) -> None:
        """Reads what is new: O(trials that are new or open)."""
        for number in range(self.read, len(history)):
            self.begun(history[number])
            self.read, self._open[number] = number + 1, "running"
        for trial in [history[i] for i, before in self._open.items() if history[i].state != before]:
            (self.resumed if trial.state == "running" else self.told)(trial)
            self._open[trial.number] = trial.state
            if not trial.open:
                del self._open[trial.number]

    @classmethod
    def of(cls, history: History, *key: Hashable, space: Space | None = None) -> Self:
        """The digest of a history as it is now; one is kept for each key, as long as the history
        lives. It is made as `cls(*key)`, or `cls(space, *key)` if it reads the trials in a space:
        one of another space (object) takes its place."""
        kept, slot = _KEPT.setdefault(history, {}), (cls, *key)
        if slot not in kept or kept[slot][0] is not space:
            kept[slot] = space, cls(*key) if space is None else cls(space, *key)
        digest: Self = kept[slot][1]
        digest.update(history)
        return digest


_KEPT: WeakKeyDictionary[History, dict[tuple[Any, ...], tuple[Space | None, Any]]] = WeakKeyDictionary()
