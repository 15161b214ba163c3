"""When a search ends before its budget does. Pure functions of the budget and what was
found. No torch here."""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakKeyDictionary

from ..limits import Budget
from ..pareto import dominates
from ..records import Entry, History, Trial
from ..space import Space

_DOUBTS = 3  # proposals in a row of which too little is expected
# proposals in a row that the space refuses, each after 200 draws or more that it refuses,
# too: there is next to nothing it allows
_IN_VAIN = 20


def reason(budget: Budget, history: History, best: Entry | None) -> str | None:
    """Why the search is over, in a sentence; None if it goes on. `best`:
    the best feasible entry."""
    return _reached(budget, best) or _stalled(budget, history) or _hopeless(budget, history)


def in_vain(trials: History, space: Space) -> str | None:
    """Why it is useless to propose more: the last `_IN_VAIN` proposals were refused by the space.
    None if it is not."""
    if len(trials) < _IN_VAIN:
        return None
    why = None
    for trial in reversed(trials.last(_IN_VAIN)):
        why = space.refused(trial.filling)
        if why is None:
            return None
    return f"no candidate that may run was found among the last {_IN_VAIN} proposals; the last one: {why}"


def _reached(budget: Budget, best: Entry | None) -> str | None:
    if budget.enough is None or best is None:
        return None
    value, higher = best.metric.value, best.metric.higher_is_better
    if value < budget.enough if higher else value > budget.enough:
        return None
    return f"the best candidate's {best.metric.name} of {value:.4g} has reached {budget.enough:g}"


class _Progress:
    """How many finished trials there are since one brought something;
    each trial is read once, when it has finished."""

    def __init__(self) -> None:
        self.read = 0
        self.running: list[int] = []
        self.stopped: set[int] = set()  # of `running`: counted, but they may go on
        self.since = 0
        self.least = math.inf  # violation so far
        self.front: list[tuple[float, ...]] = []  # of the trials with that violation

    def update(self, history: History) -> int:
        self.running += range(self.read, len(history))
        self.read = len(history)
        for number in [i for i in self.running if history[i].state != "running"]:
            if number not in self.stopped:
                self._count(history[number])
            elif history[number].values:  # it went on after all
                self.since -= 1
                self._count(history[number])
            if history[number].state == "stopped":
                self.stopped.add(number)
        self.running = [i for i in self.running if history[i].open and not history[i].values]
        return self.since

    def _count(self, trial: Trial) -> None:
        self.since += 1
        values = trial.values
        if (
            trial.state != "complete"
            or values is None
            or any(v != v for v in values)
            or not trial.violation <= self.least
        ):
            return
        if trial.violation < self.least:
            self.least, self.front, self.since = trial.violation, [values], 0
        elif trial.violation == 0 and not any(f == values or dominates(f, values) for f in self.front):
            self.front = [f for f in self.front if not dominates(values, f)] + [values]
            self.since = 0


_PROGRESS: WeakKeyDictionary[History, _Progress] = WeakKeyDictionary()


def _stalled(budget: Budget, history: History) -> str | None:
    """A trial brings something if no earlier one was as good or better,
    or if it is less infeasible than all before."""
    if budget.stall is None:
        return None
    since = _PROGRESS.setdefault(history, _Progress()).update(history)
    return f"the last {since} trials brought nothing" if since >= budget.stall else None


def _hopeless(budget: Budget, history: History) -> str | None:
    if budget.least_gain is None:
        return None
    expected: list[float] = []
    for number in range(len(history) - 1, -1, -1):
        gain = expectation(history[number].note)
        if gain is not None:
            expected.append(gain)
        if len(expected) == _DOUBTS:
            break
    if len(expected) < _DOUBTS or max(expected) >= budget.least_gain:
        return None
    return (
        f"the strategy expects a gain of {max(expected):.2g} at most from its last {_DOUBTS} proposals, "
        f"less than {budget.least_gain:g}"
    )


def expectation(note: dict[str, Any]) -> float | None:
    """The expected improvement that a strategy noted with a proposal (`ei`),
    its own or that of the strategy inside it."""
    if isinstance(note.get("ei"), (int, float)):
        return float(note["ei"])
    inner = note.get("note")
    return expectation(inner) if isinstance(inner, dict) else None
