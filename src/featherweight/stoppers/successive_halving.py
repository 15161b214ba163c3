"""Successive halving (Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and
hyperparameter optimization", arXiv:1502.07943, section 3), its synchronous form, with 1/eta kept
instead of a half."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import InputError
from ._rungs import ladder, ranked
from .base import Reports, States, Stopper, check_budgets


@dataclass(frozen=True)
class SuccessiveHalving(Stopper):
    """`trials` trials (0 to trials - 1, the next as many, ...) run together to min_budget epochs;
    when the last of them has told its score, the best 1/eta (at least one) go on to eta times as
    many, and so on. What failed on the way to a rung is not counted there.

    Every rung waits for its slowest trial; `asha` does not.
    """

    min_budget: float = 1
    max_budget: float | None = None
    eta: int = 3
    trials: int = 9

    def __post_init__(self) -> None:
        check_budgets("successive halving", self.min_budget, self.max_budget, self.eta)
        if self.trials < 1:
            raise InputError(
                "successive halving needs trials to choose from", got=f"trials={self.trials}", allowed="trials >= 1"
            )

    def rungs(self, trial: int, of: float) -> tuple[float, ...]:
        return ladder(self.min_budget, of if self.max_budget is None else min(of, self.max_budget), self.eta)

    def decide(self, reports: Reports, trial: int, step: float) -> bool:
        return True

    def promote(self, reports: Reports, states: States, closed: bool = False) -> int | None:
        for group in sorted({t // self.trials for t, state in states.items() if state == "paused"}):
            members = [t for t in range(group * self.trials, (group + 1) * self.trials) if t in states]
            if len(members) == self.trials or closed:
                chosen = self._chosen({t: reports[t] for t in members if t in reports}, states, members)
                if chosen is not None:
                    return chosen
        return None

    def _chosen(self, reports: Reports, states: States, members: Collection[int]) -> int | None:
        """The first trial of a whole group, in order of rung and score,
        that is to go on and does not yet."""
        alive = set(members)  # S_k
        for at in self.rungs(0, max((max(told) for told in reports.values() if told), default=0) + 1):
            there = [t for t in ranked(reports, at) if t in alive]
            if any(t not in there and states[t] != "ended" for t in alive):
                return None  # the rung waits for them
            best = there[: max(1, len(there) // self.eta)]  # S_(k+1): the floor(|S_k| / eta) best
            for t in best:
                if states[t] == "paused" and max(reports[t]) == at:
                    return t
            alive = set(best)
        return None
