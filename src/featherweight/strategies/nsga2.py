"""NSGA-II: a genetic search for the whole front. Optuna's survival selection, our crossover for conditional spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..pareto import dominates
from ..records import History
from ..space import Space
from . import _optuna
from .base import Proposal, Strategy

if TYPE_CHECKING:
    import numpy as np
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Nsga2(Strategy):
    """Non-dominated sorting genetic algorithm (Deb et al., "A fast and elitist multiobjective genetic algorithm:
    NSGA-II", 2002), with constrained domination (section VI).

    A generation's parents are the `population` best, by front and crowding distance, of the generation before and of
    its parents. A child takes each hole from one of two parents that won a tournament; a hole that only one of them
    has is taken from it (Optuna's own crossover leaves conditional holes to chance). About one hole a child is drawn anew.

    The population is small, for searches of tens to hundreds of trials. Measured on a two-objective problem with a narrow
    feasible region: below 120 trials it does not beat random search, at 240 it does.

    A trial of another origin counts as one of generation 0. Generation and parents are in the notes, because the
    parents were chosen among the trials that had finished then.
    """

    population: int = 8
    crossover: float = 0.9

    def __post_init__(self) -> None:
        if self.population < 2 or not 0 <= self.crossover <= 1:
            raise InputError(
                "nsga2 needs a population of at least 2 and a crossover probability in [0, 1]",
                got=f"population={self.population}, crossover={self.crossover}",
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        reflected = _optuna.mirror(space, history)
        generation, parents, note = self._generation(history, reflected)

        def sampler(seed: int) -> BaseSampler:
            return _child_sampler(self, reflected, parents, seed)

        return _optuna.propose(space, history, n, rng, reflected, sampler, {"generation": generation, **note})

    def _generation(self, history: History, reflected: _optuna.Mirror) -> tuple[int, list[FrozenTrial], dict[str, Any]]:
        """The generation that the next child belongs to, its parents, and what has to be noted about them."""
        from optuna.trial import TrialState

        told = reflected.study.get_trials(deepcopy=False)
        members: dict[int, list[FrozenTrial]] = {}
        chosen: dict[int, list[int]] = {}
        for trial, t in zip(told, history, strict=True):
            if trial.state == TrialState.COMPLETE:
                members.setdefault(int(t.note.get("generation", 0)), []).append(trial)
            if "parents" in t.note:
                chosen.setdefault(int(t.note["generation"]), list(t.note["parents"]))
        last = max(members, default=0)
        generation = last + (len(members.get(last, ())) >= self.population)
        if generation == 0:
            return 0, [], {}
        if generation in chosen:
            return generation, [told[i] for i in chosen[generation]], {}
        before = {i: told[i] for i in chosen.get(generation - 1, ())} | {t.number: t for t in members.get(generation - 1, ())}
        parents = self._survivors(reflected, list(before.values()))
        return generation, parents, {"parents": [t.number for t in parents]}

    def _survivors(self, reflected: _optuna.Mirror, pool: list[FrozenTrial]) -> list[FrozenTrial]:
        from optuna.samplers.nsgaii._elite_population_selection_strategy import NSGAIIElitePopulationSelectionStrategy

        pool = sorted(pool, key=lambda t: t.number)
        select = NSGAIIElitePopulationSelectionStrategy(population_size=self.population)
        return list(select(reflected.study, pool))


def _child_sampler(settings: Nsga2, reflected: _optuna.Mirror, parents: list[FrozenTrial], seed: int) -> BaseSampler:
    """An Optuna sampler whose suggestions are one child of `parents`; without parents, random ones."""
    import numpy as np
    from optuna.samplers import RandomSampler

    class Child(RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, Any]:
            return reflected.distributions if parents else {}

        def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
            return child([t.params for t in parents], [_rank(t) for t in parents], settings.crossover, np.random.default_rng(seed)) if parents else {}

    return Child(seed=seed)


Rank = tuple[float, tuple[float, ...]]  # (violation, objectives)


def _rank(trial: FrozenTrial) -> Rank:
    return sum(max(v, 0.0) for v in trial.constraints.values()), tuple(trial.values)


def better(a: Rank, b: Rank) -> bool:
    """Constrained domination (Deb et al. 2002, definition 1)."""
    return a[0] < b[0] or (a[0] == b[0] and dominates(a[1], b[1]))


def child(parents: Sequence[dict[str, Any]], ranks: Sequence[Rank], crossover: float, rng: np.random.Generator) -> dict[str, Any]:
    """The parameters of one child. Those that it lacks are drawn by the sampler: about one of them, by mutation."""

    def winner() -> int:
        a, b = (int(i) for i in rng.integers(len(parents), size=2))
        return b if better(ranks[b], ranks[a]) else a

    one = parents[winner()]
    if rng.random() < crossover:
        other = parents[winner()]
        one = {name: (one if name in one and (name not in other or rng.random() < 0.5) else other)[name] for name in {**one, **other}}
    return {name: value for name, value in one.items() if rng.random() >= 1.0 / max(len(one), 1)}
