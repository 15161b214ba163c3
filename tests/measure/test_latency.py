"""The statistics of A/B timings: coverage by simulation, ranks against SciPy,
words against intervals."""

import numpy as np
import pytest
from scipy.stats import binom

from featherweight.measure import latency


@pytest.mark.parametrize("n", [6, 7, 10, 25, 100, 1001, 20000])
def test_ranks_are_the_tightest_that_cover(n):
    low, high = latency.median_ranks(n)
    assert low + high == n + 1
    assert 2 * binom.cdf(low - 1, n, 0.5) <= 0.05 < 2 * binom.cdf(low, n, 0.5)


def test_too_few_values_have_no_interval():
    assert [latency.median_ranks(n) for n in range(6)] == [None] * 6 and latency.median_interval([1.0] * 5) is None
    assert latency.median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (3.5, 1.0, 6.0)
    with pytest.raises(ValueError, match="at least 6"):
        latency.ratio([1.0] * 5, [1.0] * 5)


@pytest.mark.parametrize(
    "draw", [lambda r, n: r.normal(size=n), lambda r, n: r.exponential(size=n), lambda r, n: r.standard_cauchy(n)]
)
@pytest.mark.parametrize("n", [6, 20, 101])
def test_interval_covers_the_median_whatever_the_distribution(draw, n):
    rng = np.random.default_rng(n)
    truth = np.median(draw(np.random.default_rng(0), 400_001))
    hits = 0
    for _ in range(2000):
        _, low, high = latency.median_interval(draw(rng, n))
        hits += low <= truth <= high
    assert hits / 2000 > 0.935  # nominal at least 95 %, three standard errors below


def test_ratio_is_paired_so_common_drift_cancels():
    rng = np.random.default_rng(0)
    drift = np.exp(rng.normal(0, 0.7, 40))
    speedup = latency.ratio(3.0 * drift, 2.0 * drift)
    assert (
        speedup["ratio"] == pytest.approx(1.5)
        and speedup["ci95"] == pytest.approx([1.5, 1.5])
        and latency.tight(speedup)
    )


@pytest.mark.parametrize(
    ("ci", "word"),
    [
        ((1.01, 1.2), "faster"),
        ((0.8, 0.99), "slower"),
        ((0.9, 1.1), "no difference shown"),
        ((1.0, 1.2), "no difference shown"),
        ((0.9, 1.0), "no difference shown"),
        ((1.0, 1.0), "no difference shown"),
    ],
)
def test_no_word_without_proof(ci, word):
    assert latency.faster({"ratio": sum(ci) / 2, "ci95": list(ci)}) == word


def test_false_claims_are_rare_when_nothing_differs():
    rng = np.random.default_rng(1)
    words = [latency.faster(latency.ratio(rng.lognormal(0, 0.3, 15), rng.lognormal(0, 0.3, 15))) for _ in range(1000)]
    assert sum(w != "no difference shown" for w in words) <= 65  # at most 5 % + two standard errors


def test_tight_looks_at_the_longer_arm():
    assert latency.tight({"ratio": 1.0, "ci95": [0.981, 1.019]}) and not latency.tight(
        {"ratio": 1.0, "ci95": [0.999, 1.03]}
    )


def test_percentile_is_an_observed_value():
    assert (
        latency.percentile90(list(range(1, 11))) == 9
        and latency.percentile90([5.0]) == 5.0
        and latency.percentile90([1.0, 7.0]) == 7.0
    )
    summary = latency.summary([1.0, 3.0, 2.0], [0.5, 0.7], 0.25)
    quantiles = summary.pop("quantiles")
    assert quantiles == sorted(quantiles) and quantiles[2] == 2.0 and 1.0 < quantiles[0] < quantiles[-1] < 3.0
    assert summary == {"median": 2.0, "p90": 3.0, "n": 3, "cpu_median": 0.6, "load": 0.25}
