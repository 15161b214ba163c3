"""How much of an objective each hole explains over the whole space: functional analysis of variance
on bagged tree ensembles.

n, q, B  `Bags`          finished trials, fillings drawn from the space, bootstrap samples (bags)
x, y     `x`, `y`        rows of an encoding [n, d], an objective [n]
f_b      `predicted[b]`  prediction of the ensemble grown on bag b [B, q]
V_h / V  `share`         part of the variance of f_b over the space that the hole h alone explains

Source: Hutter, Hoos and Leyton-Brown, "An efficient approach for assessing hyperparameter
importance", ICML 2014: eq. 1-5, V = sum over subsets U of V_U, importance of h is V_{h} / V.
The marginals are taken over fillings drawn as `Space.sample` draws them instead of over the trees'
boxes, so that conditional holes are drawn as they occur: h explains what varies with its value
among the fillings in which it is alive; what its being alive explains belongs to the hole that
decides it. What no hole explains alone is left to interactions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..seeding import derive, generator
from ..space import Domain, Filling, Order, Space
from ..space.encode import DEAD, Encoding
from ..surrogate.forest import Forest

MIN_TRIALS = 10  # fewer tell nothing about a space
EXPLAINED = 0.1  # of an out-of-bag R2: below it no importance is claimed
_MAX_ROWS = 1000  # trials learnt from; more are thinned evenly
_BAGS, _TREES, _MIN_LEAF = 20, 8, 2
_SAMPLE = 2048  # q
_GROUPS = 16  # values of a hole that are told apart; more are put into as many groups of equal size


@dataclass(frozen=True)
class Share:
    """A hole's part of the variance, 0 to 1, with its 90 % bootstrap interval over the trials."""

    path: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """Of one objective. r2: out-of-bag, of the ensemble on trials that it did not see (None if the
    objective did not vary); n: trials;
    shares: largest first, () where the ensemble explains too little to claim any; rest: the part
    left to interactions."""

    objective: str
    n: int
    r2: float | None
    shares: tuple[Share, ...] = ()
    rest: float = 0.0


class Bags:
    """Ensembles, each grown on a bootstrap sample of the trials (Breiman,
    "Bagging predictors", 1996)."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        """x: [n, d], y: [n], both finite; seed: of the samples and the trees."""
        rng = generator(seed, "bags")
        self.drawn = [rng.integers(len(y), size=len(y)) for _ in range(_BAGS)]
        self.forests = [
            Forest(x[d], y[d], derive(seed, "bag", b), trees=_TREES, min_leaf=_MIN_LEAF)
            for b, d in enumerate(self.drawn)
        ]
        self.r2 = self._out_of_bag(x, np.asarray(y, dtype=float))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """[B, q] for rows [q, d]."""
        return np.stack([f.ask(x).mean.mean(0) for f in self.forests])

    def _out_of_bag(self, x: np.ndarray, y: np.ndarray) -> float | None:
        """1 - residual / total sum of squares, each trial predicted by the bags
        that do not hold it."""
        unseen = np.stack([~np.isin(np.arange(len(y)), d) for d in self.drawn])  # [B, n]
        known = unseen.any(0)
        total = float(((y - y.mean()) ** 2)[known].sum())
        if total <= 1e-18 * max(1.0, float((y * y).sum())):
            return None
        predicted = (self.predict(x) * unseen).sum(0)[known] / unseen.sum(0)[known]
        return 1.0 - float(((y[known] - predicted) ** 2).sum()) / total


def floor(n: int) -> float:
    """The out-of-bag R2 that n trials need before an importance is claimed:
    by chance it comes near 1 / sqrt(n)."""
    return max(EXPLAINED, 1.0 / math.sqrt(n))


def thinned(fillings: Sequence[Filling], y: Sequence[float]) -> tuple[list[Filling], list[float]]:
    """At most about _MAX_ROWS of the trials, evenly."""
    every = -(-len(y) // _MAX_ROWS) if y else 1
    return list(fillings[::every]), list(y[::every])


def importance(space: Space, fillings: Sequence[Filling], y: Sequence[float], objective: str, seed: int) -> Importance:
    """Of the finished trials' `fillings` [n] of `space` and finite objectives `y` [n]:
    n >= MIN_TRIALS, or there are no shares."""
    fillings, y = thinned(fillings, y)
    if len(y) < MIN_TRIALS or not space.holes:
        return Importance(objective, len(y), None)
    encoding = Encoding(space)
    bags = Bags(encoding.rows(fillings), np.asarray(y, dtype=float), derive(seed, "importance", objective))
    if bags.r2 is None or bags.r2 < floor(len(y)):
        return Importance(objective, len(y), bags.r2)
    rng = generator(seed, "importance sample")
    sample = [space.sample(rng) for _ in range(_SAMPLE)]
    x = encoding.rows(sample)
    predicted = bags.predict(x)
    shares = []
    for hole in space.holes:
        labels = groups(hole.path, hole.domain, sample, x[:, encoding.start[hole.path]])
        found = main_effect(predicted, labels)
        low, high = np.quantile(found, (0.05, 0.95))
        shares.append(Share(hole.path, float(found.mean()), float(low), float(high)))
    shares.sort(key=lambda s: -s.share)
    return Importance(objective, len(y), bags.r2, tuple(shares), max(0.0, 1.0 - sum(s.share for s in shares)))


def groups(path: str, domain: Domain, sample: Sequence[Filling], place: np.ndarray) -> np.ndarray:
    """[q] the group of each filling's value, -1 where the hole is not alive. place: [q] the value's
    place in its range, of numbers."""
    values: list[Hashable] = [_name(domain, f[path]) if path in f else None for f in sample]
    known = {v: i for i, v in enumerate(dict.fromkeys(v for v in values if v is not None))}
    if len(known) <= _GROUPS or not all(isinstance(v[1], (int, float)) for v in known):  # type: ignore[index]
        return np.array([-1 if v is None else known[v] for v in values])
    alive = place != DEAD
    cuts = np.quantile(place[alive], np.linspace(0, 1, _GROUPS + 1)[1:-1])
    return np.where(alive, np.searchsorted(cuts, place, side="right"), -1)


def _name(domain: Domain, value: Any) -> tuple[str, Any]:
    """1, 1.0 and True are different; an order of many items counts by its first two, because all
    orders are too many to compare."""
    if isinstance(domain, Order) and len(domain.names) > 3:
        return "order", ">".join(str(value).split(">")[:2])
    return type(value).__name__, value


def main_effect(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[B] V_h / V: the variance between the groups `labels` [q] (-1: left out) of `predicted`
    [B, q], as a share of all variance.

    What finite groups show by chance, (groups - 1) times the variance within, is taken off (the
    ANOVA estimate of a variance component).
    """
    total = ((predicted - predicted.mean(1, keepdims=True)) ** 2).sum(1)
    alive = labels >= 0
    kept, at = predicted[:, alive], labels[alive]
    names, at = np.unique(at, return_inverse=True)
    if len(names) < 2:
        return np.zeros(len(predicted))
    count = np.bincount(at)
    means = np.stack([np.bincount(at, weights=row) / count for row in kept])  # [B, groups]
    between = (count * (means - kept.mean(1, keepdims=True)) ** 2).sum(1)
    within = ((kept - means[:, at]) ** 2).sum(1) / max(len(at) - len(names), 1)
    found = np.maximum(between - (len(names) - 1) * within, 0.0)
    return np.asarray(np.divide(found, total, out=np.zeros_like(found), where=total > 0))
