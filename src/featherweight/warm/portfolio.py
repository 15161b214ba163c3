"""Warm start: what a user guesses, and what earlier studies found, told to a strategy.

Notation: s a study, c a filling, r_s(c) in [0, 1] its rank within the study (0: the best), m trials
of a study. Fillings of different tasks are compared by ranks alone, because their objectives have
different scales.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..records import Trial
from ..space import Filling, Space
from ..space.encode import Encoding
from ..space.space import key
from ..space.vary import middle, mutated
from ..strategies.base import Strategy
from .earlier import Earlier, imported
from .guess import Guess
from .strategy import Warm

# fillings of earlier studies that are tried first; values of a hole that a prior keeps
_FIRST, _KEPT = 5, 50


def warmed(
    inner: Strategy,
    space: Space,
    guesses: Sequence[Guess],
    earlier: Sequence[Earlier],
    rng: np.random.Generator,
    prior_weight: float = 0.0,
) -> Strategy:
    """`inner` with a warm start: guesses and at most 5 first fillings from earlier studies; `inner`
    itself where there is nothing to tell.

    prior_weight: how many trials the distribution of other tasks' good values (`prior`) is worth
    beyond the first fillings. On NAS-Bench-201 (from two data sets to the third, 10 seeds) 5 and 15
    were no better than 0 in the mean, for random search, greedy and TPE."""
    if not guesses and not earlier:
        return inner
    others = [e for e in earlier if not e.same_task]
    return Warm(
        inner,
        starts=tuple(key(f) for f in starting(space, guesses, earlier, len(guesses) + _FIRST, rng)),
        guesses=tuple((key(g.checked(space)), float(g.weight)) for g in guesses),
        prior=json.dumps(prior(space, others), sort_keys=True) if prior_weight else "{}",
        prior_weight=prior_weight if others else 0.0,
        earlier=tuple(
            json.dumps(
                {"filling": t.filling, "values": t.values, "violation": t.violation, "note": t.note}, sort_keys=True
            )
            for t in imported(space, [e for e in earlier if e.same_task])
        ),
    )


def starting(
    space: Space, guesses: Sequence[Guess], earlier: Sequence[Earlier], n: int, rng: np.random.Generator
) -> list[Filling]:
    """The first `n` fillings to try, or as many as there are: guesses by weight, completed by the
    middles of the other holes; then the best of earlier studies of the same task; then a portfolio
    from other tasks. None twice, none that the space refuses."""
    found: dict[str, Filling] = {}
    for guess in sorted(guesses, key=lambda g: -g.weight):
        values = guess.checked(space)
        filling = space.walk(lambda path, domain: values[path] if path in values else middle(domain))  # noqa: B023 (used at once)
        for _ in range(50):
            if space.refused(filling) is None:
                found.setdefault(key(filling), filling)
                break
            filling = space.complete({**mutated(space, filling, rng), **values}, rng)
    same = sorted(
        (pair for e in earlier if e.same_task for pair in e.ranked(space)),
        key=lambda pair: (pair[1].score_key, key(pair[1].filling)),
    )
    for _, trial in same:
        if len(found) >= n:
            break
        if space.refused(trial.filling) is None:
            found.setdefault(key(trial.filling), trial.filling)
    others = [e for e in earlier if not e.same_task]
    if others and len(found) < n:
        for filling in portfolio(space, others, n):
            found.setdefault(key(filling), filling)
    return list(found.values())[:n]


def portfolio(space: Space, earlier: Sequence[Earlier], n: int, candidates: int = 50) -> list[Filling]:
    """Up to `n` fillings that complement each other: greedily, c that most reduces the mean over
    studies of the best rank in the portfolio, sum_s min_{c in P} r_s(c) (Feurer et al. 2022,
    "Auto-Sklearn 2.0", arXiv:2007.04074, Algorithm 1; the gain is submodular, so greedy is within
    1 - 1/e). Of equal ones the one with the least mean rank.

    Candidates are each study's best; the rank that a study did not measure is predicted, by a tree
    ensemble over fillings and features (as the surrogate of Wistuba et al. 2015, "Learning
    hyperparameter optimization initializations")."""
    ranked = [e.ranked(space) for e in earlier]
    pool: dict[str, Filling] = {}
    for study in ranked:
        for _, trial in study[:candidates]:
            if space.refused(trial.filling) is None:
                pool.setdefault(key(trial.filling), trial.filling)
    fillings = list(pool.values())
    if not fillings:
        return []
    # [studies, candidates]
    ranks = np.stack([_predicted(space, study, fillings) for study in ranked])
    best, out = np.ones(len(ranked)), list[int]()
    while len(out) < min(n, len(fillings)):
        after = np.minimum(ranks, best[:, None]).mean(0)
        after[out] = math.inf
        pick = int(np.lexsort((ranks.mean(0), np.round(after, 12)))[0])
        best = np.minimum(best, ranks[:, pick])
        out.append(pick)
    return [fillings[i] for i in out]


def prior(space: Space, earlier: Sequence[Earlier]) -> dict[str, list[list[Any]]]:
    """{path: [[value, weight], ...]}: how often each value stood in the better half of the trials
    that had the hole, weighted by rank.

    The i-th best of m trials has the weight max(0, ln((m + 1) / 2) - ln i), normalised to sum 1 in
    a study (the recombination weights of CMA-ES: Hansen 2016, arXiv:1604.00772, eq. 49).
    The heaviest values of each hole are kept."""
    mass: dict[str, dict[str, float]] = {}
    for study in earlier:
        trials = [t for _, t in study.ranked(space)]
        for weight, trial in zip(_weights(len(trials)), trials, strict=True):
            for path, value in trial.filling.items():
                if weight > 0:
                    seen = mass.setdefault(path, {})
                    seen[json.dumps(value)] = seen.get(json.dumps(value), 0.0) + weight / len(earlier)
    heaviest = {path: sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:_KEPT] for path, seen in mass.items()}
    return {path: [[json.loads(value), weight] for value, weight in items] for path, items in sorted(heaviest.items())}


def credits(space: Space, earlier: Sequence[Earlier], name: str = "arm") -> dict[str, float]:
    """{strategy: share}: what each strategy named in the trials' notes under `name` earned per
    second, summing to 1; {} if none is named.

    A trial earns its rank's weight (see `prior`); seconds are those of its trials and of proposing
    them, as shares of the study's (equal for all trials where no time was kept)."""
    gain: dict[str, float] = {}
    for study in earlier:
        trials = [t for _, t in study.ranked(space)]
        spent = [t.cost_s + t.propose_s for t in trials]
        if sum(spent) <= 0:
            spent = [1.0] * len(trials)
        earned: dict[str, list[float]] = {}
        for weight, seconds, trial in zip(_weights(len(trials)), spent, trials, strict=True):
            if name in trial.note:
                account = earned.setdefault(str(trial.note[name]), [0.0, 0.0])
                account[0] += weight
                account[1] += seconds / sum(spent)
        for arm, (won, cost) in earned.items():
            gain[arm] = gain.get(arm, 0.0) + won / max(cost, 1.0 / len(trials))
    return {arm: g / sum(gain.values()) for arm, g in sorted(gain.items())} if sum(gain.values()) > 0 else {}


def _weights(m: int) -> list[float]:
    raw = [max(0.0, math.log((m + 1) / 2) - math.log(i)) for i in range(1, m + 1)]
    return [w / sum(raw) for w in raw] if sum(raw) > 0 else [1.0 / m] * m


def _predicted(space: Space, study: Sequence[tuple[float, Trial]], fillings: Sequence[Filling]) -> np.ndarray:
    """r_s of each filling: as measured, else as predicted, [fillings]."""
    from sklearn.ensemble import ExtraTreesRegressor

    known = {key(t.filling): r for r, t in study}
    rows = _rows(space, [*(t.filling for _, t in study), *fillings])
    trees = ExtraTreesRegressor(100, random_state=0).fit(rows[: len(study)], [r for r, _ in study])
    guessed = trees.predict(rows[len(study) :])
    return np.array([known.get(key(f), g) for f, g in zip(fillings, guessed, strict=True)])


def _rows(space: Space, fillings: Sequence[Filling]) -> np.ndarray:
    """[fillings, columns]: the encoding, and log(1 + feature) of the features that all have."""
    known = [space.features(f) for f in fillings]
    names = sorted(set(known[0]).intersection(*known))
    features = np.array([[math.log1p(max(k[name], 0.0)) for name in names] for k in known]).reshape(
        len(fillings), len(names)
    )
    # a column of zeros: a space may have no holes
    return np.hstack([Encoding(space).rows(fillings), features, np.zeros((len(fillings), 1))])
