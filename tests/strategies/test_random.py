from collections import Counter

from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Space
from featherweight.strategies.base import unseen_sample
from featherweight.strategies.random import Random
from featherweight.testing.strategies import Step, finite_space, mixed_space
from tests.counting import bytecodes, peak_bytes


def test_uniform_over_options():
    space = Space(Recipe(Step(a=Float(0, 1), mode=Choice("x", "y", "z"))))
    fillings = [p.filling for p in Random().propose(space, History(), 600, generator(0))]
    counts = Counter(f["step.mode"] for f in fillings)
    assert all(150 < c < 250 for c in counts.values()) and len(counts) == 3
    assert 0.45 < sum(f["step.a"] for f in fillings) / 600 < 0.55


def test_the_last_filling_is_found():
    space = finite_space()
    history = History(Trial(i, space.at(r)) for i, r in enumerate(r for r in range(24) if r != 17))
    assert unseen_sample(space, history, generator(0)) == space.at(17)
    assert unseen_sample(space, history, generator(0), {space.key_at(17)}) is None


def test_cost_does_not_grow_with_the_history():
    space = mixed_space()

    def cost(trials):
        rng = generator(0)
        history = History(Trial(i, space.sample(rng), "complete", (1.0,)) for i in range(trials))
        return [count(lambda: Random().propose(space, history, 10, generator(1))) for count in (bytecodes, peak_bytes)]

    (few, few_bytes), (many, many_bytes) = cost(50), cost(5000)
    assert 0 < many < 1.2 * few and many_bytes < few_bytes + 5000
