"""What is believed of a space after some trials: forests of objectives, feasibility and cost, and
how they judge fillings.

Notation as in `_forest` and `_acquire`; n rows are the trials learnt from, z their objectives as
normal scores [n, m], less is better.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pareto import front
from .acquire import directions, hypervolume_gain, log_below, log_ei, normal_scores
from .forest import Forest
from .observed import STOPPED, VALUED, Observed

WINDOW = 400  # trials that a model is fitted to at most
_DIRECTIONS, _DRAWS, _FRONT = 64, 24, 60
_COSTS_DIFFER = 0.05  # standard deviation of log cost from which it counts


class Surrogate:
    """Fitted to the finished trials of numbers `rows`. `seed` fixes the trees, the directions and
    what the window leaves out."""

    def __init__(
        self, seen: Observed, rows: np.ndarray, seed: int, trees: int, min_leaf: int, extra: bool, cost_aware: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        self.ranked = ranking(seen, rows)  # best first
        rows = _window(self.ranked, rows, rng)
        valued = rows[seen.fate[rows] == VALUED]
        self.feasible = seen.violation[valued] <= 0
        self.values = seen.values[valued]  # [n, m]
        self.x = seen.x[valued]
        grow: dict[str, Any] = {"trees": trees, "min_leaf": min_leaf, "extra": extra}
        self._constrain(seen, rows, seed, grow)
        stopped = rows[seen.fate[rows] == STOPPED]
        x = np.vstack([self.x, seen.x[stopped]])
        self.z = np.stack([normal_scores(v) for v in self.values.T], axis=1)  # [n, m]
        worst = np.tile(self.z.max(0), (len(stopped), 1))  # what a stopped trial counts as
        self.targets = np.vstack([self.z, worst])
        self.forests = [Forest(x, z, seed + j, **grow) for j, z in enumerate(self.targets.T)]
        self.ways = directions(self.z.shape[1], _DIRECTIONS, rng)
        self.draws = rng.standard_normal((_DRAWS, self.z.shape[1]))
        self._aim()
        self.cost = self._cost_model(seen, rows, seed, grow) if cost_aware else None

    def _aim(self) -> None:
        """The incumbents: the front of the feasible trials in scores, thinned,
        and the corner beyond the worst trial."""
        among = self.z[self.feasible]
        self.reference = self.z.max(0) + 0.1
        kept = front([tuple(z) for z in among.tolist()]) if len(among) else []
        if len(kept) > _FRONT:
            kept = [kept[i] for i in np.linspace(0, len(kept) - 1, _FRONT).astype(int)]
        self.front = among[kept]  # [f, m]

    def _constrain(self, seen: Observed, rows: np.ndarray, seed: int, grow: dict[str, Any]) -> None:
        """A model of the violation's normal scores, unless all is feasible: a failed trial is worse
        than any that finished. What is feasible has the lowest score; the bound lies halfway to the
        next, so what breaks a lot is far from it and what breaks a little is near."""
        judged = rows[seen.fate[rows] != STOPPED]
        broken = np.nan_to_num(seen.violation[judged], nan=np.inf)
        self.violation: Forest | None = None
        self.bound = 0.0
        if (broken <= 0).all():
            return
        scores = normal_scores(broken)
        self.violation = Forest(seen.x[judged], scores, seed + 101, **grow)
        held = scores[broken <= 0]
        self.bound = float(scores.min() if not len(held) else (held[0] + scores[broken > 0].min()) / 2)

    def _log_chance(self, x: np.ndarray) -> np.ndarray:
        """log P(feasible) of rows [q, d], [q]; while nothing is feasible,
        log expected improvement of the violation."""
        if self.violation is None:
            return np.zeros(len(x))
        mean, var = self.violation.ask(x).moments()
        return log_below(mean, var, self.bound) if self.feasible.any() else log_ei(mean, var, self.bound)

    def _cost_model(self, seen: Observed, rows: np.ndarray, seed: int, grow: dict[str, Any]) -> Forest | None:
        """Of log seconds; None unless costs are known and differ."""
        timed = rows[seen.cost_s[rows] > 0]
        log_cost = np.log(seen.cost_s[timed])
        if len(timed) < 4 or log_cost.std() < _COSTS_DIFFER:
            return None
        return Forest(seen.x[timed], log_cost, seed + 103, **grow)

    def judge(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log acquisition [q] of rows [q, d], and the leaves of the first forest [T, q],
        by which near rows are told."""
        leaves = [forest.ask(x) for forest in self.forests]
        score = self._log_chance(x)
        if self.feasible.any():
            moments = [one.moments() for one in leaves]
            if len(moments) == 1:
                score = score + log_ei(*moments[0], float(self.front.min()))
            else:
                # where no draw gains, the better mean
                hope = np.exp(-np.mean([mean for mean, _ in moments], axis=0))
                score = score + np.log(self._gain(moments) + 1e-9 * hope)
        if self.cost is not None:
            score = score - self.cost.ask(x).mean.mean(0)
        return score, leaves[0].leaf

    def _gain(self, moments: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Expected gain of hypervolume, [q], by the same normal draws for all candidates;
        objectives are taken as independent."""
        drawn = [mean + np.sqrt(var) * z[:, None] for (mean, var), z in zip(moments, self.draws.T, strict=True)]
        return hypervolume_gain(np.stack(drawn, axis=-1), self.front, self.reference, self.ways)

    def expected_gain(self, x: np.ndarray) -> float:
        """Expected relative improvement of one row [1, d]: of the best value (one objective:
        E max(log best - log Y, 0), with leaf statistics of the logarithms), or of the hypervolume
        in scores; times the chance that it is feasible. 1 while nothing is feasible."""
        if not self.feasible.any():
            return 1.0
        chance = float(np.exp(self._log_chance(x))[0])
        if len(self.forests) > 1:
            nothing = np.empty((0, self.z.shape[1]))
            reached = hypervolume_gain(self.front[None], nothing, self.reference, self.ways)  # [f], each alone
            return chance * float(self._gain([forest.ask(x).moments() for forest in self.forests])[0] / reached.max())
        logs = np.log(np.maximum(self.values[:, 0], 1e-12))
        stopped = np.full(len(self.targets) - len(logs), logs.max())
        mean, var = self.forests[0].ask(x, np.append(logs, stopped)).moments()
        return chance * float(np.exp(log_ei(mean, var, float(logs[self.feasible].min())))[0])


def ranking(seen: Observed, rows: np.ndarray) -> np.ndarray:
    """The trials of `rows` with values, best first: feasible ones of the front, other feasible ones
    by mean log, then by violation."""
    valued = rows[seen.fate[rows] == VALUED]
    values, violation = seen.values[valued], seen.violation[valued]
    mean = np.log(np.maximum(values, 1e-12)).mean(1)
    behind = np.ones(len(valued))
    if values.shape[1] > 1:
        free = np.flatnonzero(violation <= 0)
        behind[free[_front(values[free], mean[free])]] = 0
    return np.asarray(valued[np.lexsort((valued, mean, behind, violation))])


def _front(values: np.ndarray, mean: np.ndarray) -> list[int]:
    """Indices of the non-dominated rows. What the rows of least mean dominate goes first, so that
    few are left to compare one by one."""
    left = np.arange(len(values))
    for i in np.argsort(mean, kind="stable")[:50]:
        worse = (values[left] >= values[i]).all(1) & (values[left] > values[i]).any(1)
        left = left[~worse]
    return [int(left[i]) for i in front([tuple(v) for v in values[left].tolist()])]


def _window(ranked: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most `WINDOW` of the rows, ascending: a quarter the best, three eighths the latest,
    the rest at random."""
    if len(rows) <= WINDOW:
        return rows
    sure = np.union1d(ranked[: WINDOW // 4], rows[-WINDOW * 3 // 8 :])
    others = np.setdiff1d(rows, sure)
    return np.union1d(sure, rng.choice(others, WINDOW - len(sure), replace=False))
