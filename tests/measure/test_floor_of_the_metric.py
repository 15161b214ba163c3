"""A floor of the metric itself: certified whatever the baseline's metric is."""

import numpy as np
import pytest
from scipy import stats

from featherweight.measure.accuracy import metric
from featherweight.measure.certificate import certify
from featherweight.measure.metric import Metric
from featherweight.measure.paired import compare, p_value
from featherweight.proof.chance import LEVEL, attainable, chance
from featherweight.proof.levels import ALPHA
from featherweight.records import Paired


def answers(right, n, rng=None):
    """Two classes [n], and outputs [n, 2] of which `right` are right."""
    y = np.arange(n) % 2
    told = y.copy()
    told[right:] = 1 - told[right:]
    order = np.arange(n) if rng is None else rng.permutation(n)
    return np.eye(2)[told][order], y[order]


def graded(outputs, targets):
    """Half a point for each of two things."""
    return (outputs.argmax(1) == targets) * 0.5 + (outputs.max(1) > 0.5) * 0.5


def test_it_is_the_exact_test_of_a_proportion():
    for right, n, floor in [(715, 717, 0.98), (705, 717, 0.975), (58, 60, 0.9)]:
        outputs, y = answers(right, n)
        said = certify("accuracy", outputs, outputs, y, None, 0, min_metric=floor)
        # so few wrong ones or fewer, if 1 - floor are; a little is given away (Berger & Boos)
        exact = stats.binom.cdf(n - right, n, 1 - floor)
        assert said["p"] == pytest.approx(exact, abs=2e-3) and said["value"] == right / n
        assert said["verdict"] == ("certified" if said["p"] <= ALPHA else "not certifiable")
        assert certify("accuracy", outputs, outputs, y, None, 0, min_metric=said["lower"] - 1e-6)["p"] <= ALPHA
        assert certify("accuracy", outputs, outputs, y, None, 0, min_metric=said["lower"] + 1e-6)["p"] > ALPHA


def test_a_baseline_that_is_worse_on_test_proves_nothing():
    """Taken for a drop from what the baseline had on validation, this was certified."""
    outputs, y = answers(680, 717)
    assert certify("accuracy", outputs, outputs, y, 0.013, 0)["verdict"] == "certified"
    said = certify("accuracy", outputs, outputs, y, None, 0, min_metric=0.97)
    assert said["verdict"] == "refuted" and said["value"] == pytest.approx(0.948, abs=1e-3)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", graded], ids=["accuracy", "macro_f1", "graded"])
def test_seldom_certified_at_the_floor(name):
    """Of candidates whose true metric is the floor, about 5 % or less."""
    rng, false, times = np.random.default_rng(0), 0, 40 if name == "macro_f1" else 150
    for i in range(times):
        y = rng.integers(2, size=300)
        told = np.where(rng.random(300) < 0.08, 1 - y, y)
        alone, drops = compare(metric(name), None, np.eye(2)[told], y, i)
        floor = 0.92 if name != graded else 0.96
        false += p_value(alone, alone.best - floor, drops) <= ALPHA
    assert false <= max(4, 0.09 * times)


def test_resampled_and_unbounded_metrics_have_one_too():
    y = np.linspace(0, 1, 400)
    r2 = Metric("r2", None, lambda o, t: 1 - ((o - t) ** 2).mean() / t.var(), True)
    said = certify(r2, y, y + 0.01, y, None, 0, min_metric=0.5)
    assert said["verdict"] == "certified" and 0.5 < said["lower"] < said["value"] < 1
    gain = Metric("gain", lambda o, t: 100 - np.abs(o - t), None, True)
    assert certify(gain, y, y + 0.01, y, None, 0, min_metric=99.0)["verdict"] == "certified"
    assert certify(gain, y, y + 3.0, y, None, 0, min_metric=99.0)["verdict"] == "refuted"


def test_the_chance_is_how_often_it_is_certified():
    """Of candidates of all kinds; of one kind the chance knows no more than its validation says."""
    rng, floor, n = np.random.default_rng(1), 0.95, 600
    told, certified = [], 0
    for true in rng.uniform(0.95, 0.99, 200):
        valid, test = (answers(rng.binomial(n, true), n) for _ in range(2))
        alone, _ = compare(metric("accuracy"), None, *valid, 0)
        told.append(chance(alone, n, 1 - floor))
        alone, drops = compare(metric("accuracy"), None, *test, 0)
        certified += p_value(alone, 1 - floor, drops) <= LEVEL
    assert np.mean(told) == pytest.approx(certified / 200, abs=0.06)


def test_what_test_can_prove_of_it():
    alone, _ = compare(metric("accuracy"), None, *answers(590, 600), 0)
    known = attainable(717, 0.97, [alone])
    assert 0.975 < known["provable"] < 0.99 and known["as_good"] == pytest.approx(590 / 600)
    assert attainable(known["needed"], 0.97, [alone])["provable"] == pytest.approx(590 / 600, abs=1e-3)
    for n, floor in [(300, 0.99), (60, 0.95), (100, 0.97), (10, 0.5), (717, 0.97)]:
        least = attainable(n, floor)["provable"]
        right = [k for k in range(n + 1) if p_value(Paired(1 - k / n, n, 0.1, n - k, 0, best=1.0), 1 - floor) <= LEVEL]
        assert (least is None) == (not right) and (not right or least == pytest.approx(min(right) / n, abs=1.01 / n))
    assert attainable(20, 0.97)["provable"] is None and attainable(717, 0.99, [alone])["needed"] is None


@pytest.mark.parametrize(("cost", "floor", "rate", "n"), [(5, 0.98, 0.004, 200), (10, 0.98, 0.002, 300)])
def test_values_that_happen_to_be_right_or_wrong_are_not(cost, floor, rate, n):
    """A metric of which no sample in the split shows what a failure costs: all values are 1."""

    def costly(outputs, targets):
        return 1.0 - cost * (outputs.argmax(1) != targets)

    rng, false, times = np.random.default_rng(0), 0, 100
    for i in range(times):
        y = rng.integers(2, size=n)
        told = np.where(rng.random(n) < rate, 1 - y, y)
        false += certify(costly, np.eye(2)[y], np.eye(2)[told], y, None, i, min_metric=floor)["verdict"] == "certified"
        if i < 3:
            said = certify(costly, np.eye(2)[y], np.eye(2)[y], y, 1 - floor, i)
            assert said["verdict"] == "not certifiable"
    assert false <= 0.1 * times
    exact = compare(metric(lambda o, t: (o.argmax(1) == t).astype(float)), np.eye(2)[y], np.eye(2)[y], y, 0)[0]
    assert exact.lost == exact.won == 0  # an accuracy of one's own still is one
