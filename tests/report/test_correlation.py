import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from featherweight.report.correlation import MIN_TRIALS, correlations


def test_it_is_spearmans_with_ties():
    rng = np.random.default_rng(0)
    better = rng.integers(0, 8, 60).astype(float)
    features = [{"a": float(b + rng.normal()), "b": float(round(-b + rng.normal()))} for b in better]
    found = {c.feature: c for c in correlations(features, list(better), 0)}
    for name, c in found.items():
        assert c.rho == pytest.approx(spearmanr([f[name] for f in features], better).statistic)
        assert c.low <= c.rho <= c.high and c.n == 60
    assert found["a"].low > 0 > found["b"].high


def test_largest_first_and_reproducible():
    rng = np.random.default_rng(1)
    better = rng.normal(size=50)
    features = [{"noise": float(rng.normal()), "same": float(-b)} for b in better]
    found = correlations(features, list(better), 0)
    assert [c.feature for c in found] == ["same", "noise"] and found[0].rho == pytest.approx(-1)
    assert found[1].low < 0 < found[1].high
    assert correlations(features, list(better), 0) == found


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    # Spearman's rho of a bivariate normal with correlation 0.6
    truth = 6 / math.pi * math.asin(0.6 / 2)
    held = 0
    for i in range(60):
        a = rng.normal(size=60)
        b = 0.6 * a + 0.8 * rng.normal(size=60)
        c = correlations([{"x": float(v)} for v in a], list(b), i)[0]
        held += c.low <= truth <= c.high
    assert held >= 51


def test_what_cannot_be_told_is_left_out():
    few = [{"a": float(i)} for i in range(MIN_TRIALS - 1)]
    assert correlations(few, [float(i) for i in range(MIN_TRIALS - 1)], 0) == ()
    n = 20
    features = [
        {"constant": 1.0, "lost": math.nan, "rare": 1.0} if i < 3 else {"constant": 1.0, "lost": math.inf}
        for i in range(n)
    ]
    assert correlations(features, [float(i) for i in range(n)], 0) == ()
    assert correlations([], [], 0) == ()
    assert correlations([{"a": float(i)} for i in range(n)], [0.5] * n, 0) == ()
