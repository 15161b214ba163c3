"""Failures that no sample has shown: exact cases, a simulation, and what is left of old studies."""

import math

import pytest
from scipy import integrate, stats

from featherweight.proof.chance import chance
from featherweight.proof.unseen import hidden, p_value, provable
from featherweight.records import Paired


@pytest.mark.parametrize("n", [1, 5, 59, 300])
def test_without_any_difference_it_is_the_probability_of_no_failure(n):
    assert p_value(0.0, 0.0, n, 1.0, 0.05) == pytest.approx(0.95**n)
    assert p_value(0.0, 1e-12, n, 1.0, 0.05) == pytest.approx(0.95**n, rel=0.02)  # the integral's limit
    assert p_value(0.0, 0.0, n, 0.05, 0.05) == 0.0 and p_value(0.06, 0.0, n, 1.0, 0.05) == 1.0


@pytest.mark.parametrize(
    ("d", "e", "n", "cost"), [(0.002, 0.004, 400, 0.9), (0.0, 0.001, 40, 3.0), (-0.01, 0.02, 9, 0.2)]
)
def test_the_integral_is_that_of_both_distributions(d, e, n, cost):
    def inner(r):
        return n * (1 - r) ** (n - 1) * stats.t.cdf((d + r * cost - 0.01) / e, n - 1)

    wanted, _ = integrate.quad(inner, 0, 1, points=[1 / n, 10 / n] if n > 10 else None, limit=400)
    got = p_value(d, e, n, cost, 0.01, lambda x: float(stats.t.cdf(x, n - 1)))
    assert got == pytest.approx(wanted, abs=2e-4)


def test_no_cost_leaves_the_drop_alone():
    assert p_value(0.0, 0.004, 1000, 0.0, 0.01) == pytest.approx(stats.norm.cdf(-2.5), rel=1e-3)


def test_what_can_be_proven_is_where_the_probability_is_the_level():
    most = provable(0.002, 800, 0.9, 0.01, 0.045)
    assert 0 < most < 0.01 and p_value(most, 0.002, 800, 0.9, 0.01) == pytest.approx(0.045, abs=1e-3)
    assert provable(0.0, 5, 0.9, 0.01, 0.045) < -0.4  # so few samples prove only what is far better


def test_a_chance_counts_them_and_that_of_older_studies_does_not():
    few, old = Paired(0.0, 40, 0.001, cost=0.9), Paired(0.0, 40, 0.001)
    assert chance(few, 40, 0.01) < 0.01 and chance(old, 40, 0.01) > 0.99
    assert chance(Paired(0.0, 2000, 0.001, cost=0.9), 2000, 0.01) > 0.99
    assert not math.isnan(chance(Paired(0.0, 40, 0.0, cost=0.9), 40, 0.01))


def test_what_is_hidden_is_the_least_limit_of_what_never_differs():
    for n, cost, level in ((88, 6.0, 0.045), (1000, 1.0, 0.05)):
        least = hidden(n, cost, level)
        assert p_value(0.0, 0.0, n, cost, least * 1.001) < level
        assert p_value(0.0, 0.0, n, cost, least * 0.999) > level
