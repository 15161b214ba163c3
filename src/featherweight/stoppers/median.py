"""The median stopping rule (Golovin et al. 2017, "Google Vizier: a service for black-box
optimization", section 3.2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count, takewhile
from statistics import median

from ..errors import InputError
from .base import LEAST, Reports, Stopper, check_budgets, rung


@dataclass(frozen=True)
class Median(Stopper):
    """A trial stops for good at epoch s if its best score up to there is worse than the median,
    over the other trials that came to s, of the mean of their scores up to s.

    It tells its score after every `every` epochs, from min_budget (the grace period) on, below
    max_budget. Nothing stops before `trials` other trials have come as far. (Vizier takes the
    completed trials only; here those that run count too as soon as they are at s, or the first
    trials of a parallel study would all be spared.)
    """

    min_budget: float = 1
    max_budget: float | None = None
    every: float = 1
    trials: int = 4

    def __post_init__(self) -> None:
        check_budgets("median", self.min_budget, self.max_budget, 2)
        if not LEAST <= self.every < math.inf or self.trials < 1:
            raise InputError(
                "median needs steps and trials to compare",
                got=f"every={self.every}, trials={self.trials}",
                allowed=f"every >= {LEAST} (epochs), trials >= 1",
            )

    def rungs(self, trial: int, of: float) -> tuple[float, ...]:
        below = of if self.max_budget is None else min(of, self.max_budget)
        return tuple(
            takewhile(lambda budget: budget < below, (rung(self.min_budget + k * self.every) for k in count()))
        )

    def decide(self, reports: Reports, trial: int, step: float) -> bool:
        others = [told for t, told in reports.items() if t != trial and step in told]
        if len(others) < self.trials:
            return False
        averages = [_mean([v for at, v in told.items() if at <= step]) for told in others]
        own = [v for at, v in reports[trial].items() if at <= step and not math.isnan(v)]
        return min(own, default=math.inf) > median(averages)


def _mean(scores: list[float]) -> float:
    """Of the scores that are numbers; infinite if none is."""
    numbers = [v for v in scores if not math.isnan(v)]
    return sum(numbers) / len(numbers) if numbers else math.inf
