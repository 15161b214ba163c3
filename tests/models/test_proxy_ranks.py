import math

import numpy as np
import pytest
from scipy import stats

from featherweight.errors import InputError
from featherweight.models.proxy_ranks import agreement, kendall, spearman, threshold
from featherweight.seeding import generator


def test_against_scipy():
    rng = generator(0)
    x = rng.integers(0, 8, 40).astype(float)  # with ties
    y = x + rng.normal(0, 3, 40)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_minus_infinity_is_the_lowest_score():
    assert spearman([-math.inf, 1, 2, 3], [0, 1, 2, 3]) == pytest.approx(1.0)
    assert kendall([-math.inf, -math.inf, 2, 3], [0, 0, 2, 3]) == pytest.approx(1.0)


def test_interval_covers_as_often_as_it_says():
    """Of a bivariate normal with correlation r Spearman's rho is 6/pi asin(r/2) (Pearson 1907)."""
    r, held = 0.6, 0
    rho = 6 / math.pi * math.asin(r / 2)
    for seed in range(200):
        rng = generator(seed)
        x = rng.normal(size=60)
        found = agreement("p", x, r * x + math.sqrt(1 - r * r) * rng.normal(size=60), rng, resamples=300)
        held += found["ci95"][0] <= rho <= found["ci95"][1]
    assert 176 <= held <= 199  # 88 % to 99.5 %


def test_agreement_says_what_it_is():
    found = agreement("synflow", [1, 2, 3, 5, 4], [1, 2, 3, 4, 5], generator(0))
    assert (
        found["proxy"] == "synflow"
        and found["n"] == 5
        and found["spearman"] == pytest.approx(0.9)
        and found["kendall"] == pytest.approx(0.8)
    )
    assert found["ci95"][0] <= 0.9 <= found["ci95"][1] <= 1.0 + 1e-12
    assert found == agreement("synflow", [1, 2, 3, 5, 4], [1, 2, 3, 4, 5], generator(0))
    constant = agreement("p", [1, 1, 1], [1, 2, 3], generator(0))
    assert constant == {"proxy": "p", "n": 3, "spearman": None, "ci95": None, "kendall": None}


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, math.nan], [1, 2, 3])])
def test_refuses(x, y):
    with pytest.raises(InputError):
        spearman(x, y)


def test_threshold():
    scores = list(np.arange(10.0))
    assert threshold(scores, 0.3) == 7.0 and sum(s >= 7.0 for s in scores) == 3
    assert threshold(scores, 1.0) == 0.0 and threshold(scores, 1e-6) == 9.0 and threshold([4.0], 0.5) == 4.0
    assert threshold([1.0, -math.inf], 1.0) == -math.inf
    for wrong in (([], 0.5), ([math.nan], 0.5), ([1.0], 0.0), ([1.0], 1.5)):
        with pytest.raises(InputError):
            threshold(*wrong)
