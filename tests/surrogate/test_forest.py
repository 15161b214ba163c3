import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from featherweight.errors import InputError
from featherweight.pareto import hypervolume
from featherweight.seeding import generator
from featherweight.surrogate.acquire import directions, hypervolume_gain, log_below, log_ei, log_h, normal_scores
from featherweight.surrogate.forest import Forest, same_leaf


def data(n=60, d=4, seed=0):
    rng = generator(seed)
    x = rng.random((n, d))
    return x, 3 * x[:, 0] + np.sin(6 * x[:, 1])


def test_interpolates_and_is_sure_where_it_was():
    x, y = data()
    mean, var = Forest(x, y, 0).ask(x).moments()
    assert mean == pytest.approx(y) and var == pytest.approx(np.zeros(60), abs=1e-9)


@pytest.mark.parametrize("extra", [True, False])
def test_predicts_what_it_has_not_seen(extra):
    x, y = data(300)
    mean, var = Forest(x[:200], y[:200], 0, extra=extra).ask(x[200:]).moments()
    assert np.corrcoef(mean, y[200:])[0, 1] > 0.95 and (var > 0).mean() > 0.9


def test_leaf_statistics_are_those_of_scikit_learn():
    """With leaves of several rows: a tree's own value and impurity are the mean and variance."""
    x, y = data()
    forest = Forest(x, y, 3, trees=5, min_leaf=6)
    leaves = forest.ask(x)
    for tree, mean, var, leaf in zip(forest._trees, leaves.mean, leaves.var, leaves.leaf, strict=True):
        assert mean == pytest.approx(tree.value[leaf, 0, 0]) and var == pytest.approx(tree.impurity[leaf], abs=1e-9)
        assert np.bincount(leaf)[leaf].min() >= 6


def test_law_of_total_variance():
    """The mixture of the leaves, drawn from directly."""
    x, y = data()
    leaves = Forest(x, y, 1, trees=6, min_leaf=8).ask(x[:1])
    rng = generator(1)
    tree = rng.integers(6, size=400_000)
    drawn = leaves.mean[tree, 0] + np.sqrt(leaves.var[tree, 0]) * rng.standard_normal(len(tree))
    mean, var = leaves.moments()
    assert drawn.mean() == pytest.approx(mean[0], abs=0.01) and drawn.var() == pytest.approx(var[0], rel=0.02)


def test_other_targets_in_the_same_leaves():
    x, y = data()
    forest = Forest(x, y, 0, min_leaf=5)
    plain, other = forest.ask(x), forest.ask(x, 2 * y + 1)
    assert other.mean == pytest.approx(2 * plain.mean + 1) and other.var == pytest.approx(4 * plain.var)


def test_same_seed_same_forest():
    x, y = data()
    a, b, c = (Forest(x, y, s, min_leaf=3).ask(x).mean for s in (1, 1, 2))
    assert (a == b).all() and (a != c).any()


def test_one_row_and_no_column():
    assert Forest(np.ones((1, 2)), np.array([3.0]), 0).ask(np.zeros((2, 2))).moments()[0].tolist() == [3.0, 3.0]
    assert Forest(np.ones((4, 0)), np.arange(4.0), 0, trees=2).ask(np.ones((1, 0))).moments()[0].tolist() == [1.5]


@pytest.mark.parametrize(
    "x, y",
    [(np.array([[np.nan]]), [1.0]), (np.array([[1.0]]), [np.inf]), (np.empty((0, 1)), []), (np.ones((2, 1)), [1.0])],
)
def test_refuses_what_is_no_number(x, y):
    with pytest.raises(InputError):
        Forest(x, np.array(y), 0)


def test_same_leaf():
    ours, theirs = np.array([[1, 2], [3, 3]]), np.array([[1], [3]])
    assert same_leaf(ours, theirs).tolist() == [[1.0], [0.5]]
    x, y = data()
    leaf = Forest(x, y, 0).ask(x).leaf
    assert same_leaf(leaf, leaf) == pytest.approx(np.eye(60))


@pytest.mark.parametrize("mean, var, best", [(0.0, 1.0, 0.5), (2.0, 0.25, 0.0), (-1.0, 4.0, 1.0), (3.0, 1.0, 0.0)])
def test_log_ei_by_integration(mean, var, best):
    wanted = quad(lambda y: (best - y) * norm.pdf(y, mean, var**0.5), mean - 15 * var**0.5, best, epsabs=1e-14)[0]
    assert float(log_ei(np.array([mean]), np.array([var]), best)[0]) == pytest.approx(np.log(wanted), rel=1e-6)


def test_log_h_is_smooth_and_finite():
    z = np.concatenate([-np.logspace(7, -3, 400), np.linspace(0, 40, 50)])
    h = log_h(z)
    assert np.isfinite(h).all() and (np.diff(h) > 0).all()
    for edge in (-1.0, -1e3):
        below, above = log_h(np.array([edge - 1e-6, edge + 1e-6]))
        assert above - below == pytest.approx(-edge * 2e-6, rel=0.6, abs=1e-4 * abs(edge))
    # h(z) = phi(z) (z^-2 - 3 z^-4 + 15 z^-6 ...)
    asymptote = -0.5 * 400 - 0.5 * np.log(2 * np.pi) + np.log(1 / 400 - 3 / 160_000 + 15 / 64e6)
    assert float(log_h(np.array([-20.0]))[0]) == pytest.approx(asymptote, abs=1e-5)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_hypervolume_gain_is_hypervolume(m):
    """Up to one factor, which the empty front tells: gains are differences of the
    exact hypervolume."""
    rng = generator(m)
    front, points, reference = rng.random((6, m)), rng.random((20, m)), np.ones(m)
    ways = directions(m, 40_000, rng)
    held = hypervolume(front.tolist(), reference)
    wanted = [hypervolume([*front.tolist(), p], reference) - held for p in points.tolist()]
    corner = hypervolume_gain(np.zeros((1, 1, m)), np.empty((0, m)), reference, ways)[0]  # of a volume of 1
    got = hypervolume_gain(points[None], front, reference, ways) / corner
    assert got == pytest.approx(wanted, abs=0.01)
    assert max(wanted) > 0.02 or m == 1


def test_log_below():
    """Against the normal distribution; finite far out."""
    mean, var = np.array([0.0, 1.0, -2.0, 50.0]), np.array([0.99, 0.24, 0.99, 0.0])
    wanted = norm.logcdf((0.5 - mean) / np.sqrt(var + 0.01))
    assert log_below(mean, var, 0.5) == pytest.approx(wanted) and np.isfinite(wanted).all()


def test_normal_scores():
    scores = normal_scores(np.array([1e9, 1.0, 5.0, 1e-9, 5.0]))
    assert np.argsort(scores).tolist()[0] == 3 and scores[2] == scores[4] and scores[0] == pytest.approx(-scores[3])
    assert scores == pytest.approx(normal_scores(np.array([4.0, 1.0, 2.0, 0.0, 2.0])))
    assert normal_scores(np.array([7.0])).tolist() == [0.0]
