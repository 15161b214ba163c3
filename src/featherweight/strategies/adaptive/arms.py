"""What a portfolio reads of one history: a view of it for each arm, and an account of what the
arms' trials were worth.

Notation:

d_i  `dominators`      finished trials among the `REACH` before trial i that are as good as it, by
                       constrained domination
r_i  `1 / (1 + d)`     reward of trial i: 1 if it improves the front, 1/2 if one is as good...; 0 if
                       it failed or was stopped
g    `DISCOUNT`        a trial that is k trials old counts g^k
c_a                    mean seconds of arm a's trials, proposing included, over the mean of all,
                       rounded to a power of two
u_a  `usual`           mean of r_i over that of all arms, for arm a's trials and `PRIOR` more that
                       were worth the mean of all
q_a  `Account.credit`  mean reward of arm a's trials, discounted, and of `PRIOR` more that were
                       worth u_a; over c_a
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...digest import Digest
from ...records import History, Trial

REACH = 1000  # trials before a trial that it is compared with
WINDOW = 200  # trials that credit is earned in; an arm without any in it is judged anew
DISCOUNT = 0.98
# trials: so much the mean reward of all arms weighs against an arm's own, and that of all its
# trials against recent ones
PRIOR = 2.0
_TOLD = ("state", "values", "violation", "cost_s", "features", "propose_s", "reports")


@dataclass(frozen=True)
class Account:
    """Of one arm, lately: how many trials it proposed, how many of them have ended, and its credit:
    reward for cost, 1 being that of all."""

    tried: int
    ended: int
    credit: float


class Ledger(Digest):
    """All trials of a history as the arms see them, and as they are paid. It depends on the trials
    alone, not on the order in which they finished; a trial costs O(arms + `REACH`)."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.views = {name: History() for name in names}
        self.screened: list[int] = []  # trials of which a model's belief is noted
        self.beliefs: dict[int, float] = {}
        self.objectives = 0  # 0: none finished with values
        # [capacity, 1 + m]: violation, log of each objective; NaN while there are none
        self.rows = np.empty((0, 1))
        self.dominators = np.empty(0)
        self.arm = np.empty(0, dtype=int)  # -1: proposed by none of them
        self.cost_s, self.ended = np.empty(0), np.empty(0, dtype=bool)

    def begun(self, trial: Trial) -> None:
        if trial.number >= len(self.arm):
            self._grow(trial.number + 1)
        name = trial.note.get("arm")
        for arm, view in self.views.items():
            own = trial.note.get("note") if arm == name else None
            view.add(dataclasses.replace(trial, note=own if isinstance(own, dict) else {}, state="running"))
        self.arm[trial.number] = self.names.index(name) if name in self.names else -1
        belief = believed(trial)
        if belief is not None:
            self.screened.append(trial.number)
            self.beliefs[trial.number] = belief

    def told(self, trial: Trial) -> None:
        number = trial.number
        for view in self.views.values():
            for name in _TOLD:
                setattr(view[number], name, getattr(trial, name))
        self.ended[number] = trial.state != "running"
        self.cost_s[number] = trial.cost_s + trial.propose_s
        if trial.usable:
            self._rank(trial)

    resumed = told

    def _rank(self, trial: Trial) -> None:
        """Compares a finished trial with those around it, both ways:
        it may have finished after younger ones."""
        if not self.objectives:
            self.rows = np.full((len(self.arm), 1 + trial.objectives(0)), np.nan)
        self.objectives = trial.objectives(self.objectives)
        i, row = (
            trial.number,
            np.array([max(trial.violation, 0.0), *(math.log(max(v, 1e-12)) for v in trial.values or ())]),
        )
        start, end = max(0, i - REACH), min(self.read, i + REACH + 1)
        self.dominators[i] = as_good(self.rows[start:i], row).sum()
        self.dominators[i + 1 : end] += as_good(row, self.rows[i + 1 : end])
        self.rows[i] = row

    def _grow(self, n: int) -> None:
        more = max(n, 2 * len(self.arm)) - len(self.arm)
        self.rows = np.vstack([self.rows, np.full((more, self.rows.shape[1]), np.nan)])
        self.dominators, self.cost_s = (
            np.append(self.dominators, np.zeros(more)),
            np.append(self.cost_s, np.zeros(more)),
        )
        self.arm, self.ended = np.append(self.arm, np.full(more, -1)), np.append(self.ended, np.zeros(more, dtype=bool))

    def accounts(self) -> dict[str, Account]:
        """What each arm's trials were worth, among the last `WINDOW` of all, 1 being the mean."""
        n = self.read
        since = max(0, n - WINDOW)
        arm, cost = self.arm[since:n], self.cost_s[since:n]
        valued = ~np.isnan(self.rows[since:n, 0])
        reward = np.where(valued, 1.0 / (1.0 + self.dominators[since:n]), 0.0)
        paid = self.ended[since:n] & (arm >= 0)
        recent = DISCOUNT ** np.arange(n - since - 1, -1, -1.0)
        reward /= (float(reward[paid].mean()) if paid.any() else 0.0) or 1.0
        cost_overall = float(cost[paid].mean()) if paid.any() else 0.0
        out = {}
        for i, name in enumerate(self.names):
            mine = paid & (arm == i)
            usual = (PRIOR + float(reward[mine].sum())) / (PRIOR + int(mine.sum()))
            lately = (PRIOR * usual + float((recent * reward)[mine].sum())) / (PRIOR + float(recent[mine].sum()))
            price = _price(float(cost[mine].mean()), cost_overall) if mine.any() else 1.0
            out[name] = Account(int((arm == i).sum()), int(mine.sum()), lately / price)
        return out

    def trust(self, last: int, least: int) -> float | None:
        """How well a model foretold the last screened feasible trials: Spearman's rank correlation
        of what it believed before they ran and the geometric mean of the objectives, in [-1, 1];
        None with fewer than `least` of them, or if either side is constant."""
        from scipy.stats import rankdata

        numbers = [i for i in self.screened[-2 * last :] if self.rows[i, 0] <= 0][-last:]
        if len(numbers) < max(least, 2):
            return None
        sides = rankdata([self.beliefs[i] for i in numbers]), rankdata(self.rows[numbers, 1:].mean(1))
        if min(side.std() for side in sides) == 0:
            return None
        return float(np.corrcoef(*sides)[0, 1])


def as_good(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Is `a` as good as `b` or better, row by row? Rows are violation and objectives, [n, 1 + m]
    against [1 + m] either way; bool [n].

    Feasible before infeasible, infeasible ones by violation alone (constrained domination;
    Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002, section VI),
    except that equal is as good: a repeat of a value is no improvement. NaN is never.
    """
    va, vb = a[..., 0], b[..., 0]
    both = (va <= 0) & (vb <= 0) & (a[..., 1:] <= b[..., 1:]).all(-1)
    return np.asarray(both | ((vb > 0) & (va <= vb)))


def believed(trial: Trial) -> float | None:
    """What a model believed of a trial before it ran, as its arm noted."""
    why: Any = trial.note.get("why")
    value = why.get("believed") if isinstance(why, dict) else None
    return float(value) if isinstance(value, (int, float)) else None


def _price(mean: float, overall: float) -> float:
    """The mean cost of an arm over that of all, as a power of two: timings that waver a little
    change no decision. 1 where none is known."""
    return 2.0 ** round(math.log2(mean / overall)) if mean > 0 and overall > 0 else 1.0


def ledger(history: History, names: Sequence[str]) -> Ledger:
    """The ledger of a history as it is now."""
    return Ledger.of(history, tuple(names))
