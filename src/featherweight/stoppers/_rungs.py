"""What the halving stoppers share: ladders of rungs, and who is best on one.

Notation: r the lowest budget, R the full one, eta the reduction factor, k the index of a rung;
a *rung* holds the trials that told a score at its budget, paused or gone on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, takewhile

from .base import Reports, States, rung


def ladder(r: float, below: float, eta: int) -> tuple[float, ...]:
    """The budgets r eta^k that are below `below`."""
    return tuple(takewhile(lambda budget: budget < below, (rung(r * eta**k) for k in count())))


def place(score: float, trial: int) -> tuple[float, int]:
    """What trials of a rung are ordered by, best first: NaN is last, equal scores go by number."""
    return (score if score == score else math.inf, trial)


def ranked(reports: Reports, at: float) -> list[int]:
    """The trials of a rung, best first."""
    return [t for _, t in sorted(place(told[at], t) for t, told in reports.items() if at in told)]


def in_top(reports: Reports, at: float, trial: int, least: int, eta: int) -> bool:
    """Is the trial among the best 1/eta of its rung, or its best `least`? One pass, no sorting."""
    own = place(reports[trial][at], trial)
    places = [place(told[at], t) for t, told in reports.items() if at in told]
    return sum(p < own for p in places) < max(least, len(places) // eta)


def promotable(reports: Reports, states: States, rungs: Sequence[float], eta: int, closed: bool) -> int | None:
    """`get_job` of ASHA (Li et al. 2020, arXiv:1810.05934, Algorithm 2, lines 12-19): from the
    highest rung down, the best trial that is among the top 1/eta of its rung and was not
    promoted yet.

    When no trial runs and none will start, a rung that is too small for that (under eta trials)
    promotes its best one: the paper's stream of trials has no end, a study has, and one trial in it
    should be trained in full.
    """
    # rung -> the best that waits there; if it is not among the top, none that waits is
    best: dict[float, tuple[float, int]] = {}
    for t, told in reports.items():
        if told and states.get(t) == "paused":
            at = max(told)
            best[at] = min(best.get(at, (math.inf, t + 1)), place(told[at], t))
    idle = closed and "running" not in states.values()
    for least in (0, 1) if idle else (0,):
        for at in reversed(rungs):
            if at in best and in_top(reports, at, best[at][1], least, eta):
                return best[at][1]
    return None
