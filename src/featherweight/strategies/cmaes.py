"""CMA-ES with margin, by the package `cmaes`: an evolution strategy that learns the shape
of the objective."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..digest import Digest
from ..errors import InputError
from ..records import History, Trial
from ..space import Space
from ..space.cube import Cube
from .base import Fresh, Proposal, Strategy

ASKS = 30  # draws of the same Gaussian, all of them known, before the run counts as converged
DOUBLINGS = 3  # restarts that double the population
NARROW = 1e-6  # a Gaussian this narrow along every coordinate has converged; [0, 1] is the range
Key = tuple[int, int]  # run, generation
# "start": mean of a run's first Gaussian [d], or "told": numbers of the trials that
# led to a generation
Origin = dict[str, Any]


@dataclass(frozen=True)
class Cmaes(Strategy):
    """Covariance matrix adaptation (Hansen, "The CMA evolution strategy: a tutorial",
    arXiv:1604.00772) with the margin that keeps discrete holes alive (Hamano et al.,
    "CMA-ES with margin", GECCO 2022, arXiv:2205.13482), in the unit cube of all holes.

    Made for numbers. A category is a coordinate cut into equal bins in the order of its options, an
    Order a ranking of random keys, and the coordinates of a dead hole drift: where such holes
    matter most, take another strategy. It ranks trials: feasible before infeasible, then the
    geometric mean of the objectives, so with several of them it looks for one compromise, not for a
    front. A failed or stopped trial is the worst of its generation.

    The first run starts from the best trial of other strategies, if there is one, else in the
    middle. A run that has converged (by the tutorial's criteria, appendix B.3, or because every
    draw is known) is followed by one with twice the population from a random filling (IPOP; Auger
    and Hansen, "A restart CMA evolution strategy with increasing population size", 2005).

    sigma: the first standard deviation, as a share of each hole's range. Needs the package `cmaes`
    (MIT); InputError without it. Notes hold run, generation and point; those that open a
    generation, what led to it.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1:
            raise InputError("cmaes needs a first standard deviation in (0, 1]", got=self.sigma)

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        runs = _Runs.of(history, self, space=space)
        key, origin, optimizer = runs.current(history, rng)
        optimizer.reseed_rng(int(rng.integers(2**31)))
        fresh, out = Fresh(space, history), list[Proposal]()
        for _ in range(n):
            for _ in range(ASKS):
                u, x = optimizer.ask()
                filling = runs.cube.filling(u[: runs.cube.dims])
                if filling in fresh:
                    break
            else:
                drawn = fresh.sample(rng)
                if drawn is None:
                    break
                filling, x = drawn, runs.padded(runs.cube.point(drawn))
                key, origin = (key[0] + 1, 0), {"start": x.tolist()}
                optimizer = runs.first(key[0], origin)
                optimizer.reseed_rng(int(rng.integers(2**31)))
            out.append(fresh.take(filling, {"cma": list(key), "x": x.tolist(), **origin}))
        return out


@dataclass
class _Generation:
    origin: Origin
    members: list[int] = field(default_factory=list)  # numbers of its trials


class _Runs(Digest):
    """The generations found in a history's notes, and the last optimizer that they lead to."""

    def __init__(self, space: Space, settings: Cmaes) -> None:
        super().__init__()
        self.settings, self.cube = settings, Cube(space)
        self.generations: dict[Key, _Generation] = {}
        # the last generation that was built, and its optimizer
        self.reached: tuple[Key, Any] | None = None

    def begun(self, trial: Trial) -> None:
        note = trial.note
        if "cma" in note and len(note["x"]) == len(self.padded([])):
            key = (int(note["cma"][0]), int(note["cma"][1]))
            if key not in self.generations:
                self.generations[key] = _Generation({k: note[k] for k in ("start", "told") if k in note})
            self.generations[key].members.append(trial.number)

    def padded(self, u: Any) -> np.ndarray:
        """[max(d, 2)]: the package wants two coordinates at least."""
        out = np.full(max(self.cube.dims, 2), 0.5)
        out[: len(u)] = u
        return out

    def first(self, run: int, origin: Origin) -> Any:
        """The optimizer that a run starts with."""
        bins = np.array(self.cube.bins + [0] * (2 - self.cube.dims))
        steps = np.divide(1.0, bins, out=np.zeros(len(bins)), where=bins > 0)
        population = (4 + math.floor(3 * math.log(len(bins)))) * 2 ** min(run, DOUBLINGS)
        return _package().CMAwM(
            mean=np.clip(origin["start"], steps / 2, 1 - steps / 2),
            sigma=self.settings.sigma,
            # [d, 2]: the outermost bins' middles
            bounds=np.stack([steps / 2, 1 - steps / 2], axis=1),
            steps=steps,
            population_size=population,
            seed=0,  # reseeded before each use
        )

    def current(self, history: History, rng: np.random.Generator) -> tuple[Key, Origin, Any]:
        """The generation that the next trial belongs to, what has to be noted of its origin, and an
        optimizer to ask (a copy)."""
        if not self.generations:
            ended = [t for t in history.complete() if t.values and not math.isnan(sum(t.score_key))]
            best = min(ended, key=lambda t: (t.score_key, t.number), default=None)
            origin: Origin = {"start": self.padded([] if best is None else self.cube.point(best.filling)).tolist()}
            return (0, 0), origin, self.first(0, origin)
        key = max(self.generations)
        optimizer = self._built(key, history)
        ended_numbers = [i for i in self.generations[key].members if history[i].state != "running"]
        if len(ended_numbers) < optimizer.population_size:
            return key, {}, optimizer
        origin = {"told": ended_numbers[: optimizer.population_size]}
        _tell(optimizer, origin, history)
        if optimizer.should_stop() or optimizer._cma._sigma * math.sqrt(np.max(np.diag(optimizer._cma._C))) < NARROW:
            origin = {"start": self.padded(rng.random(self.cube.dims)).tolist()}
            return (key[0] + 1, 0), origin, self.first(key[0] + 1, origin)
        return (key[0], key[1] + 1), origin, optimizer

    def _built(self, key: Key, history: History) -> Any:
        """A copy of the optimizer of a generation of the history."""
        run, generation = key
        at, optimizer = 0, None
        if self.reached is not None and self.reached[0][0] == run and self.reached[0][1] <= generation:
            (_, at), optimizer = self.reached
        if optimizer is None:
            optimizer = self.first(run, self.generations[run, 0].origin)
        while at < generation:
            at += 1
            _tell(optimizer, self.generations[run, at].origin, history)
        self.reached = (key, optimizer)
        return copy.deepcopy(optimizer)


def _tell(optimizer: Any, origin: Origin, history: History) -> None:
    """One update, by the ranks of the trials: the method looks at nothing else. NaN, failed and
    stopped ones come last, equals are equal."""
    trials = [history[i] for i in origin["told"]]
    scores = [
        t.score_key if t.state == "complete" and not math.isnan(sum(t.score_key)) else (math.inf, math.inf)
        for t in trials
    ]
    places = {score: float(i) for i, score in enumerate(sorted(set(scores)))}
    optimizer.tell([(np.array(t.note["x"]), places[s]) for t, s in zip(trials, scores, strict=True)])


def _package() -> Any:
    try:
        import cmaes  # type: ignore[import-untyped]
    except ImportError as e:
        raise InputError(
            "the strategy cmaes needs the package cmaes, which is not installed", fix="pip install cmaes"
        ) from e
    return cmaes
