"""The race: the capital process as the paper writes it, coverage at every look by simulation,
power, and the edges."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.errors import InputError
from featherweight.measure.race import TRUNCATION, Verdict, above, below, bets, interval, log_capital, race


def batches(scores, size=16):
    return (scores[i : i + size] for i in range(0, len(scores), size))


def capital_as_written(x, m, total, alpha, sign):
    """Waudby-Smith & Ramdas, Theorem 3 without replacement, one draw at a time; infinite once the
    draws make m impossible."""
    out, capital = [1.0], 1.0
    for t in range(1, len(x) + 1):
        before = x[: t - 1]
        means = [(0.5 + sum(before[:i])) / (i + 1) for i in range(1, t)]
        variance = (0.25 + sum((v - u) ** 2 for v, u in zip(before, means, strict=True))) / t
        bet = math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(1 + t)))
        # outside [0, 1] m is impossible, for one side or the other
        m_t = min(max((total * m - sum(before)) / (total - t + 1), 0.0), 1.0)
        room = m_t if sign > 0 else 1 - m_t
        after = total * m - sum(x[:t])  # what the draws to come must add up to
        if capital == math.inf or (sign > 0 and after < -1e-9) or (sign < 0 and after > total - t + 1e-9):
            capital = math.inf
        else:
            bet = min(bet, TRUNCATION / room) if room > 1e-12 else bet
            capital *= 1 + sign * bet * (x[t - 1] - m_t)
        out.append(capital)
    return np.array(out)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    x=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=25),
    extra=st.integers(1, 40),
    m=st.integers(0, 64),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_the_capital_is_the_one_of_the_paper(x, extra, m, alpha):
    x, total, m = np.array(x), len(x) + extra, m / 64
    np.testing.assert_allclose(
        np.exp(log_capital(x, m, total, alpha)), capital_as_written(x, m, total, alpha, 1), rtol=1e-6
    )
    np.testing.assert_allclose(
        np.exp(log_capital(1 - x, 1 - m, total, alpha)), capital_as_written(x, m, total, alpha, -1), rtol=1e-6
    )


def test_the_capital_has_mean_one_if_m_is_right():
    """Over all orders of a small population the capital after each draw averages exactly 1: it is a
    fair game (a martingale)."""
    population = (0.0, 0.5, 0.5, 1.0, 0.25)
    m = sum(population) / 5
    paths = np.array([np.exp(log_capital(np.array(p[:4]), m, 5, 0.05)) for p in permutations(population)])
    np.testing.assert_allclose(paths.mean(0), 1.0, rtol=1e-9)


def test_a_bet_looks_at_the_past_only():
    x = np.array([0.5, 1.0, 0.0, 0.5])
    y = np.array([0.5, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(bets(x, 0.05)[:3], bets(y, 0.05)[:3])
    assert bets(x, 0.05)[3] != bets(y, 0.05)[3]


def population(n, worse, better):
    """(baseline, candidate) scores of a split: `worse` samples that only the baseline gets right,
    `better` that only the candidate does."""
    base, candidate = np.ones(n), np.ones(n)
    candidate[:worse] = 0
    base[worse : worse + better] = 0
    return base, candidate


@pytest.mark.parametrize(("worse", "better"), [(12, 0), (30, 10), (80, 60)])
def test_the_interval_covers_at_every_look(worse, better):
    n, misses, paths = 400, 0, 300
    base, candidate = population(n, worse, better)
    truth = ((worse - better) / n + 1) / 2
    for i in range(paths):
        order = np.random.default_rng([7, i]).permutation(n)
        x = ((base - candidate)[order] + 1) / 2
        # at any moment up to the last sample
        misses += above(x, truth, n, 0.05) or below(x, truth, n, 0.05)
    assert misses / paths <= 0.05


@pytest.mark.parametrize(("worse", "held"), [(8, True), (9, False)])
def test_a_sure_verdict_is_seldom_wrong(worse, held):
    """The drop lies at the limit, or just above it: the hardest case."""
    n, wrong = 400, 0
    base, candidate = population(n, worse, 0)
    for i in range(120):
        order = np.random.default_rng([8, i]).permutation(n)
        v = race(base[order], batches(candidate[order], 40), max_drop=0.02)
        wrong += v.held is not held
    assert wrong / 120 <= 0.05


def test_a_big_drop_is_found_with_few_samples():
    base, candidate = population(5000, 1500, 0)
    order = np.random.default_rng(0).permutation(5000)
    v = race(base[order], batches(candidate[order]), max_drop=0.01)
    assert not v.held and v.sure and v.n <= 100
    assert 0.01 < v.low <= 0.3 <= v.high


@pytest.mark.parametrize("max_drop", [0.0, 0.005, 0.02])
def test_the_same_model_never_loses(max_drop):
    base = (np.random.default_rng(1).random(1000) < 0.7).astype(float)
    v = race(base, batches(base), max_drop)
    assert v.held and v.drop == 0
    assert v.sure is (max_drop > 0) and v.n == {0.0: 1000, 0.005: v.n, 0.02: v.n}[max_drop]
    assert max_drop < 0.02 or v.n < 400  # a lenient limit is decided early


def test_no_batch_is_read_that_is_not_needed():
    base, candidate = population(1000, 1000, 0)
    read = []

    def source():
        for b in batches(candidate):
            read.append(len(b))
            yield b

    v = race(base, source(), 0.01)
    assert sum(read) == v.n < 100 and not v.held


def test_the_whole_split_decides_exactly():
    base, candidate = population(100, 3, 1)
    assert race(base, batches(candidate, 100), 0.02) == Verdict(True, False, 0.02, 0.02, 0.02, 100)
    assert race(base, batches(candidate, 100), 0.0199).held is False


def test_unbounded_scores_are_never_stopped_early():
    base = np.zeros(300)
    v = race(base, batches(np.full(300, -5.0)), 0.1, bounds=None)
    assert v == Verdict(False, False, 5.0, 5.0, 5.0, 300)


def test_other_bounds_give_the_same_race():
    base, candidate = population(500, 60, 10)
    order = np.random.default_rng(3).permutation(500)
    one = race(base[order], batches(candidate[order]), 0.01)
    ten = race(10 * base[order], batches(10 * candidate[order]), 0.1, bounds=(-10, 10))
    assert (one.held, one.sure, one.n) == (ten.held, ten.sure, ten.n)
    assert ten.drop == pytest.approx(10 * one.drop) and ten.high == pytest.approx(10 * one.high)


def test_one_sample():
    assert race(np.ones(1), [np.ones(1)], 0.0) == Verdict(True, False, 0.0, 0.0, 0.0, 1)
    assert race(np.ones(1), [np.zeros(1)], 0.5).held is False
    assert race(np.ones(1), [np.zeros(1)], 1.0).held is True


def test_before_the_first_sample_nothing_is_known():
    assert interval(np.empty(0), 10, 0.05) == (0.0, 1.0)


def test_what_was_drawn_bounds_the_rest():
    """9 of 10 samples seen, all 1: the mean is at least 0.9, whatever the bets say."""
    low, high = interval(np.ones(9), 10, 0.05)
    assert low == pytest.approx(0.9, abs=1e-6) and high == 1.0


@pytest.mark.parametrize(
    ("base", "scores", "more", "match"),
    [
        (np.empty(0), [np.empty(0)], {}, "at least one sample"),
        (np.ones(3), [np.ones(2)], {}, "do not match"),
        (np.ones(3), [np.ones(4)], {}, "do not match"),
        (np.ones(3), [np.full(3, 3.0)], {}, "outside the bounds"),
        (np.ones(3), [np.full(3, np.nan)], {}, "outside the bounds"),
        (np.ones(3), [np.ones(3)], {"max_drop": math.nan}, "cannot be run"),
        (np.ones(3), [np.ones(3)], {"alpha": 0.0}, "cannot be run"),
    ],
)
def test_what_is_no_race(base, scores, more, match):
    with pytest.raises(InputError, match=match):
        race(base, scores, **{"max_drop": 0.01, **more})
