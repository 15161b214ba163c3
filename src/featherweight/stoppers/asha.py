"""ASHA: asynchronous successive halving (Li et al. 2020, "A system for massively parallel
hyperparameter tuning", arXiv:1810.05934)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ._rungs import in_top, ladder, promotable
from .base import Reports, States, Stopper, check_budgets

TYPES = ("promotion", "stopping")


@dataclass(frozen=True)
class Asha(Stopper):
    """One trial in `eta` goes on from each rung; rungs are at min_budget * eta^k epochs
    (k = 0, 1, ...), below max_budget.

    type "promotion" (Algorithm 2): a trial waits at every rung, and whenever a worker is free, the
    best one that is in the top 1/eta of its rung goes on, the highest rung first; if there is none,
    a new trial starts. "stopping": a trial that is not in the top 1/eta of those that came to the
    rung so far stops for good; the others go on without a wait. The first eta - 1 trials at a rung
    always go on then, because no share can be told of so few.
    """

    min_budget: float = 1
    max_budget: float | None = None
    eta: int = 3
    type: str = "promotion"

    def __post_init__(self) -> None:
        check_budgets("asha", self.min_budget, self.max_budget, self.eta)
        if self.type not in TYPES:
            raise InputError("asha has no such type", got=self.type, allowed=", ".join(TYPES))

    def rungs(self, trial: int, of: float) -> tuple[float, ...]:
        return ladder(self.min_budget, of if self.max_budget is None else min(of, self.max_budget), self.eta)

    def decide(self, reports: Reports, trial: int, step: float) -> bool:
        if self.type == "promotion":
            return True  # line 3: a job ends at its rung; `promote` may send the trial on at once
        there = sum(step in told for told in reports.values())
        return there >= self.eta and not in_top(reports, step, trial, 0, self.eta)

    def promote(self, reports: Reports, states: States, closed: bool = False) -> int | None:
        if self.type == "stopping":
            return None
        highest = max((max(told) for told in reports.values() if told), default=0)
        return promotable(reports, states, self.rungs(0, highest + 1), self.eta, closed)

    @property
    def final(self) -> bool:
        return self.type == "stopping"
