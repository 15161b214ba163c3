import math
from collections import Counter

import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Order, Space
from featherweight.space.space import key
from featherweight.strategies.grid import Grid, _stride
from featherweight.testing.strategies import Other, Step


def visit(space, n, grid=None, history=None):
    history = history or History()
    for p in (grid or Grid()).propose(space, history, n, generator(0)):
        history.add(Trial(len(history), p.filling, note=p.note))
    return history


def test_every_filling_of_a_finite_space_once():
    space = Space(Recipe(Step(b=Int(1, 30), mode=Choice("x", "y")), Order(Step(), Other())))
    history = visit(space, 1000)
    assert len(history) == history.distinct == space.size == 120
    assert visit(space, 5, history=history).distinct == 120


def test_every_beginning_is_even():
    space = Space(Recipe(Step(a=Float(0, 1, step=0.25), b=Int(1, 4), mode=Choice("x", "y", "z"))))
    for n in (12, 20, 30):
        for path in ("step.a", "step.b", "step.mode"):
            seen = Counter(t.filling[path] for t in visit(space, n))
            options = len(space[path].domain.options(None))
            assert len(seen) == options and max(seen.values()) <= 2 * n / options


def test_a_continuous_hole_takes_points_then_more():
    space = Space(Recipe(Step(a=Float(0, 1))))
    history = visit(space, 5)
    assert sorted(t.filling["step.a"] for t in history) == [0, 0.25, 0.5, 0.75, 1]
    visit(space, 4, history=history)
    assert sorted(t.filling["step.a"] for t in history) == [i / 8 for i in range(9)]


def test_skips_what_others_tried():
    space = Space(Recipe(Step(mode=Choice("x", "y", "z"))))
    history = History([Trial(0, {"step.mode": "y"})])
    assert {p.filling["step.mode"] for p in Grid().propose(space, history, 9, generator(0))} == {"x", "z"}


def test_huge_spaces():
    space = Space(Recipe(*[Step(a=Float(0, 1), b=Int(1, 10**9)) for _ in range(12)]))
    assert len({key(p.filling) for p in Grid().propose(space, History(), 50, generator(0))}) == 50


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 12, 97, 1000, 2**60, 5**40])
def test_stride_is_coprime(count):
    assert math.gcd(_stride(count), count) == 1


@pytest.mark.parametrize("points", [1, 0, 2.5, True])
def test_bad_points(points):
    with pytest.raises(InputError):
        Grid(points)
