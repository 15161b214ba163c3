import math

import numpy as np
import pytest

from featherweight.recipe import Recipe
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from featherweight.space.encode import DEAD, Description, Encoding
from featherweight.testing.strategies import Other, Step, finite_space, mixed_space


def test_numbers_lie_in_the_unit_interval():
    space = Space(Recipe(Step(a=Float(1e-4, 1e-2, log=True), b=Int(1, 16, log=True)), Other(c=Float(3.0, 3.0))))
    row = Encoding(space).rows([{"step.a": 1e-3, "step.b": 4, "other.c": 3.0}])[0]
    assert row.tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert Encoding(Space(Recipe(Step(b=Int(2, 10))))).rows([{"step.b": 4}]).tolist() == [[0.25]]


def test_rows_of_equal_fillings_alone_are_equal():
    space = finite_space()
    rows = Encoding(space).rows([space.at(i) for i in range(24)])
    assert len(np.unique(rows, axis=0)) == 24


def test_dead_holes_and_orders():
    space = Space(Recipe(Maybe(Step(a=Float(0, 1))), Order(Other(), Step(), Recipe(Other()))))
    encoding = Encoding(space)
    fillings = [space.sample(generator(i)) for i in range(30)]
    rows = encoding.rows(fillings)
    for filling, row in zip(fillings, rows, strict=True):
        assert (row[encoding.start["step.a"]] == DEAD) == (not filling["step"]) if "step.a" in encoding.start else True
        assert row.min() >= DEAD and row.max() <= 1.0
    assert encoding.rows([]).shape == (0, encoding.width)


def test_sums_over_holes_alike():
    """Two holes of equal domains: the description counts each option;
    the third hole has another domain."""
    same = Choice("x", "y")
    space = Space(Recipe(Step(mode=same), Other(mode=same), Step(mode=Choice("x", "z"))))
    names = [h.path for h in space.holes]
    values = dict(zip(names, ("x", "x", "z"), strict=True))
    description = Description(space)
    row = description.rows([values])[0]
    assert description.width == len(row) == 8 and row[-2:].tolist() == [2.0, 0.0]


def test_features_are_signed_logs_in_order_of_name():
    known = {"macs": 99.0, "about": -9.0, "odd": math.nan}
    space = Space(
        Recipe(Step(b=Int(1, 3))),
        features=lambda tree: known,
        refuses=lambda tree: "no" if tree.steps[0].b == 3 else None,
    )
    description = Description(space)
    assert not description.learn([{"step.b": 3}]) and description.width == 1
    assert description.learn([{"step.b": 3}, {"step.b": 1}]) and not description.learn([{"step.b": 2}])
    rows = description.rows([{"step.b": 1}, {"step.b": 3}])
    assert rows.tolist() == pytest.approx(np.array([[0.0, -math.log(10), math.log(100), 0.0], [1.0, 0.0, 0.0, 0.0]]))


def test_no_holes():
    assert Description(Space(Recipe(Step()))).rows([{}]).shape == (1, 0)


def test_mixed_space_is_finite():
    space = mixed_space()
    assert np.isfinite(Description(space).rows([space.sample(generator(i)) for i in range(50)])).all()
