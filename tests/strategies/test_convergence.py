"""A strategy that is not better than random search has no reason to be there. Paired over fixed
seeds, so nothing flakes."""

import pytest

from featherweight.strategies.genetic import Genetic
from featherweight.strategies.greedy import Greedy
from featherweight.strategies.random import Random
from featherweight.strategies.tpe import Tpe
from tests.strategies.problems import compression, quality, run, separable

CASES = [
    (Greedy(), separable, 60, 6),
    (Greedy(), compression, 60, 6),
    (Genetic(), separable, 60, 6),
    (Genetic(), compression, 120, 6),
    (Tpe(), separable, 60, 3),
]


@pytest.mark.parametrize(
    "strategy, problem, trials, seeds", CASES, ids=lambda x: getattr(x, "__name__", str(x).split("(")[0])
)
def test_beats_random(strategy, problem, trials, seeds):
    mine = [quality(run(strategy, problem, trials, s)) for s in range(seeds)]
    chance = [quality(run(Random(), problem, trials, s)) for s in range(seeds)]
    assert sum(mine) > sum(chance)
    assert sum(a > b for a, b in zip(mine, chance, strict=True)) >= seeds - 1


def test_greedy_finds_a_separable_optimum():
    # the least value is 0.01, the step of a Float 3 % of its range
    assert quality(run(Greedy(), separable, 80, 0)) > -0.025


def test_more_trials_are_never_worse():
    history = run(Greedy(), compression, 60, 1)
    values = [quality([history[i] for i in range(n)]) for n in (20, 40, 60)]
    assert values == sorted(values)
