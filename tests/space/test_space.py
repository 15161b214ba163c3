import dataclasses
import json
import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from featherweight.space.node import label, labels
from featherweight.space.space import key
from tests.algebra import Freeze, Shave, Teach, any_holes, floats, ints, recipes, shuffled

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


@given(recipes(), seeds)
@quick
def test_fill_of_sample_is_valid(recipe, seed):
    space = Space(recipe)
    filling = space.sample(generator(seed))
    filled = space.fill(filling)
    assert isinstance(filled, Recipe) and filled.is_filled
    assert len(Space(filled)) == 0 and Space(filled).size == 1
    assert json.loads(json.dumps(filling)) == filling
    assert space.complete(filling, None) == filling
    assert set(filling) <= {h.path for h in space}
    assert all(space[p].domain.check(v, p) == v for p, v in filling.items())


@given(recipes(), seeds)
@quick
def test_holes_live_under_their_choices(recipe, seed):
    space = Space(recipe)
    filling = space.sample(generator(seed))
    for hole in space:
        assert (hole.path in filling) == all(
            filling.get(p) == v and type(filling.get(p)) is type(v) for p, v in hole.when
        )
    assert len({h.path for h in space}) == len(space)


@given(recipes(), seeds)
@quick
def test_neighbours_differ_and_are_valid(recipe, seed):
    space, rng = Space(recipe), generator(seed)
    filling = space.sample(rng)
    for i, other in enumerate(space.neighbours(filling, rng)):
        space.fill(other)
        assert key(other) != key(filling)
        if i > 20:
            break


@given(recipes(), seeds)
@quick
def test_the_order_of_a_fillings_keys_means_nothing(recipe, seed):
    """A filling that was read from a log has another order than the one that was drawn."""
    space = Space(recipe, features=lambda tree: {"steps": len(tree)}, refuses=lambda tree: str(tree))
    filling = space.sample(generator(seed))
    for i in range(3):
        other = shuffled(filling, generator(seed, i))
        assert list(islice(space.neighbours(other, generator(1)), 30)) == list(
            islice(space.neighbours(filling, generator(1)), 30)
        )
        assert key(other) == key(filling) and space.fill(other) == space.fill(filling)
        assert space.complete(other, None) == filling and list(space.complete(other, None)) == list(filling)
        part = {path: other[path] for path in other if path in set(list(filling)[::2])}
        assert space.complete(part, generator(2)) == space.complete(
            {p: v for p, v in filling.items() if p in part}, generator(2)
        )
        assert space.walk(lambda path, _, other=other: other[path]) == filling
        assert space.features(other) == space.features(filling) and space.refused(other) == space.refused(filling)


@given(recipes())
@quick
def test_at_enumerates_the_space(recipe):
    space = Space(recipe)
    points = None if space.size < math.inf else 3
    size = space.count(points)
    assert size >= 1 and size == int(size)
    picked = range(int(size)) if size <= 60 else [int(size) * i // 60 for i in range(60)]
    fillings = [space.at(i, points) for i in picked]
    assert len({key(f) for f in fillings}) == len(fillings)
    for f in fillings:
        assert space.complete(f, None) == f
    for bad in (-1, size):
        with pytest.raises(InputError):
            space.at(bad, points)


@given(recipes(), seeds)
@quick
def test_what_does_not_belong_is_refused(recipe, seed):
    space = Space(recipe)
    filling = space.sample(generator(seed))
    with pytest.raises(InputError, match="not there"):
        space.fill({**filling, "no.such.hole": 1})
    for path in filling:
        with pytest.raises(InputError, match="no value"):
            space.fill({k: v for k, v in filling.items() if k != path})
        with pytest.raises(InputError):
            space.fill({**filling, path: [1]})
    dead = [h.path for h in space if h.path not in filling]
    for path in dead[:2]:
        with pytest.raises(InputError, match="leave out"):
            space.fill({**filling, path: space[path].domain.sample(generator(seed))})


@given(any_holes | floats() | ints(), seeds)
@quick
def test_domains(domain, seed):
    rng = generator(seed)
    value = domain.sample(rng)
    assert domain.check(value, "p") == value
    near = domain.near(value)
    assert len({repr(v) for v in near}) == len(near) and repr(value) not in {repr(v) for v in near}
    for v in near:
        assert repr(domain.check(v, "p")) == repr(v)
    for points in (1, 2, 5):
        options = domain.options(points)
        assert len({repr(o) for o in options}) == len(options) >= 1
        for o in options:
            assert repr(domain.check(o, "p")) == repr(o)
    assert domain == domain and hash(domain) == hash(domain) and "object at" not in repr(domain)
    with pytest.raises(AttributeError):
        domain.anything = 1


def test_size_and_conditions():
    space = Space(
        Recipe(Shave(ratio=Float(0, 1, step=0.5)), Maybe(Freeze(bits=Choice(4, 8), exact=Choice(True, False))))
    )
    assert space.size == 3 * (1 + 2 * 2)
    assert [h.path for h in space] == ["shave.ratio", "freeze", "freeze.bits", "freeze.exact"]
    assert space["freeze.bits"].when == (("freeze", True),)
    with pytest.raises(InputError, match="shave.ratio"):
        space["nothing"]
    assert Space(Recipe(Shave(ratio=Float(0, 1)))).size == math.inf
    assert Space(Recipe(Shave(ratio=Float(0.5, 0.5)))).size == 1
    assert Space(Recipe(Shave())).at(0) == {}


def test_order_counts_and_ranks():
    order = Order(Shave(ratio=Choice(0.1, 0.2)), Freeze(), Teach())
    space = Space(Recipe(order))
    assert space.size == 12
    assert [order.nth(i) for i in range(6)] == order.options(None)
    eight = Order(*[Shave() for _ in range(8)])
    assert Space(Recipe(eight)).at(40319) == {"order": eight.nth(40319)}
    assert [eight.nth(i) for i in (0, 1, 2)] == eight.options(3)


def test_wide_integers_are_not_listed():
    space = Space(Recipe(Teach(teacher=Int(0, 10**12))))
    assert space.size == 10**12 + 1
    assert space.at(10**12) == {"teach.teacher": 10**12}


def test_sampling_follows_the_domain():
    rng = generator(0)
    log = [Float(1e-4, 1.0, log=True).sample(rng) for _ in range(2000)]
    assert abs(np.mean(np.log10(log)) + 2) < 0.1
    whole = [Int(1, 4).sample(rng) for _ in range(2000)]
    assert set(whole) == {1, 2, 3, 4} and abs(np.mean(whole) - 2.5) < 0.1
    stepped = [Float(0, 0.3, step=0.1).sample(rng) for _ in range(200)]
    assert set(stepped) == {0.0, 0.1, 0.2, 0.3}


def test_the_position_of_a_number():
    assert [Float(-1.0, 3.0).position(v) for v in (-1.0, 0.0, 3.0)] == [0.0, 0.25, 1.0]
    assert [Int(2, 10).position(v) for v in (2, 4, 10)] == [0.0, 0.25, 1.0]
    assert [Int(1, 16, log=True).position(v) for v in (1, 4, 16)] == [0.0, 0.5, 1.0]
    domain = Float(1e-4, 1e-1, log=True)
    assert [domain.position(domain._unit(u)) for u in (0.0, 0.3, 1.0)] == pytest.approx([0.0, 0.3, 1.0])
    assert Float(2.0, 2.0).position(2.0) == 0.0 and Int(3, 3, log=True).position(3) == 0.0


def test_steps_stay_inside():
    assert Float(0, 0.35, step=0.1).options(None) == [0.0, 0.1, 0.2, 0.3]
    with pytest.raises(InputError):
        Float(0, 0.35, step=0.1).check(0.35, "p")
    assert Float(-1, 1, step=0.1).options(None)[10] == 0.0
    assert Float(0, 1e-13, step=2.5e-14).options(None) == pytest.approx([0, 2.5e-14, 5e-14, 7.5e-14, 1e-13])
    assert Float(0, 0.2999999999, step=0.1).sample(generator(3)) <= 0.2999999999


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(1, 0),
        lambda: Float(0, math.inf),
        lambda: Float(math.nan, 1),
        lambda: Float(0, 1, log=True),
        lambda: Float(0, 1, step=0),
        lambda: Float(0, 1, step=math.nan),
        lambda: Float(1, 2, log=True, step=0.1),
        lambda: Float("a", 1),
        lambda: Float(None, 1),
        lambda: Float(True, 2),
        lambda: Float(0, 1, log="false"),
        lambda: Float(0, 10**400),
        lambda: Float(0, 1, step=1e-30),
        lambda: Int(1, 10**400),
        lambda: Int(0, 2**53 + 1),
        lambda: Int(1, 0),
        lambda: Int(0, 3.0),
        lambda: Int(0, 5, log=True),
        lambda: Int(0, 5, step=0),
        lambda: Int(False, 5),
        lambda: Int(1, 5, log=1),
        lambda: Choice(),
        lambda: Choice(1, 1),
        lambda: Choice("a", "a"),
        lambda: Choice(math.nan),
        lambda: Choice(object()),
        lambda: Choice({"a": 1}),
        lambda: Choice(1, name="a.b"),
        lambda: Choice(1, name=5),
        lambda: Choice("shave", Shave()),
        lambda: Maybe(None),
        lambda: Maybe(Maybe(1)),
        lambda: Maybe(math.inf),
        lambda: Order(Shave()),
        lambda: Order(*[1] * 9),
        lambda: Order("a>b", "c"),
    ],
)
def test_bad_domains(make):
    with pytest.raises(InputError) as e:
        make()
    assert str(e.value).count("\n") >= 1  # says what was got or what is allowed


@pytest.mark.parametrize(
    "domain, bad",
    [
        (Float(0, 1), [1.1, -0.1, "0.5", None, True, math.nan, math.inf]),
        (Int(1, 5), [0, 6, 2.5, "2", None, True]),
        (Int(0, 10, step=5), [3]),
        (Float(0, 1, step=0.5), [0.3]),
        (Choice(1, 2), [1.0, True, "1", 3, None]),
        (Choice(Shave(), Freeze()), ["teach", 0, None]),
        (Maybe(1), [0, 1, None, "true"]),
        (Order(Shave(), Freeze()), ["shave", "shave>shave", "freeze>shave>freeze", None, 3]),
    ],
)
def test_bad_values(domain, bad):
    for value in bad:
        with pytest.raises(InputError):
            domain.check(value, "path")


def test_types_of_options_stay_apart():
    choice = Choice(1, 1.0, True, "1")
    assert [type(choice.check(v, "p")) for v in (1, 1.0, True, "1")] == [int, float, bool, str]
    assert Choice(1) != Choice(1.0) != Choice(True) and Maybe(1) != Maybe(True)
    assert Choice(1, 2) == Choice(1, 2) != Choice(2, 1)


def test_numbers_in_a_choice_have_neighbours():
    assert Choice(8, 1, 4, 2).near(4)[:2] in ([8, 2], [2, 8])
    assert Choice("a", "b", "c").near("b") == ["a", "c"]


def test_labels_are_unique():
    named = Choice(Shave(), name="shave_2")
    assert labels([Shave(), Shave(), named, Shave()]) == ["shave", "shave_2", "shave_2_2", "shave_3"]
    assert label(Maybe(Shave())) == "shave" and label(Float(0, 1)) == "float"


def test_fields_are_checked():
    assert Shave(ratio=0) == Shave(ratio=0.0) and type(Shave(ratio=1).ratio) is float
    assert type(Shave(round_to=8.0).round_to) is int
    assert math.copysign(1, Teach(rate=-0.0).rate) == 1
    assert Teach(extra=[1, [2, 3]]).extra == (1, (2, 3))
    for bad in (
        lambda: Shave(ratio=1.5),
        lambda: Shave(ratio="x"),
        lambda: Shave(ratio=None),
        lambda: Shave(ratio=math.nan),
        lambda: Shave(ratio=(0.1, 0.2)),
        lambda: Shave(ratio=Shave()),
        lambda: Shave(ratio=True),
        lambda: Shave(criterion=1),
        lambda: Shave(criterion="none"),
        lambda: Shave(round_to=2.5),
        lambda: Shave(ratio=10**400),
        lambda: Shave(ratio=Float(0, 2)),
        lambda: Shave(ratio=Choice(0.5, "x")),
        lambda: Shave(ratio=Maybe(0.5)),
        lambda: Shave(round_to=Float(1, 8)),
        lambda: Shave(criterion=Order("small", "any")),
        lambda: Shave(ratio=Choice(Freeze(), 0.5)),
        lambda: Shave(round_to=object()),
        lambda: Freeze(exact=1),
        lambda: Freeze(skip="conv"),
        lambda: Freeze(skip=("a", 1)),
        lambda: Teach(teacher=object()),
        lambda: Teach(extra=({"a": 1},)),
        lambda: Teach(rate=math.inf),
        lambda: Freeze(skip=({},)),
    ):
        with pytest.raises(InputError):
            bad()


def test_class_space_opens_declared_ranges():
    opened = Shave.space(criterion="any")
    assert opened.ratio == Float(0.0, 0.8) and opened.criterion == "any" and opened.round_to == 8
    with pytest.raises(InputError, match="no such field"):
        Shave.space(radio=0.5)
    with pytest.raises(InputError):
        Shave.space(ratio=7.0)
    assert dataclasses.replace(opened, ratio=0.5).ratio == 0.5


def test_complete_keeps_what_it_can():
    space = Space(Recipe(Maybe(Shave(ratio=Float(0, 1))), Freeze(bits=Choice(4, 8))))
    assert space.complete({"shave": False, "shave.ratio": 0.3, "freeze.bits": 4}, None) == {
        "shave": False,
        "freeze.bits": 4,
    }
    kept = space.complete({"shave": True, "freeze.bits": 8}, generator(0))
    assert kept["freeze.bits"] == 8 and 0 <= kept["shave.ratio"] <= 1
    with pytest.raises(InputError):
        space.complete({"freeze.bits": 5}, generator(0))
    with pytest.raises(InputError):
        list(space.neighbours({"nowhere": 1}, generator(0)))
