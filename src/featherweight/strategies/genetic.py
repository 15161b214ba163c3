"""Genetic search: aging evolution for one objective, survival by front and crowding for several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..digest import Digest
from ..errors import InputError
from ..pareto import crowding, ranks
from ..records import History, Trial
from ..space import Filling
from ..space.space import Space
from ..space.vary import centre, crossover, mutated
from .base import Fresh, Proposal, Strategy

MODES = ("auto", "aging", "nsga2")
# of the mutation: its first rate, the least one, and how far a child's is from its parent's
RATE, LEAST, SPREAD = 0.3, 0.1, 0.3
WINDOW = 300  # finished trials that survival looks back on, besides the front of all
TOLERANCE = 0.2  # of violation, for every second trial
TRIES = 20  # children that may not be proposed, before a random filling is taken


@dataclass(frozen=True)
class Genetic(Strategy):
    """Breeds the next filling from the best of a population, which is read from the history:
    no generations, nothing waits.

    mode: who lives. "aging": the last `population` finished trials, by number (regularized
    evolution; Real et al., arXiv:1802.01548, algorithm 1), and of the best of all the latest, a
    fifth of that at most (elitism). "nsga2": of the last `WINDOW` and the front of all, the
    `population` best by front and crowding distance, feasible before infeasible (Deb et al., "A
    fast and elitist multiobjective genetic algorithm: NSGA-II", 2002). "auto": aging for one
    objective, nsga2 for several. Failed, stopped and running trials are no members; those that
    other strategies proposed are.

    For every second trial a violation up to 0.2 counts as none, so that what breaks a constraint by
    a hair is bred from too (after the epsilon constrained method; Takahama and Sakai 2006): with
    feasible strictly first all parents soon resemble the first feasible trial.

    A parent is the best of `sample` members drawn with replacement (tournament; None: 8 when aging,
    2 else). With probability `crossover` the child is made of two parents, whole steps or single
    holes (`_vary.crossover`), and mutated in half of the cases; else it is a mutant of one:
    one hole changed, and `rate` others in the mean, by a step or anew. A child's rate is its
    parent's times exp(0.3 N(0, 1)), so that good rates survive with those that they made
    (self-adaptation; Baeck, "Self-adaptation in genetic algorithms", 1992). A child that is known
    is bred again, with a higher rate each time, so a population whose surroundings are known looks
    farther. The first `startup` are the middle of the space and random ones.
    """

    population: int = 20
    sample: int | None = None
    mode: str = "auto"
    crossover: float = 0.5
    startup: int = 10

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError("genetic has no such mode", got=repr(self.mode), allowed=", ".join(MODES))
        if (
            self.population < 2
            or (self.sample is not None and self.sample < 1)
            or self.startup < 1
            or not 0 <= self.crossover <= 1
        ):
            raise InputError(
                "genetic needs a population of at least 2, sample and startup of at least 1 and a crossover "
                "probability in [0, 1]",
                got=(
                    f"population={self.population}, sample={self.sample}, startup={self.startup}, "
                    f"crossover={self.crossover}"
                ),
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Notes hold the mutation's rate, and the parents' numbers for whoever
        reads the history."""
        fresh = Fresh(space, history)
        members = self.members(history, TOLERANCE * (len(history) % 2)) if n else []
        size = self.sample or (8 if self._aging(_Elite.of(history)) else 2)
        out: list[Proposal] = []
        while len(out) < n:
            young = len(history) + len(out) < self.startup or not members
            made = None if young else self._child(fresh, members, size, rng)
            if made is None:
                middle = centre(space) if len(history) + len(out) == 0 else None
                drawn = middle if middle is not None and middle in fresh else fresh.sample(rng)
                if drawn is None:
                    break
                made = drawn, {}
            out.append(fresh.take(*made))
        return out

    def members(self, history: History, tolerance: float = 0.0) -> list[Trial]:
        """The population, the best first; of equals the latest.
        A violation up to `tolerance` counts as none."""
        elite = _Elite.of(history)
        best = sorted(elite.numbers, reverse=True)
        aging = self._aging(elite)
        # all that live are of the first front
        if not aging and len(best) >= self.population and not tolerance:
            return _ranked([history[i] for i in best], np.zeros(len(best), dtype=int))[: self.population]
        pool = (
            {*best[: max(1, self.population // 5)], *_latest(history, self.population)}
            if aging
            else {*best[:WINDOW], *_latest(history, WINDOW)}
        )
        trials = [history[i] for i in sorted(pool, reverse=True)]
        broken = [t.violation if t.violation > tolerance else 0.0 for t in trials]
        return _ranked(trials, ranks([t.values or () for t in trials], broken))[: None if aging else self.population]

    def _aging(self, elite: _Elite) -> bool:
        return self.mode == "aging" or (self.mode == "auto" and elite.objectives <= 1)

    def _child(
        self, fresh: Fresh, members: list[Trial], size: int, rng: np.random.Generator
    ) -> tuple[Filling, dict[str, Any]] | None:
        for attempt in range(TRIES):
            parents = [members[int(rng.integers(len(members), size=size).min())]]
            crossed = float(rng.random()) < self.crossover
            filling = parents[0].filling
            if crossed:
                parents.append(members[int(rng.integers(len(members), size=size).min())])
                filling = crossover(fresh.space, filling, parents[1].filling, rng)
            rate = _rate(parents[0]) * math.exp(SPREAD * float(rng.standard_normal()))
            rate = round(min(max(rate, LEAST), max(LEAST, len(filling) / 2)), 6)
            if not crossed or rng.random() < 0.5:
                filling = mutated(fresh.space, filling, rng, rate + attempt / 5)
            if filling in fresh:
                return filling, {"rate": rate, "parents": [t.number for t in parents]}
        return None


def _rate(parent: Trial) -> float:
    """The rate in a parent's note; the first one if it was not bred here."""
    rate = parent.note.get("rate")
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else RATE


def _latest(history: History, most: int) -> list[int]:
    """The numbers of the last finished trials, at most `most`."""
    out: list[int] = []
    for i in range(len(history) - 1, -1, -1):
        if len(out) == most:
            break
        if history[i].usable:
            out.append(i)
    return out


def _ranked(trials: list[Trial], front: np.ndarray) -> list[Trial]:
    """By front, then the least crowded first, then as they came."""
    if not trials:
        return []
    values = np.array([t.values for t in trials])  # [n, objectives]
    room = np.zeros(len(trials))
    for level in range(int(front.max()) + 1):
        mine = np.flatnonzero(front == level)
        room[mine] = crowding(values[mine])
    return [trials[int(i)] for i in np.lexsort((-room, front))]


class _Elite(Digest):
    """The trials that no other dominates, of those of least violation:
    the same whatever order they finished in."""

    def __init__(self) -> None:
        super().__init__()
        self.objectives = 0  # 0: no trial has finished
        self.level = math.inf  # the least violation
        self.numbers: list[int] = []
        self.rows: Any = None  # [len(numbers), objectives]

    def told(self, trial: Trial) -> None:
        if not trial.usable:
            return
        self.objectives = trial.objectives(self.objectives)
        y = np.array(trial.values)  # [objectives]
        if trial.violation > self.level:
            return
        if trial.violation < self.level:
            self.level, self.numbers, self.rows = trial.violation, [], np.empty((0, self.objectives))
        if ((self.rows <= y).all(1) & (self.rows < y).any(1)).any():
            return
        kept = ~((y <= self.rows).all(1) & (y < self.rows).any(1))
        self.numbers = [*(i for i, k in zip(self.numbers, kept, strict=True) if k), trial.number]
        self.rows = np.vstack([self.rows[kept], y])
