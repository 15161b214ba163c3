"""A history as arrays: what a model is fitted to, kept up to date as trials appear and finish."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import InputError
from ..records import History, Trial
from ..space import Space
from ..space.encode import Description

VALUED, BROKEN, STOPPED = 1, 2, 3  # what became of a trial; 0 while it runs


class Observed:
    """Row i is trial i. All that stands here depends on the trials alone,
    not on the order in which they finished.

    x: [capacity, width] descriptions; values: [capacity, m] objectives as told, NaN where there are
    none; violation: NaN where unknown;
    cost_s: seconds to run and to propose; fate: `VALUED` (finite values; of a stopped trial too,
    the values it had then), `BROKEN` (failed, or values that are no numbers) or `STOPPED`
    (stopped without values); objectives: m, 0 before any trial has finished with values.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.description = space, Description(space)
        self.read, self.objectives = 0, 0
        self.running: list[int] = []
        self.open: list[int] = []  # running, or stopped and perhaps to go on
        self.x = np.empty((0, self.description.width))
        self.values = np.empty((0, 1))
        self.violation, self.cost_s, self.fate = np.empty(0), np.empty(0), np.empty(0, dtype=int)

    def update(self, history: History) -> None:
        """Reads the trials that are new and those that have finished: O(of these)."""
        new = [history[i] for i in range(self.read, len(history))]
        if new:
            self._grow(len(history))
            if self.description.learn([t.filling for t in new]):
                self.x = np.zeros((len(self.x), self.description.width))
                new_rows = self.description.rows([t.filling for t in history])
                self.x[: len(history)] = new_rows
            else:
                self.x[self.read : len(history)] = self.description.rows([t.filling for t in new])
            self.open += [t.number for t in new]
            self.read = len(history)
        finished = [
            i
            for i in self.open
            if history[i].state != "running" and not (self.fate[i] == STOPPED and history[i].state == "stopped")
        ]
        self.running = [i for i in self.open if history[i].state == "running"]
        self.open = [i for i in self.open if history[i].open]
        for number in finished:
            self._settle(history[number])

    def _grow(self, n: int) -> None:
        more = max(n, 2 * len(self.fate)) - len(self.fate) if n > len(self.fate) else 0
        if more:
            self.x = np.vstack([self.x, np.zeros((more, self.x.shape[1]))])
            self.values = np.vstack([self.values, np.full((more, self.values.shape[1]), np.nan)])
            self.violation = np.append(self.violation, np.full(more, np.nan))
            self.cost_s = np.append(self.cost_s, np.zeros(more))
            self.fate = np.append(self.fate, np.zeros(more, dtype=int))

    def _settle(self, trial: Trial) -> None:
        """What became of a trial that has finished."""
        number = trial.number
        self.cost_s[number] = trial.cost_s + trial.propose_s
        known = bool(trial.values) and all(map(math.isfinite, (*(trial.values or ()), trial.violation)))
        if trial.state == "failed" or (trial.state == "complete" and not known):
            self.fate[number] = BROKEN
        elif not known:
            self.fate[number] = STOPPED
        else:
            values = trial.values or ()
            if not self.objectives:
                self.objectives = len(values)
                self.values = np.full((len(self.fate), self.objectives), np.nan)
            if len(values) != self.objectives:
                raise InputError(
                    f"trial {number} has another number of objectives than the first",
                    got=len(values),
                    allowed=self.objectives,
                )
            self.fate[number], self.values[number], self.violation[number] = VALUED, values, max(trial.violation, 0.0)

    def settled(self, below: int) -> np.ndarray:
        """Numbers of the trials under `below` that have finished, ascending."""
        return np.flatnonzero(self.fate[:below])


_KEPT: WeakKeyDictionary[History, Observed] = WeakKeyDictionary()


def observed(space: Space, history: History) -> Observed:
    """The arrays of a history as it is now."""
    kept = _KEPT.get(history)
    if kept is None or kept.space is not space:
        kept = _KEPT[history] = Observed(space)
    kept.update(history)
    return kept
