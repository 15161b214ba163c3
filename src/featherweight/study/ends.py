"""When a search ends before its budget does. Pure functions of the budget and what was
found. No torch here."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from ..digest import Digest
from ..limits import Budget
from ..pareto import dominates
from ..records import Entry, History, Trial
from ..space import Space

NONE_FINISHED = "no trial finished"  # how that reason begins
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


def none_finished(trials: History) -> str | None:
    """That all trials failed and what failed most of them, in words; None if one did not, or there
    is none. Reasons that differ in numbers only are one."""
    reasons = [trial.reason or "unknown" for trial in trials]
    if not reasons or any(trial.state != "failed" for trial in trials):
        return None
    kinds = [re.sub(r"[0-9][0-9.e+-]*", "#", reason) for reason in reasons]
    kind, count = Counter(kinds).most_common(1)[0]
    said = "; ".join(line.strip() for line in reasons[kinds.index(kind)].splitlines())
    return f"{NONE_FINISHED}: {count} of {len(reasons)} failed with: {said}"


def _reached(budget: Budget, best: Entry | None) -> str | None:
    if budget.enough is None or best is None:
        return None
    value, higher = best.metric.value, best.metric.higher_is_better
    if value < budget.enough if higher else value > budget.enough:
        return None
    return f"the best candidate's {best.metric.name} of {value:.4g} has reached {budget.enough:g}"


class _Progress(Digest):
    """How many finished trials there are since one brought something.
    A stopped one counts, until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: set[int] = set()  # counted, but they may go on
        self.since = 0
        self.least = math.inf  # violation so far
        self.front: list[tuple[float, ...]] = []  # of the trials with that violation

    def told(self, trial: Trial) -> None:
        if trial.number in self.stopped:
            if not trial.values:
                return
            self.since -= 1  # it went on after all
        if trial.state == "stopped":
            self.stopped.add(trial.number)
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


def _stalled(budget: Budget, history: History) -> str | None:
    """A trial brings something if no earlier one was as good or better,
    or if it is less infeasible than all before."""
    if budget.stall is None:
        return None
    since = _Progress.of(history).since
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
