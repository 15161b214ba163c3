"""What valid tells of a certificate to come, against simulation; the levels of a family."""

import math

import numpy as np
import pytest
from scipy import stats

from featherweight.measure.paired import p_value
from featherweight.proof.chance import allowance, chance, needed, outlook, provable, recovered
from featherweight.proof.levels import ALPHA, FIRST, next_level
from featherweight.proof.tango import score
from featherweight.records import Paired


def counted(lost, won, n):
    drop = (lost - won) / n
    return Paired(drop, n, math.sqrt((lost + won) / n - drop**2), lost, won)


@pytest.mark.parametrize(
    ("lost", "won", "n", "m"), [(0, 0, 360, 717), (3, 1, 360, 717), (5, 5, 360, 717), (10, 5, 2000, 2000)]
)
def test_the_chance_is_about_what_simulation_gives(lost, won, n, m):
    rng = np.random.default_rng(0)
    rates = rng.dirichlet([lost + 0.5, won + 0.5, n - lost - won], 2000)
    passed = [
        stats.norm.cdf(score(b, c, m, 0.01)) <= ALPHA * FIRST for b, c, _ in (rng.multinomial(m, r) for r in rates)
    ]
    assert chance(counted(lost, won, n), m, 0.01) == pytest.approx(np.mean(passed), abs=0.08)


def test_the_chance_falls_with_the_drop_and_rises_with_the_samples():
    by_drop = [chance(counted(lost, 2, 360), 717, 0.01) for lost in range(8)]
    assert by_drop == sorted(by_drop, reverse=True)
    by_samples = [chance(counted(2, 2, 360), m, 0.01) for m in (100, 300, 1000, 3000, 10_000)]
    assert by_samples == sorted(by_samples)


def test_the_allowance_is_where_the_chance_is_the_confidence():
    for confidence in (0.2, 0.5, 0.9):
        p = Paired(0.002, 400, 0.05)
        at = allowance(p, 1000, 0.01, confidence)
        assert chance(Paired(at, 400, 0.05), 1000, 0.01) == pytest.approx(confidence, abs=1e-9)


def test_what_can_be_proven_and_what_it_needs_agree():
    most = provable(0.01, 717, 0.01)
    assert 0.001 < most < 0.004
    # at the rate of differing, the counts at this drop are just significant
    b, c = 717 * (0.01 + most) / 2, 717 * (0.01 - most) / 2
    assert stats.norm.cdf(score(b, c, 717, 0.01)) == pytest.approx(ALPHA * FIRST, rel=0.02)
    enough = needed(0.005, 0.01, 0.01)
    assert provable(0.01, enough, 0.01) >= 0.005 > provable(0.01, int(enough * 0.98), 0.01)
    assert needed(0.01, 0.02, 0.01) is None and provable(0.05, 20, 0.0001) == -math.inf


def test_the_outlook_goes_by_what_was_seen():
    before, after = outlook(717, 0.01), outlook(717, 0.01, [counted(12, 6, 360)] * 3)
    assert before["assumed"] and not after["assumed"]
    assert after["differing"] == pytest.approx(19 / 361) and (after["provable"] or -1) < before["provable"]
    values = outlook(1000, 0.1, [Paired(0.01, 300, 0.5)])
    assert values["sd"] == 0.5 and values["provable"] == pytest.approx(0.1 - 1.6954 * 0.5 / math.sqrt(1000), abs=1e-4)


def test_longer_recovery_takes_away_a_share_of_what_is_lost_beyond_what_is_won():
    half = recovered(counted(10, 1, 100), 0.5)
    assert (half.lost, half.won, half.drop) == pytest.approx((5.5, 1, 0.045))
    assert half.sd == pytest.approx(math.sqrt(0.065 - 0.045**2))
    assert recovered(counted(1, 3, 100), 0.5) == counted(1, 3, 100)
    assert recovered(Paired(0.4, 50, 1.0), 0.25) == Paired(0.1, 50, 1.0)


def test_levels_are_passed_on_and_sum_to_alpha():
    assert next_level([]) == pytest.approx(ALPHA * FIRST)
    assert next_level([True]) == pytest.approx(ALPHA * (FIRST + (1 - FIRST) / 2))
    assert next_level([True] * 100_000) == pytest.approx(ALPHA, abs=1e-5)
    assert next_level([False]) == pytest.approx(ALPHA * (1 - FIRST) / 2)
    assert sum(next_level([False] * k) for k in range(2000)) == pytest.approx(ALPHA, abs=1e-5)


def test_the_p_value_is_exact_where_little_differs():
    # of all pairs of models at the limit, the likeliest to look as good; by summing every table
    for lost, won, n, limit in ((0, 0, 270, 0.01), (2, 1, 300, 0.02), (3, 0, 717, 0.01)):
        seen, worst = score(lost, won, n, limit) + 1e-9, 0.0
        for rate in np.linspace(0, 0.03, 61):
            total = 0.0
            for b in range(60):
                row = stats.multinomial.pmf(
                    [[b, c, n - b - c] for c in range(40)], n, [rate + limit, rate, 1 - 2 * rate - limit]
                )
                total += sum(p for c, p in enumerate(row) if score(b, c, n, limit) <= seen)
            worst = max(worst, total)
        assert worst - 1e-4 <= p_value(counted(lost, won, n), limit) <= worst + 2e-3


def test_one_look_at_a_true_drop_at_the_limit_is_seldom_a_certificate():
    rng, n = np.random.default_rng(1), 400
    draws = rng.multinomial(n, [0.02, 0.01, 0.97], size=4000)
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    wrong = sum(
        k for (b, c, _), k in zip(kinds, counts, strict=True) if p_value(counted(int(b), int(c), n), 0.01) <= ALPHA
    )
    assert wrong / 4000 <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / 4000)


@pytest.mark.parametrize("seen", [[], [counted(5, 3, 359)], [Paired(0.02, 100, 0.3, cost=0.5)]])
def test_a_floor_that_suits_so_many_samples_is_one_of_which_they_certify_a_half(seen):
    told = outlook(717, 0.01, seen)
    suited = told["suited"]
    assert told["provable"] is None or told["provable"] < 0.005
    assert outlook(717, suited, seen)["provable"] >= suited / 2 > outlook(717, 0.99 * suited, seen)["provable"] * 0.98
    assert outlook(717, 1.01 * suited, seen)["suited"] is None and outlook(10**6, 0.01, seen)["suited"] is None
