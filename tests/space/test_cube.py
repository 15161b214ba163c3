"""The unit cube, the quasirandom sequence, CMA-ES and the Gaussian process."""

import builtins
import math

import cmaes
import numpy as np
import pytest
from scipy.stats import qmc

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Order, Space
from featherweight.space.cube import Cube
from featherweight.space.space import key
from featherweight.strategies.cmaes import Cmaes
from featherweight.strategies.gp import Gp
from featherweight.strategies.quasirandom import MOST_DIMS, Quasirandom
from featherweight.strategies.random import Random
from featherweight.testing.strategies import Other, Step, finite_space, mixed_space, restarted
from tests.strategies.problems import SPACE, quality, run, separable

SQUARE = Space(Recipe(Step(a=Float(0, 1), inner=Other(c=Float(0, 1)))))


@pytest.mark.parametrize("space", [finite_space(), mixed_space()], ids=["finite", "mixed"])
def test_fillings_have_points_and_points_fillings(space):
    cube = Cube(space)
    for i in range(60):
        f = space.sample(generator(i))
        u = cube.point(f)
        assert u.shape == (cube.dims,) and (0 <= u).all() and (u <= 1).all()
        back = cube.filling(u)
        assert back.keys() == f.keys()
        assert all(b == pytest.approx(f[p]) if isinstance(f[p], float) else b == f[p] for p, b in back.items())
        g = cube.filling(generator(1, i).random(cube.dims))
        assert key(space.complete(g, None)) == key(g)


def test_bins_are_equal_and_ends_are_reached():
    space = Space(
        Recipe(Step(a=Float(-1, 1, step=0.5), b=Int(3, 3), mode=Choice("x", "y", "z"), inner=Order(Other(), Step())))
    )
    cube = Cube(space)
    assert cube.bins == [5, 3, 0, 0]
    seen = [cube.filling([u, u, u, 0.5])["step.a"] for u in (np.arange(1000) + 0.5) / 1000]
    assert {v: seen.count(v) for v in seen} == dict.fromkeys([-1.0, -0.5, 0.0, 0.5, 1.0], 200)
    low, high = cube.filling([-1] * 4), cube.filling([2] * 4)
    assert (low["step.a"], low["step.mode"], high["step.a"], high["step.mode"]) == (-1.0, "x", 1.0, "z")
    assert {cube.filling([0, 0, a, 1 - a])["step.inner"] for a in (0.1, 0.9)} == {"other>step", "step>other"}


def points(history):
    return np.array([[t.filling[p] for p in history[0].filling] for t in history])


def test_quasirandom_is_scipys_sequence_and_more_even_than_chance():
    history = run(Quasirandom(), lambda f: ((1.0,), 0.0), 300, 0, SQUARE)
    seeds = {t.note["sobol"] for t in history}
    assert len(seeds) == 1 and [t.note["index"] for t in history] == list(range(300))
    expected = qmc.Sobol(2, scramble=True, rng=np.random.default_rng(seeds.pop())).random(512)[:300]
    assert np.allclose(points(history), expected)
    chance = run(Random(), lambda f: ((1.0,), 0.0), 256, 0, SQUARE)
    assert qmc.discrepancy(points(history)[:256]) < 0.2 * qmc.discrepancy(points(chance))


def test_quasirandom_skips_what_is_known_or_refused():
    space = Space(
        Recipe(Step(a=Float(0, 1, step=0.25), b=Int(1, 4))), refuses=lambda tree: "no" if tree.steps[0].b == 2 else None
    )
    history = run(Quasirandom(), lambda f: ((1.0,), 0.0), 15, 0, space)
    assert history.distinct == 15 and all(t.filling["step.b"] != 2 for t in history)
    assert run(Quasirandom(), lambda f: ((1.0,), 0.0), 30, 0, space).distinct == 20  # the refused ones last


def test_too_many_dimensions():
    space = Space(tuple(Float(0, 1) for _ in range(MOST_DIMS + 1)))
    with pytest.raises(InputError, match="dimensions"):
        Quasirandom().propose(space, History(), 1, generator(0))


def test_cmaes_converges_where_chance_does_not():
    space = SQUARE
    names = list(space.sample(generator(0)))

    def problem(f):
        return (0.01 + (f[names[0]] - 0.21) ** 2 + 100 * (f[names[1]] - 0.83) ** 2,), 0.0

    mine = [-quality(run(Cmaes(), problem, 150, s, space)) - 0.01 for s in range(4)]
    chance = [-quality(run(Random(), problem, 150, s, space)) - 0.01 for s in range(4)]
    assert max(mine) < 1e-4 and sum(mine) < 0.01 * sum(chance)


def test_cmaes_is_the_packages_optimizer():
    """The same points as CMAwM by hand, told the same ranks."""
    names = list(SQUARE.sample(generator(0)))
    history = run(Cmaes(sigma=0.3), lambda f: ((1.0 + f[names[0]],), 0.0), 12, 5, SQUARE)
    xs = [np.array(t.note["x"]) for t in history]
    assert [t.note["cma"] for t in history] == [[0, 0]] * 6 + [[0, 1]] * 6
    by_hand = cmaes.CMAwM(np.full(2, 0.5), 0.3, np.array([[0.0, 1.0]] * 2), np.zeros(2), population_size=6, seed=0)
    order = sorted(range(6), key=lambda i: history[i].values)
    by_hand.tell([(xs[i], float(order.index(i))) for i in range(6)])
    rng = generator(5, 6)
    by_hand.reseed_rng(int(rng.integers(2**31)))
    assert np.allclose(by_hand.ask()[0], xs[6])
    assert history[6].note["told"] == [0, 1, 2, 3, 4, 5]


def test_cmaes_begins_at_the_best_of_others_and_restarts_when_it_has_converged():
    history = History()
    for i in range(30):
        f = SQUARE.sample(generator(2, i))
        history.add(Trial(i, f, "complete", (1.0 + f[next(iter(f))],)))
    best = min(history, key=lambda t: t.values)
    note = Cmaes().propose(SQUARE, history, 1, generator(0))[0].note
    assert note["start"] == pytest.approx(list(Cube(SQUARE).point(best.filling)))
    few = Space(Recipe(Step(a=Float(0, 1, step=0.1), b=Int(1, 12))))
    history = run(Cmaes(), lambda f: ((1.0 + f["step.a"] + f["step.b"],), 0.0), 132, 0, few)
    assert history.distinct == 132 and max(t.note["cma"][0] for t in history) > 0


def test_cmaes_after_a_restart_goes_on_alike():
    history = run(Cmaes(), separable, 60, 3)
    again = Cmaes().propose(SPACE, restarted(history), 2, generator(9))
    assert again == Cmaes().propose(SPACE, history, 2, generator(9))


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def fake(name, *rest, **more):
        if name == "cmaes":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(InputError, match="pip install cmaes"):
        Cmaes().propose(SQUARE, History(), 1, generator(0))


@pytest.mark.parametrize(
    "make", [lambda: Cmaes(sigma=0), lambda: Cmaes(sigma=math.nan), lambda: Gp(startup=0), lambda: Gp(most=2)]
)
def test_bad_settings(make):
    with pytest.raises(InputError):
        make()


def test_gp_learns():
    names = list(SQUARE.sample(generator(0)))

    def problem(f):
        return (0.01 + (f[names[0]] - 0.21) ** 2 + (f[names[1]] - 0.83) ** 2,), 0.0

    mine = -quality(run(Gp(startup=6), problem, 14, 0, SQUARE)) - 0.01
    chance = [-quality(run(Random(), problem, 14, s, SQUARE)) - 0.01 for s in range(4)]
    assert mine < min(chance)
