"""Gradient search: a distribution over fillings climbs the natural gradient of what trials told.
From a supernet's ranking, if there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...digest import Digest
from ...errors import InputError
from ...records import History, Trial
from ...seeding import generator
from ...space import Space
from ..base import Fresh, Proposal, Strategy
from ..shared.ranked import check_ranked, guides, outcomes
from .policy import Beliefs, Policy

# draws a proposal; trials that utilities compare with; generations behind a running
# trial that are read
_TRIES, _MEMORY, _TAIL = 40, 30, 50
# generations: one to two strides are read, and of what is before the best trials
_STRIDE, _BEST = 250, 10


@dataclass(frozen=True)
class Gradient(Strategy):
    """Stochastic natural gradient over all holes (ASNG, Akimoto et al. 2019, arXiv:1905.08537;
    NES for numbers, with Adam).

    Maximises the expected utility E[u] of a trial under independent distributions of the holes:
    u is its rank among the latest trials, feasible before infeasible, then by the weighted mean of
    log(objective): only ranks count, not scales. Several objectives: each generation draws its
    weights from the unit simplex, so that the front is climbed at many places. Failed and stopped
    trials rank last.

    ranked: JSON texts of fillings, best first, as `featherweight.train.relax.run_relax` gives them
    back from a supernet (DARTS or its Gumbel variant; who drives the strategy runs that before the
    search). They are proposed first, to be trained for real; the distribution starts with half of
    its mass on them. Holes that they do not fill take their middles.
    generation: trials of one step; lr: of Adam, in units of a number's range; delta: the step
    length of ASNG in the Fisher norm, at first.
    """

    ranked: tuple[str, ...] = ()
    generation: int = 2
    lr: float = 0.05
    delta: float = 1.0

    def __post_init__(self) -> None:
        check_ranked(self.ranked)
        if self.generation < 1 or not 0 < self.lr <= 1 or not 0 < self.delta < math.inf:
            raise InputError(
                "gradient needs a generation of at least 1, 0 < lr <= 1 and delta > 0",
                got=f"{self.generation}, lr={self.lr}, delta={self.delta}",
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes: {"rank"} of those that a supernet ranked."""
        fresh, out = Fresh(space, history), list[Proposal]()
        fold = _Fold.of(history, self, space=space)
        for rank, filling in enumerate(fold.guides):
            if len(out) < n and filling in fresh:
                out.append(fresh.take(filling, {"rank": rank}))
        beliefs = fold.now(history) if len(out) < n else None
        while beliefs is not None and len(out) < n:
            # a narrow distribution repeats itself
            draws = (fold.policy.draw(beliefs, rng, loose=i / _TRIES) for i in range(_TRIES))
            filling_or_none = next((f for f in draws if f in fresh), None) or fresh.sample(rng)
            if filling_or_none is None:
                break
            out.append(fresh.take(filling_or_none))
        return out


class _Fold(Digest):
    """The beliefs after a history, generation by generation in order of number, from generation
    `base` on. What is before the first generation that has a running trial is kept. Of what lies
    before `base` the best trials are known, as guides. Long histories are read from one of their
    last generations on, which moves in strides."""

    def __init__(self, space: Space, strategy: Gradient) -> None:
        super().__init__()
        self.size, self.base, self.done = strategy.generation, 0, 0
        self.policy = Policy(space, strategy.lr, strategy.delta)
        self.guides = guides(space, strategy.ranked)
        self.beliefs: Beliefs | None = None  # after `done` generations; None: to be read anew
        # of finished trials: violation, log of each objective; one infinity if not usable
        self.rows: dict[int, tuple[float, ...]] = {}

    def told(self, trial: Trial) -> None:
        """A trial before `base` may be one of the best, and one that was taken for
        stopped has gone on."""
        if trial.number < self.done * self.size:
            self.beliefs = None

    resumed = told

    def now(self, history: History) -> Beliefs:
        generations = len(history) // self.size
        base = max(0, (generations // _STRIDE - 1) * _STRIDE)
        if self.beliefs is None or base != self.base:
            best = outcomes(history).best(_BEST, generator(base, "gradient base"), base * self.size) if base else []
            self.beliefs, self.base, self.done = (
                self.policy.start([history[i].filling for i in best] or self.guides),
                base,
                base,
            )
            self.rows.clear()
        while self.done < generations and self._finished(history, self.done):
            self.beliefs = self._after(self.beliefs, history, self.done)
            self.done += 1
        beliefs = self.beliefs
        for g in range(max(self.done, generations - _TAIL), generations):
            if self._finished(history, g):
                beliefs = self._after(beliefs, history, g)
        return beliefs

    def _finished(self, history: History, generation: int) -> bool:
        return all(history[i].state != "running" for i in range(generation * self.size, (generation + 1) * self.size))

    def _after(self, beliefs: Beliefs, history: History, generation: int) -> Beliefs:
        first = generation * self.size
        numbers = [i for i in range(max(0, first - _MEMORY), first + self.size) if history[i].state != "running"]
        rows = [self._row(history[i]) for i in numbers]
        m = max(map(len, rows)) - 1
        weights = generator(generation, "gradient weights").dirichlet([1.0] * m) if m > 1 else np.ones(m)
        table = np.array([r if len(r) > 1 else (math.inf, *[0.0] * m) for r in rows])  # [memory + generation, 1 + m]
        scores = np.stack([table[:, 0], (table[:, 1:] * weights).sum(1)], axis=1)
        u = np.array([1 - 2 * quantile(scores, len(scores) - self.size + i) for i in range(self.size)])
        return self.policy.update(beliefs, [history[first + i].filling for i in range(self.size)], u)

    def _row(self, trial: Trial) -> tuple[float, ...]:
        if trial.open:
            return (math.inf,)
        if trial.number not in self.rows:
            logs = [math.log(max(v, 1e-12)) for v in trial.values or ()]
            self.rows[trial.number] = (trial.violation, *logs) if trial.usable else (math.inf,)
        return self.rows[trial.number]


def quantile(scores: np.ndarray, i: int) -> float:
    """The place of row `i` among the rows of `scores` [n, 2], by the first column, then the second:
    0 the best, 1 the last, 0.5 if there is no other; ties share their places."""
    v, mean = scores[:, 0], scores[:, 1]
    less = (v < v[i]) | ((v == v[i]) & (mean < mean[i]))
    equal = (v == v[i]) & (mean == mean[i])
    return (float(less.sum()) + (float(equal.sum()) - 1) / 2) / (len(v) - 1) if len(v) > 1 else 0.5
