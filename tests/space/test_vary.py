import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight.recipe import Recipe
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from featherweight.space.cube import Cube
from featherweight.space.encode import Encoding
from featherweight.space.space import key
from featherweight.space.vary import between, crossover, mutated, stepped
from featherweight.surrogate.pool import near, varied
from featherweight.testing.strategies import Other, Step, finite_space, mixed_space
from tests.algebra import recipes, shuffled

DOMAINS = [
    Float(0, 1),
    Float(1e-4, 1e-1, log=True),
    Float(-1, 1, step=0.25),
    Int(0, 6, step=2),
    Int(1, 64, log=True),
    Int(1, 10**6),
    Choice("x", "y", "z"),
    Choice(1, 1.0, True, None),
    Choice(8, 2, 4),
    Maybe(1),
    Order("a", "b", "c"),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_a_step_is_another_value_of_the_domain(domain):
    rng = generator(0)
    for _ in range(200):
        value = domain.sample(rng)
        moved = stepped(domain, value, rng)
        assert domain.check(moved, "") == moved and (type(moved), moved) != (type(value), value)


@pytest.mark.parametrize(
    "domain",
    [Float(0.3, 0.3), Int(2, 2), Int(2, 2, log=True), Choice("x"), Choice(4), Float(0, 0.5, step=1.0)],
    ids=repr,
)
def test_a_single_value_stays(domain):
    value = domain.sample(generator(0))
    assert stepped(domain, value, generator(1)) == value


def test_steps_are_mostly_small_and_now_and_then_long():
    """2^(-8 u) of half the range, u uniform: the median is 2^-4 of it,
    the longest half the range."""
    rng = generator(0)
    moves = sorted(abs(stepped(Float(0, 1), 0.5, rng) - 0.5) for _ in range(4000))
    assert moves[2000] == pytest.approx(0.5 * 2**-4, rel=0.15)
    assert 0.45 < moves[-1] <= 0.5 and 0.5 * 2**-8 - 1e-9 <= moves[0] < 0.0021
    logs = [math.log10(stepped(Float(1e-4, 1e-2, log=True), 1e-3, rng)) for _ in range(2000)]
    assert sum(v > -3 for v in logs) == pytest.approx(1000, abs=100) and -4 <= min(logs) < -3.8


def test_ordered_options_reach_their_neighbours_most():
    rng = generator(0)
    seen = Counter(stepped(Choice(*range(10)), 4, rng) for _ in range(2000))
    assert seen[3] + seen[5] > 1000 and {v for v in seen} == {0, 1, 2, 3, 5, 6, 7, 8} | ({9} & set(seen))
    assert {stepped(Int(0, 9), 0, rng) for _ in range(500)} <= set(range(1, 6))


@pytest.mark.parametrize("local", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("space", [finite_space(), mixed_space()], ids=["finite", "mixed"])
def test_mutants_are_valid(space, local):
    rng = generator(0)
    for i in range(100):
        filling = space.sample(generator(i))
        child = mutated(space, filling, rng, 1.5, local)
        assert key(space.complete(child, None)) == key(child)
        if local == 1.0:
            assert key(child) != key(filling)


def test_rate_is_the_number_of_changes():
    space, rng = Space(Recipe(*(Step(a=Float(0, 1)) for _ in range(20)))), generator(0)
    parent = space.sample(rng)
    for rate, expected in ((1e-9, 1.0), (4.0, 1 + 4.0 * 0.95)):
        changed = [
            sum(child[p] != parent[p] for p in parent)
            for child in (mutated(space, parent, rng, rate) for _ in range(300))
        ]
        assert min(changed) >= 1 and sum(changed) / 300 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("space", [finite_space(), mixed_space()], ids=["finite", "mixed"])
def test_children_are_valid_and_take_living_holes_from_their_parents(space):
    rng = generator(2)
    for i in range(200):
        a, b = space.sample(generator(1, i)), space.sample(generator(2, i))
        child = crossover(space, a, b, rng)
        assert key(space.complete(child, None)) == key(child)
        for path, value in child.items():
            if path in a or path in b:
                assert any(path in p and (type(p[path]), p[path]) == (type(value), value) for p in (a, b))


def test_equal_parents_have_an_equal_child():
    a = mixed_space().sample(generator(0))
    assert crossover(mixed_space(), a, dict(a), generator(1)) == a
    assert crossover(Space(Recipe(Step())), {}, {}, generator(1)) == {}


def test_whole_steps_travel_together_in_half_of_the_children():
    """Two steps of three holes: cut at the first depth the steps swap whole,
    at the second each hole is on its own."""
    step = {"a": Float(0, 1), "b": Int(0, 9), "mode": Choice("x", "y")}
    space, rng = Space(Recipe(Step(**step), Step(**step))), generator(0)
    a = {p: v for n in ("step", "step_2") for p, v in ((f"{n}.a", 0.1), (f"{n}.b", 1), (f"{n}.mode", "x"))}
    b = {p: v for n in ("step", "step_2") for p, v in ((f"{n}.a", 0.9), (f"{n}.b", 8), (f"{n}.mode", "y"))}
    assert set(a) == {h.path for h in space.holes}
    children = [crossover(space, a, b, rng) for _ in range(1000)]
    assert all(c not in (a, b) for c in children)
    whole = sum(len({c[f"{n}.{h}"] == a[f"{n}.{h}"] for h in step}) == 1 for c in children for n in ("step",))
    both = [
        c for c in children if all(len({c[f"{n}.{h}"] == a[f"{n}.{h}"] for h in step}) == 1 for n in ("step", "step_2"))
    ]
    assert len(both) == pytest.approx(500 + 500 * 2 / 62, abs=60) and whole >= len(both)


def test_a_branch_brings_its_holes():
    space, rng = Space(Recipe(Step(a=Float(0, 1)), Maybe(Other(c=Float(0, 1), mode=Choice("x", "y"))))), generator(0)
    a = {"step.a": 0.1, "other": True, "other.c": 0.7, "other.mode": "y"}
    b = {"step.a": 0.9, "other": False}
    children = [crossover(space, a, b, rng) for _ in range(50)]
    assert {key(c) for c in children if c["other"]} <= {key({**a, "step.a": v}) for v in (0.1, 0.9)}
    assert any(c == {"step.a": 0.1, "other": False} for c in children)


@given(recipes(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_order_of_a_fillings_keys_means_nothing(recipe, seed):
    space = Space(recipe)
    a, b = space.sample(generator(seed)), space.sample(generator(seed, 1))
    encoding, cube = Encoding(space), Cube(space)
    for i in range(3):
        c, d = shuffled(a, generator(seed, i)), shuffled(b, generator(seed, i, 1))
        assert mutated(space, c, generator(i)) == mutated(space, a, generator(i))
        assert crossover(space, c, d, generator(i)) == crossover(space, a, b, generator(i))
        assert varied(space, c, generator(i)) == varied(space, a, generator(i))
        assert near(space, c, generator(i)) == near(space, a, generator(i))
        assert (encoding.rows([c]) == encoding.rows([a])).all() and (cube.point(c) == cube.point(a)).all()


def test_halfway_is_the_middle_of_numbers_and_nearer_to_what_is_asked():
    space = Space(
        (
            Choice(0, 1, 4, 16),
            Float(0.0, 1.0),
            Float(0.001, 10.0, log=True),
            Int(0, 10),
            Float(0.0, 0.8, step=0.1),
            Choice("a", "b"),
        )
    )
    paths = [h.path for h in space.holes]
    a = dict(zip(paths, (0, 0.2, 0.01, 1, 0.0, "a"), strict=True))
    b = dict(zip(paths, (16, 0.6, 1.0, 8, 0.7, "b"), strict=True))
    half, *rest = (list(f.values()) for f in between(space, a, b, a))
    assert half == [1, pytest.approx(0.4), pytest.approx(0.1), 4, 0.3, "b"]
    for way in (between(space, b, a, b), between(space, a, b, b)):
        assert list(next(iter(way)).values())[:5] == [4, pytest.approx(0.4), pytest.approx(0.1), 5, pytest.approx(0.4)]
    assert rest[0] == [16, 0.2, 0.01, 1, 0.0, "b"] and rest[-1] == [0, 0.2, 0.01, 1, 0.7, "b"] and len(rest) == 5
    assert list(between(space, a, a, a)) == []
    near = a | {paths[3]: 2, paths[5]: "b"}  # there is nothing in the middle
    assert [list(f.values()) for f in between(space, a, near, a)] == [[0, 0.2, 0.01, 2, 0.0, "b"]]
