"""A history as arrays: what a model is fitted to, kept up to date as trials appear and finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..digest import Digest
from ..records import History, Trial
from ..space import Space
from ..space.encode import Description

T = TypeVar("T")
VALUED, BROKEN, STOPPED = 1, 2, 3  # what became of a trial; 0 while it runs


class Observed(Digest):
    """Row i is trial i. All that stands here depends on the trials alone,
    not on the order in which they finished.

    x: [capacity, width] descriptions; values: [capacity, m] objectives as told, NaN where there are
    none; violation: NaN where unknown;
    cost_s: seconds to run and to propose; fate: `VALUED` (finite values; of a stopped trial too,
    the values it had then), `BROKEN` (failed, or values that are no numbers) or `STOPPED`
    (stopped without values); objectives: m, 0 before any trial has finished with values.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space, self.description = space, Description(space)
        self.objectives = 0
        self.running: list[int] = []
        self._kept: dict[str, tuple[object, Any]] = {}  # name -> mark, what was made
        self.x = np.empty((0, self.description.width))
        self.values = np.empty((0, 1))
        self.violation, self.cost_s, self.fate = np.empty(0), np.empty(0), np.empty(0, dtype=int)

    def update(self, history: History) -> None:
        """Reads what is new; describes all new fillings at once."""
        new = [history[i].filling for i in range(self.read, len(history))]
        if new:
            self._grow(len(history))
            if self.description.learn(new):
                self.x = np.zeros((len(self.x), self.description.width))
                self.x[: len(history)] = self.description.rows([t.filling for t in history])
            else:
                self.x[self.read : len(history)] = self.description.rows(new)
        super().update(history)
        for trial in [history[i] for i in self.open if history[i].state == "stopped"]:
            if self.cost_s[trial.number] != trial.cost_s + trial.propose_s:  # it went on unseen
                self.resumed(trial)
                self.told(trial)
        self.running = [i for i in self.open if history[i].state == "running"]

    def _grow(self, n: int) -> None:
        more = max(n, 2 * len(self.fate)) - len(self.fate) if n > len(self.fate) else 0
        if more:
            self.x = np.vstack([self.x, np.zeros((more, self.x.shape[1]))])
            self.values = np.vstack([self.values, np.full((more, self.values.shape[1]), np.nan)])
            self.violation = np.append(self.violation, np.full(more, np.nan))
            self.cost_s = np.append(self.cost_s, np.zeros(more))
            self.fate = np.append(self.fate, np.zeros(more, dtype=int))

    def told(self, trial: Trial) -> None:
        """What became of a trial that has finished, for good or until it goes on."""
        number = trial.number
        self.cost_s[number] = trial.cost_s + trial.propose_s
        if trial.state == "failed" or (trial.state == "complete" and not trial.finite):
            self.fate[number] = BROKEN
        elif not trial.finite:
            self.fate[number] = STOPPED
        else:
            if not self.objectives:
                self.values = np.full((len(self.fate), trial.objectives(0)), np.nan)
            self.objectives = trial.objectives(self.objectives)
            self.fate[number], self.values[number], self.violation[number] = (
                VALUED,
                trial.values,
                max(trial.violation, 0.0),
            )

    def resumed(self, trial: Trial) -> None:
        """A trial that goes on is as any that runs: nothing is known of it but its filling."""
        number = trial.number
        self.fate[number], self.cost_s[number] = 0, 0.0
        self.values[number], self.violation[number] = np.nan, np.nan
        self._kept.clear()  # its mark may come again, with other numbers

    def settled(self, below: int) -> np.ndarray:
        """Numbers of the trials under `below` that have finished, ascending."""
        return np.flatnonzero(self.fate[:below])

    def kept(self, name: str, mark: object, make: Callable[[], T]) -> T:
        """What `make` makes, kept under a name until it is asked for with another mark: a model
        serves while the trials it saw are the same."""
        if name not in self._kept or self._kept[name][0] != mark:
            self._kept[name] = mark, make()
        made: T = self._kept[name][1]
        return made


def observed(space: Space, history: History) -> Observed:
    """The arrays of a history as it is now."""
    return Observed.of(history, space=space)
