"""Hyperband (Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter
optimization", arXiv:1603.06560, Algorithm 1), asynchronous: every bracket halves by ASHA's rule
(arXiv:1810.05934, section 3.2)."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from ..errors import InputError
from ._rungs import promotable
from .base import Reports, States, Stopper, check_budgets, rung


@dataclass(frozen=True)
class Hyperband(Stopper):
    """Several ladders of rungs side by side, from "stop early and often" (bracket s_max) to
    "never stop" (bracket 0).

    A trial's bracket follows from its number: the first n(s_max) trials belong to bracket s_max,
    the next n(s_max - 1) to the one below, ..., the last n(0) to bracket 0, and so on from the
    start. max_budget (R) is the full training in epochs; None cannot be decided here, because the
    brackets depend on it (a study puts in the most epochs that its space allows).
    """

    min_budget: float = 1
    max_budget: float | None = None
    eta: int = 3

    def __post_init__(self) -> None:
        check_budgets("hyperband", self.min_budget, self.max_budget, self.eta)

    @property
    def brackets(self) -> tuple[tuple[int, int, tuple[float, ...]], ...]:
        """(s, n, rungs below R) of each bracket, in the order of Algorithm 1: s_max, ..., 0.
        InputError without a max_budget."""
        if self.max_budget is None:
            raise InputError(
                "hyperband's brackets depend on the full budget",
                got="max_budget=None",
                fix="set max_budget to the epochs of a whole run",
            )
        big, s_max = self.max_budget, 0  # R
        while big / self.eta ** (s_max + 1) >= self.min_budget:
            s_max += 1  # floor(log_eta(R / r)), line 1
        out = []
        for s in range(s_max, -1, -1):
            # ceil(B / R * eta^s / (s + 1)), B = (s_max + 1) R, line 3
            n = -(-(s_max + 1) * self.eta**s // (s + 1))
            # r_i = R eta^-(s - i), lines 3 and 5
            out.append((s, n, tuple(self._whole(big / self.eta**i) for i in range(s, 0, -1))))
        return tuple(out)

    def _whole(self, budget: float) -> float:
        """Whole epochs where the least budget is whole."""
        return math.floor(budget) if self.min_budget == int(self.min_budget) else rung(budget)

    def bracket(self, trial: int) -> int:
        """The place of the trial's bracket in `brackets`."""
        ends = list(accumulate(n for _, n, _ in self.brackets))
        return bisect_right(ends, trial % ends[-1])

    def rungs(self, trial: int, of: float) -> tuple[float, ...]:
        return tuple(r for r in self.brackets[self.bracket(trial)][2] if r < of)

    def decide(self, reports: Reports, trial: int, step: float) -> bool:
        return True  # as in ASHA, a job ends at its rung

    def promote(self, reports: Reports, states: States, closed: bool = False) -> int | None:
        brackets, of = self.brackets, {t: self.bracket(t) for t in states}
        for i, (_, _, rungs) in enumerate(brackets):
            told = {t: r for t, r in reports.items() if of.get(t) == i}
            found = promotable(told, {t: s for t, s in states.items() if of[t] == i}, rungs, self.eta, closed)
            if found is not None:
                return found
        return None
