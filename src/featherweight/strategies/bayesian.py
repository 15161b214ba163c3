"""Bayesian search with a forest of trees: expected improvement, in hypervolume, for the predicted
cost, within constraints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..records import History
from ..seeding import derive
from ..space import Filling, Space
from ..space.space import key
from ..space.vary import centre
from ..surrogate.forest import same_leaf
from ..surrogate.model import Surrogate
from ..surrogate.observed import VALUED, Observed, observed
from ..surrogate.pool import Pool, draw
from .base import Fresh, Proposal, Strategy

_OFTEN = 100  # a model serves until the history has grown by a share of 1 / _OFTEN
_PARENTS = 8  # best trials whose changes are candidates, at least
_NEIGHBOURHOOD = 64  # pending trials, the latest, that candidates keep away from


@dataclass(frozen=True)
class Bayesian(Strategy):
    """Sequential model-based search with a forest of trees, on conditional and mixed spaces
    (Hutter, Hoos and Leyton-Brown, "Sequential model-based optimization for general algorithm
    configuration", 2011).

    The trees see the filling, sums over holes alike and the static features (`space.features`), and
    learn each objective's normal scores. Of changes of the best trials, random fillings and the
    neighbours of what looks best, the one is proposed whose expected improvement (of hypervolume,
    for several objectives) is greatest, times the chance that it is feasible (a model of its own,
    failures included), and divided by its predicted cost if `cost_aware` and trials differ in cost.
    Candidates keep away from running trials by the share of trees that put both into one leaf
    (local penalisation, as Gonzalez et al., "Batch Bayesian optimization via local penalization",
    2016, arXiv 1505.08052, with the forest's kernel). Notes: `ei`, the expected relative
    improvement of the proposal.

    A model serves several proposals once the history is long, and sees at most 400 of its trials:
    the best, the latest, and others.

    startup: trials before the model takes over, the first in the middle of the space, the others at
    random; epsilon: share of random ones afterwards; trees, min_leaf: of each forest; extra: trees
    with random thresholds on all rows, otherwise with the best thresholds on bootstrap samples;
    candidates: how many the model judges before it climbs from the best, for `rounds` rounds.
    """

    expects = True

    startup: int = 8
    epsilon: float = 0.05
    cost_aware: bool = True
    trees: int = 50
    min_leaf: int = 1
    extra: bool = False
    candidates: int = 200
    rounds: int = 3

    def __post_init__(self) -> None:
        whole = (self.trees, self.min_leaf, self.candidates, self.rounds + 1)
        if self.startup < 2 or min(whole) < 1 or not 0 <= self.epsilon <= 1:
            raise InputError(
                "bayesian cannot work with these settings",
                got=f"startup={self.startup}, epsilon={self.epsilon}, trees={self.trees}, min_leaf={self.min_leaf}, "
                f"candidates={self.candidates}, rounds={self.rounds}",
                allowed="startup >= 2, epsilon in [0, 1], trees, min_leaf and candidates >= 1, rounds >= 0",
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes hold `ei` where the model chose."""
        seen, fresh = observed(space, history), Fresh(space, history)
        belief = self._belief(seen, history) if n > 0 else None
        out: list[Proposal] = []
        for _ in range(n):
            proposal = None
            if belief is not None and rng.random() >= self.epsilon:
                proposal = belief.choose(fresh, seen, [p.filling for p in out])
            if proposal is None:
                middle = centre(space) if len(history) + len(out) == 0 else None
                filling = middle if middle is not None and middle in fresh else fresh.sample(rng)
                if filling is None:
                    break
                proposal = fresh.take(filling)
            out.append(proposal)
        return out

    def _belief(self, seen: Observed, history: History) -> _Belief | None:
        """The model of the trials so far, kept while these are the same;
        None while there are too few."""
        below = _horizon(seen)
        rows = seen.settled(below)
        if len(rows) < self.startup or (seen.fate[rows] == VALUED).sum() < 2:
            return None
        mark = (self, below, len(rows), int(rows.sum()))
        return seen.kept("bayesian", mark, lambda: _Belief(self, seen, history, rows, below))


def _horizon(seen: Observed) -> int:
    """The model learns from the finished trials below this number: a function of which trials run,
    not of when the others finished.

    Long histories keep a model for a while, so the horizon moves in steps; it stays below the young
    running trials, whose end would move it back and forth, and passes by old ones that hang.
    """
    step = max(1, seen.read // _OFTEN) if seen.read >= 2 * _OFTEN else 1
    if step == 1:
        return seen.read
    young = [i for i in seen.running if i >= seen.read - step - 4 * len(seen.running)]
    return min([seen.read, *young]) // step * step


class _Belief:
    """A fitted model and the candidates that it has judged."""

    def __init__(self, settings: Bayesian, seen: Observed, history: History, rows: np.ndarray, below: int) -> None:
        space = seen.space
        seed = derive(0, "bayesian", below, len(rows), key(history[int(rows[-1])].filling)) % 2**31
        rng = np.random.default_rng(seed)
        self.model = Surrogate(seen, rows, seed, settings.trees, settings.min_leaf, settings.extra, settings.cost_aware)
        known = {key(history[i].filling) for i in range(below)} if below < 1000 else set()
        step = below // _OFTEN
        parents = [history[int(i)].filling for i in self.model.ranked[: max(_PARENTS, step)]]
        leaves: list[np.ndarray] = []

        def judge(fillings: list[Filling]) -> np.ndarray:
            scores, leaf = self.model.judge(seen.description.rows(fillings))
            leaves.append(leaf)
            return scores

        self.pool = Pool(judge, known.__contains__)
        count = settings.candidates + 4 * step
        self.pool.extend(draw(space, parents, count - count // 4, count // 4, rng))
        self.pool.climb(space, settings.rounds, rng)
        self.leaf = np.concatenate(leaves, axis=1) if leaves else np.empty((settings.trees, 0))  # [T, q]

    def choose(self, fresh: Fresh, seen: Observed, batch: list[Filling]) -> Proposal | None:
        """The best candidate that is fresh, away from what runs and from `batch`;
        None if none is left."""
        if not self.pool.fillings:
            return None
        scores = self.pool.scores
        away = seen.x[seen.running[-_NEIGHBOURHOOD:]]
        if batch:
            away = np.vstack([away, seen.description.rows(batch)])
        if len(away):
            shared = same_leaf(self.leaf, self.model.forests[0].ask(away).leaf)
            scores = scores + np.log(1.0 - 0.99 * shared).sum(1)
        for i in np.argsort(-scores, kind="stable"):
            filling = self.pool.fillings[i]
            if filling in fresh:
                gain = self.model.expected_gain(seen.description.rows([filling]))
                return fresh.take(filling, {"ei": float(f"{gain:.6g}")})
        return None
