"""Certificates: the formula by hand, coverage by simulation, the three words, and whether
"about N more" is right."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from featherweight.errors import InputError
from featherweight.measure.accuracy import metric
from featherweight.measure.certificate import certify
from featherweight.measure.paired import compare, interval
from featherweight.proof.tango import tango


def outputs(right, n):
    """Logits [n, 2] for targets 0 that are right where `right`."""
    out = np.zeros((n, 2))
    out[np.arange(n), np.where(right, 0, 1)] = 1.0
    return out


def pair(b, c, n):
    """(baseline's, candidate's) logits: b samples that only the baseline gets right,
    c that only the candidate does."""
    v, w = np.ones(n, bool), np.ones(n, bool)
    w[:b], v[b : b + c] = False, False
    return outputs(v, n), outputs(w, n), np.zeros(n, int)


def coverage(interval, p10, p01, n, size=3000):
    """(share of intervals that hold the true drop, share that lie below it)."""
    draws = np.random.default_rng(n).multinomial(n, [p10, p01, 1 - p10 - p01], size=size)
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    ends = np.array([interval(int(b), int(c), n) for b, c, _ in kinds])
    d = p10 - p01
    return float(counts @ ((ends[:, 0] <= d) & (d <= ends[:, 1])) / size), float(counts @ (ends[:, 1] < d) / size)


@pytest.mark.parametrize(("p10", "p01"), [(0.02, 0.02), (0.05, 0.01), (0.15, 0.1)])
@pytest.mark.parametrize("n", [100, 400])
def test_paired_intervals_cover(p10, p01, n):
    assert coverage(tango, p10, p01, n)[0] > 0.935


def test_it_covers_where_almost_nothing_differs():
    assert coverage(tango, 0.01, 0.0, 400)[0] > 0.935 and coverage(tango, 0.01, 0.0, 400)[1] < 0.035


def test_agreement_on_every_sample_is_no_proof_of_equality():
    low, high = tango(0, 0, 100)
    assert low == pytest.approx(-high) and high == pytest.approx(1.96**2 / (100 + 1.96**2), rel=1e-3)


def test_tango_against_references():
    # PropCIs::scoreci.mp(20, 60, 1000) in R
    assert tango(60, 20, 1000) == pytest.approx((0.0231, 0.0584), abs=5e-5)
    # the likelihood maximised numerically where the formula solves it
    for b, c, n in ((12, 2, 44), (3, 9, 50), (5, 5, 30), (0, 4, 25)):
        for end in tango(b, c, n):
            assert abs(score_by_search(b, c, n, end)) == pytest.approx(1.959964, abs=2e-4)


def score_by_search(b, c, n, d):
    """The score statistic of "drop = d", with the share q of candidate-only samples found by
    maximising the likelihood."""
    low, high = max(0.0, -d), (1.0 - d) / 2.0

    def loss(q):
        cells = np.array([q + d, q, 1.0 - d - 2.0 * q])
        return -(np.array([b, c, n - b - c]) @ np.log(np.maximum(cells, 1e-300)))

    q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * d) / math.sqrt(n * (2.0 * q + d * (1.0 - d)))


def test_tango_at_the_edges():
    # with c = 0 the score interval of the upper end is Wilson's of b / n
    z2 = 1.959963984540054**2
    assert tango(0, 0, 400)[1] == pytest.approx(z2 / (400 + z2)) and tango(0, 0, 400)[0] == pytest.approx(
        -z2 / (400 + z2)
    )
    low, high = tango(3, 9, 50)
    assert (-high, -low) == pytest.approx(tango(9, 3, 50), abs=1e-9)
    assert tango(5, 0, 5)[1] == 1.0 and tango(1, 0, 1)[0] >= -1.0
    assert certify("accuracy", *pair(1, 0, 400), 0.01, 0)["verdict"] == "not certifiable"


def test_false_certificates_are_rare():
    """A candidate that is just too bad (true drop 0.011, limit 0.01) is certified in no more than
    2.5 % of the cases, and noise."""
    draws = np.random.default_rng(7).multinomial(2000, [0.021, 0.01, 0.969], size=4000)
    assert np.mean([tango(int(b), int(c), 2000)[1] <= 0.01 for b, c, _ in draws]) < 0.033


@pytest.mark.parametrize(
    ("b", "c", "verdict"), [(0, 0, "certified"), (5, 6, "certified"), (60, 5, "refuted"), (12, 4, "not certifiable")]
)
def test_the_three_words(b, c, verdict):
    result = certify("accuracy", *pair(b, c, 1000), 0.01, 0)
    assert (
        result["verdict"] == verdict
        and result["drop"] == pytest.approx((b - c) / 1000)
        and result["n"] == 1000
        and result["split"] == "test"
    )
    assert (result["needs"] is not None) == (verdict == "not certifiable") and list(result["ci95"]) == list(
        tango(b, c, 1000)
    )


@pytest.mark.parametrize(
    ("b", "c", "n", "limit", "what"),
    [(3, 2, 100, 0.02, "certify"), (14, 4, 400, 0.02, "refute"), (0, 0, 100, 0.01, "certify")],
)
def test_about_so_many_more_samples_would_decide(b, c, n, limit, what):
    result = certify("accuracy", *pair(b, c, n), limit, 0)
    assert result["verdict"] == "not certifiable" and what in result["needs"]
    more = int(result["needs"].split()[1].replace(",", ""))

    def decides(samples):
        low, high = tango(b * samples / n, c * samples / n, samples)
        return low > limit if what == "refute" else high <= limit

    assert decides(n + more) and not decides(n + 0.8 * more)


def test_at_the_limit_no_number_helps():
    result = certify("accuracy", *pair(2, 1, 100), 0.01, 0)
    assert result["verdict"] == "not certifiable" and "no number" in result["needs"]


def test_lower_is_better_turns_the_sign():
    rng = np.random.default_rng(0)
    y = rng.normal(size=1000)
    base, worse = y + rng.normal(0, 0.1, 1000), y + rng.normal(0, 0.3, 1000)
    result = certify("mse", base, worse, y, 0.01, 0)
    d = (worse - y) ** 2 - (base - y) ** 2
    assert result["verdict"] == "refuted" and result["drop"] == pytest.approx(d.mean())
    assert result["ci95"] == pytest.approx(stats.t.interval(0.95, 999, d.mean(), stats.sem(d)), rel=1e-5)
    better = certify("mse", worse, base, y, 0.0, 0)
    assert better["verdict"] == "certified" and better["drop"] == pytest.approx(-d.mean())


def test_lower_is_better_right_or_wrong():
    def misses(o, t):
        return (o.argmax(1) != t).astype(float)

    misses.higher_is_better = False
    one, other = certify(misses, *pair(60, 5, 1000), 0.01, 0), certify("accuracy", *pair(60, 5, 1000), 0.01, 0)
    assert one == other and one["verdict"] == "refuted"


def test_paired_t_covers():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(1000):
        y = np.zeros(40)
        shared = rng.normal(size=40)
        outputs = shared + 0.5, shared + rng.normal(size=40)
        low, high = interval(*compare(metric(lambda o, t: o), *outputs, y, 0))
        hits += low <= 0.5 <= high
    assert certify(lambda o, t: o, *outputs, y, 1.0, 0)["ci95"] == [low, high]
    assert 0.93 < hits / 1000 < 0.97


def test_whole_metrics_are_resampled_in_pairs():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=200)
    noise = rng.normal(size=(200, 3))
    base = noise + 2 * np.eye(3)[y]
    same = certify("macro_f1", base, base + 0.0, y, 0.01, 5)
    # as for accuracy, 200 samples without a difference do not exclude failures of a point
    assert same["drop"] == 0.0 and same["ci95"] == [0.0, 0.0] and same["verdict"] == "not certifiable"
    assert same["p"] == pytest.approx(0.99**200, abs=0.06) and "more test samples to certify" in same["needs"]
    again = (np.tile(base, (3, 1)), np.tile(y, 3))
    assert certify("macro_f1", again[0], again[0] + 0.0, again[1], 0.01, 5)["verdict"] == "certified"
    worse = certify("macro_f1", base, noise, y, 0.01, 5)
    assert worse["verdict"] == "refuted" and worse == certify("macro_f1", base, noise, y, 0.01, 5)


def test_bad_input_is_refused():
    v, w, y = pair(1, 1, 10)
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError):
            certify("accuracy", v, w, y, bad, 0)
    with pytest.raises(InputError):
        certify("accuracy", v[:5], w, y, 0.01, 0)
    with pytest.raises(InputError):
        certify("accuracy", v[:0], w[:0], y[:0], 0.01, 0)
    assert certify("accuracy", v[:1], v[:1], y[:1], 0.01, 0)["verdict"] == "not certifiable"


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 80), (2, 1, 80), (30, 10, 100), (3, 3, 717), (60, 50, 3000)])
def test_the_upper_bound_is_the_least_limit_that_would_be_certified(b, c, n):
    said = certify("accuracy", *pair(b, c, n), max_drop=0.2, seed=0)
    assert said["drop"] < said["upper"] < 0.6 and said["upper"] < said["ci95"][1] + 0.02
    for beside, verdict in ((1e-4, "certified"), (-1e-3, "not certifiable")):
        limit = max(said["upper"] + beside, 0.0)
        assert certify("accuracy", *pair(b, c, n), max_drop=limit, seed=0)["verdict"] == verdict
