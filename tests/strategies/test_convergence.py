"""A strategy that is not better than random search has no reason to be there. Paired over fixed seeds, so nothing flakes."""

import pytest
from tests.strategies.problems import compression, quality, run, separable

from featherweight.strategies.greedy import Greedy
from featherweight.strategies.nsga2 import Nsga2
from featherweight.strategies.random import Random
from featherweight.strategies.tpe import Tpe

SEEDS = range(6)


@pytest.fixture(scope="module")
def by_chance():
    return {problem: [quality(run(Random(), problem, 60, s)) for s in SEEDS] for problem in (separable, compression)}


@pytest.mark.parametrize("strategy, problem", [(Greedy(), separable), (Greedy(), compression), (Nsga2(), separable), (Nsga2(), compression),
                                               (Tpe(), separable), (Tpe(), compression)], ids=lambda x: getattr(x, "__name__", type(x).__name__))
def test_beats_random(strategy, problem, by_chance):
    seeds = SEEDS if not isinstance(strategy, Tpe) else list(SEEDS)[:3]
    mine = [quality(run(strategy, problem, 60, s)) for s in seeds]
    chance = by_chance[problem][:len(mine)]
    assert sum(mine) > sum(chance)
    assert sum(a > b for a, b in zip(mine, chance, strict=True)) >= len(mine) - 1


def test_greedy_finds_a_separable_optimum():
    assert quality(run(Greedy(), separable, 80, 0)) > -0.025  # the least value is 0.01, the step of a Float 3 % of its range


def test_more_trials_are_never_worse():
    history = run(Greedy(), compression, 60, 1)
    values = [quality([history[i] for i in range(n)]) for n in (20, 40, 60)]
    assert values == sorted(values)
