"""How much of a study's time is gone, and how much has to be kept for its end.
Seconds throughout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..limits import Budget
from .state import StudyState

LOOKS = 8  # at the test split, that time is kept for
END_SHARE = 0.25  # of the minutes, at most, is kept for certification and reports
_SAVED = 2e7  # bytes of a model that are saved, loaded again and hashed in a second
_LONGEST = 7 * 86400.0  # of one job
_BEGAN: ContextVar[float | None] = ContextVar("began", default=None)


@contextmanager
def since(began: float) -> Iterator[None]:
    """What is called inside counts its time from here, a reading of `time.monotonic`: the command
    line loads the task before it calls."""
    token = _BEGAN.set(began)
    try:
        yield
    finally:
        _BEGAN.reset(token)


def begun() -> float:
    """When the call began that runs now: now, if nobody said so (`since`)."""
    said = _BEGAN.get()
    return time.monotonic() if said is None else said


class Clock:
    """state: the study's, which knows what earlier runs took; polish: the share of the minutes that
    is kept for the finalists; now: a monotonic clock (a test's own moves as it likes); began: when
    the call began, by that clock."""

    def __init__(
        self,
        state: StudyState,
        budget: Budget,
        polish: float = 0.0,
        now: Callable[[], float] | None = None,
        began: float | None = None,
    ) -> None:
        self.state, self.budget, self.polish, self._now = state, budget, polish, now or time.monotonic
        self._started = self._now() if began is None else began
        self._spent_before = state.spent_s
        self.start_s = 0.0  # the longest that a worker took to be ready, in this run

    def spent(self) -> float:
        """Time that the study has taken, earlier runs of it included."""
        return self._spent_before + self.this_run()

    def this_run(self) -> float:
        """Time since the call began."""
        return self._now() - self._started

    def remaining(self) -> float:
        """Time until the budget's minutes are up; without minutes there is no end."""
        return float("inf") if self.budget.minutes is None else self.budget.minutes * 60 - self.spent()

    def ending(self) -> float:
        """Time to keep for certificates, the last races and the report: predicted from what the
        baseline's measurement took, which ran the same way."""
        if self.budget.minutes is None:
            return 0.0
        # while there is nothing but the original, a first trial is all that can be looked at
        others = any(e.trial is not None or self.state.takeable(e) for e in self.state.entries())
        looks = LOOKS + 4 if others or "baseline" not in self.state.baselines else 2
        predicted = 6.0 + 2.0 * looks
        if "baseline" in self.state.baselines:
            base = self.state.baseline
            per_sample = base.latency_ms.median / 1e3
            predicted = 8.0 + looks * (1.2 + per_sample * self.state.tested)
            # a worker that was stopped at a trial starts anew; the best is saved, loaded and hashed
            predicted += self.start_s + base.size_bytes / _SAVED
        return float(min(predicted, END_SHARE * self.budget.minutes * 60))

    def for_finalists(self) -> float:
        """Time that is not kept for the end."""
        return self.remaining() - self.ending()

    def left(self) -> float:
        """Time for trials: what is not kept for the finalists and the end. While no trial has come
        to its end there is nobody to keep time for."""
        kept = self.polish if any(t.state == "complete" for t in self.state.trials) else 0.0
        return self.for_finalists() - (kept * self.budget.minutes * 60 if self.budget.minutes is not None else 0.0)

    def release(self) -> bool:
        """Give what is kept for the finalists to trials from now on. Was anything kept, and is time
        left?"""
        kept, self.polish = self.polish, 0.0
        return kept > 0 and self.budget.minutes is not None and not self.out_of_time()

    def out_of_time(self) -> bool:
        """Is there no time for anything but the end?"""
        return self.left() < 1.0

    def timeout(self, finalist: bool = False) -> float:
        """Time that the next job may take: of a trial, or of a finalist's longer recovery."""
        own = self.budget.trial_minutes * 60 if self.budget.trial_minutes else float("inf")
        if "baseline" in self.state.baselines and own == float("inf"):
            own = 900 + 20 * self.state.baseline.seconds
        left = self.for_finalists() if finalist else self.left()
        return max(1.0, min(own, left, _LONGEST))
