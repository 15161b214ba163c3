import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers.nsgaii._elite_population_selection_strategy import _calc_crowding_distance
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import create_trial

from featherweight.errors import InputError
from featherweight.pareto import crowding, dominates, front, hypervolume, ranks

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
    """Integer points: the volume is the number of unit cells of the box that some
    point dominates."""
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
    assert front([(float("inf"), 1.0), (1.0, float("inf"))]) == [1, 0] and front(
        [(2.0, float("inf")), (2.0, float("inf"))]
    ) == [0]


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


def brute_ranks(points, violations):
    """By the definition: peel what no remaining one dominates (Deb et al. 2002,
    definition 1); NaN last."""
    bad = {i for i, p in enumerate(points) if any(x != x for x in (*p, violations[i]))}

    def better(i, j):
        vi, vj = max(violations[i], 0.0), max(violations[j], 0.0)
        return vi < vj or (vi == vj == 0 and dominates(points[i], points[j]))

    out, left, level = [0] * len(points), set(range(len(points))) - bad, 0
    while left:
        now = {j for j in left if not any(better(i, j) for i in left)}
        for j in now:
            out[j] = level
        left, level = left - now, level + 1
    for i in bad:
        out[i] = level
    return out


@given(
    points, st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, float("nan")]), min_size=12, max_size=12), st.booleans()
)
@settings(max_examples=200, deadline=None)
def test_ranks_are_what_peeling_gives(ps, broken, spoiled):
    if spoiled and ps:
        ps[0] = (float("nan"), *ps[0][1:])
    broken = broken[: len(ps)]
    assert ranks(ps, broken).tolist() == brute_ranks(ps, broken)
    assert ranks(ps).tolist() == brute_ranks(ps, [0.0] * len(ps))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_ranks_and_crowding_are_optunas(objectives):
    rng = np.random.default_rng(objectives)
    ps = rng.integers(0, 9, (150, objectives)).astype(float)
    broken = np.where(rng.random(150) < 0.4, rng.integers(1, 5, 150), 0).astype(float)
    assert (ranks(ps, broken) == _fast_non_domination_rank(ps, penalty=broken)).all()
    assert (ranks(ps) == _fast_non_domination_rank(ps)).all()
    first = rng.random((40, objectives))
    trials = [create_trial(values=list(p)) for p in first]
    for number, trial in enumerate(trials):
        trial.number = number
    theirs = _calc_crowding_distance(trials)
    assert crowding(first) == pytest.approx([theirs[i] for i in range(40)])


def test_crowding_of_a_known_front():
    assert crowding([(0.0, 4.0), (1.0, 2.0), (4.0, 0.0)]).tolist() == [np.inf, 2.0, np.inf]
    assert crowding([(0.0, 4.0), (3.0, 1.0), (1.0, 2.0), (4.0, 0.0)]).tolist() == pytest.approx(
        [np.inf, 0.75 + 0.5, 0.75 + 0.75, np.inf]
    )
    assert (
        crowding([]).tolist() == []
        and crowding([(1.0, 2.0)]).tolist() == [0.0]
        and crowding([(1.0,), (1.0,)]).tolist() == [0.0, 0.0]
    )


def test_ranks_edges():
    assert ranks([]).tolist() == [] and ranks([(1.0, 2.0)]).tolist() == [0]
    assert ranks([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0)]).tolist() == [0, 0, 1]
    assert ranks([(float("nan"), 1.0)] * 2).tolist() == [0, 0]
    assert ranks([(5.0,), (1.0,), (2.0,)], [0.0, 3.0, 1.0]).tolist() == [0, 2, 1]
    with pytest.raises(InputError):
        ranks([(1.0,)], [0.0, 1.0])


def test_ranks_of_thousands():
    rng = np.random.default_rng(0)
    for m in (1, 2, 3):
        ps = rng.random((2000, m))
        found = ranks(ps)
        assert set(np.flatnonzero(found == 0)) == set(front(ps.tolist())) and set(found) == set(
            range(int(found.max()) + 1)
        )
