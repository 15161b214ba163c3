import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.pareto import dominates, front, hypervolume

points = st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * m), max_size=12))


@given(points)
@settings(max_examples=150, deadline=None)
def test_front_is_what_nothing_dominates(ps):
    """Against the definition, point by point; of equal points the first."""
    expected = {i for i, p in enumerate(ps) if not any(dominates(q, p) for q in ps) and p not in ps[:i]}
    found = front(ps)
    assert set(found) == expected and len(found) == len(expected)
    assert [ps[i][0] for i in found] == sorted(ps[i][0] for i in found)


@given(points)
@settings(max_examples=150, deadline=None)
def test_hypervolume_counts_cells(ps):
    """Integer points: the volume is the number of unit cells of the box that some point dominates."""
    m = len(ps[0]) if ps else 2
    cells = np.stack(np.meshgrid(*[np.arange(5)] * m, indexing="ij"), -1).reshape(-1, m)
    covered = np.zeros(len(cells), bool)
    for p in ps:
        covered |= (cells >= np.asarray(p)).all(1)
    assert hypervolume(ps, [5.0] * m) == pytest.approx(covered.sum())


@given(points, points)
@settings(max_examples=50, deadline=None)
def test_more_points_never_cost_volume(a, b):
    b = [p for p in b if not a or len(p) == len(a[0])]
    m = len((a + b)[0]) if a + b else 2
    assert hypervolume(a + b, [7.0] * m) >= hypervolume(a, [7.0] * m)


def test_known_values():
    assert hypervolume([(1, 2), (2, 1)], (3, 3)) == 3.0
    assert hypervolume([(1, 1, 1)], (2, 3, 4)) == 6.0
    assert hypervolume([(0.25,), (0.5,)], (1.0,)) == 0.75
    assert hypervolume([(3, 3)], (3, 3)) == hypervolume([], (3, 3)) == 0.0


def test_edges():
    assert front([]) == [] and front([(1.0,)]) == [0] and front([(1.0, 2.0), (1.0, 2.0)]) == [0]
    assert front([(2.0,), (1.0,), (1.0,)]) == [1]
    assert front([(float("nan"), 0.0), (1.0, 1.0)]) == [1] and front([(float("nan"),)]) == []
    assert front([(float("inf"), 1.0), (1.0, float("inf"))]) == [1, 0] and front([(2.0, float("inf")), (2.0, float("inf"))]) == [0]


def test_dominance():
    assert dominates((1, 1), (1, 2)) and not dominates((1, 1), (1, 1)) and not dominates((1, 2), (2, 1))
    with pytest.raises(ValueError):
        dominates((1,), (1, 2))


def test_large_fronts_are_fast():
    rng = np.random.default_rng(0)
    two = rng.random((50_000, 2)).tolist()
    assert 1 < len(front(two)) < 100
    x = np.linspace(0, 1, 3000)
    assert len(front(list(zip(x, 1 - x, strict=True)))) == 3000
