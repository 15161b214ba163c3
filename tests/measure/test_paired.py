"""A candidate against the baseline: what one sample is, and what a failure costs."""

import numpy as np
import pytest

from featherweight.errors import InputError
from featherweight.measure.accuracy import metric
from featherweight.measure.certificate import certify
from featherweight.measure.metric import Metric
from featherweight.measure.paired import compare, p_value
from featherweight.proof.levels import ALPHA


def graded(outputs, targets):
    """A score a sample that is not right or wrong."""
    return np.where(outputs.argmax(1) == targets, 0.9, 0.0)


def logits(y, k=3):
    return np.where(np.arange(k) == y[:, None], 5.0, -5.0).astype(np.float32)


def drawn(n, rng, rate=0.02):
    """(baseline, candidate, targets): the candidate fails wholly on this share of all there are."""
    y, fails = rng.integers(0, 3, n), rng.random(n) < rate
    return logits(y), logits(np.where(fails, (y + 1) % 3, y)), y


def off(outputs, targets):
    """How far a number is off, a sample."""
    return 1.0 - np.abs(outputs - targets)


def test_failures_of_unequal_cost_are_not_certified_away():
    """200 samples, of which ten fail at a cost with a long tail; the true drop is at the floor. At
    a level of 0.5 % one certificate in twenty was false while a failure cost the mean."""
    rng, times, n, rate = np.random.default_rng(0), 200, 200, 0.05
    passed = 0
    for i in range(times):
        y = rng.exponential(0.3, n)  # so another one's answer is off by 0.3 in the mean, exponentially
        fails = (rng.random(n) < rate) * rng.exponential(0.3, n)
        paired, _ = compare(metric(off), y, y + fails + rng.normal(0, 0.001, n), y, i)
        passed += p_value(paired, 0.3 * rate) <= 0.005
    assert passed <= 2


CASES = [(graded, 0.016), ("nll", 0.19), ("macro_f1", 0.019)]


@pytest.mark.parametrize(("name", "floor"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
@pytest.mark.parametrize("n", [30, 120])
def test_rare_failures_that_no_sample_shows_are_not_certified_away(name, floor, n):
    """The true drop is above the floor, so each certificate is false: 5 % may be, and the models do
    not differ on more than half (n = 30) or a tenth of the splits."""
    rng, times = np.random.default_rng(0), 25
    found = [compare(metric(name), *drawn(n, rng), i) for i in range(times)]
    assert sum(p_value(paired, floor, drops) <= ALPHA for paired, drops in found) <= 4


@pytest.mark.parametrize("name", [graded, "macro_f1"], ids=lambda v: getattr(v, "__name__", str(v)))
def test_enough_samples_are_certified(name):
    said = certify(name, *drawn(2000, np.random.default_rng(1), rate=0.0), 0.01, 0)
    assert said["verdict"] == "certified" and 0 < said["upper"] < 0.01


def test_a_failure_costs_what_the_answer_of_another_sample_does():
    base, mine, y = drawn(300, np.random.default_rng(2), rate=0.0)
    assert compare(metric(graded), base, mine, y, 0)[0].cost == pytest.approx(0.9)
    assert compare(metric("macro_f1"), base, mine, y, 0)[0].cost == pytest.approx(1.0, rel=0.1)
    assert compare(metric("accuracy"), base, mine, y, 0)[0].cost is None
    x = np.arange(50.0)[:, None]
    assert 30 < compare(metric("mae"), x, x + 0.1, x, 0)[0].cost < 50  # of the worst hundredth: the mean is 17


def test_with_one_target_the_worst_value_counts_and_else_nobody_knows():
    y = np.zeros(8, dtype=np.int64)
    bounded = Metric("graded", graded, None, True, within=(0, 1))
    assert compare(bounded, logits(y), logits(y), y, 0)[0].cost == pytest.approx(0.9)
    with pytest.raises(InputError, match="what a failure costs in nll cannot be told"):
        compare(metric("nll"), logits(y), logits(y), y, 0)


@pytest.mark.parametrize("name", ["accuracy", graded, "macro_f1"], ids=lambda v: getattr(v, "__name__", str(v)))
def test_copies_count_once(name):
    base, mine, y = drawn(60, np.random.default_rng(3), rate=0.1)
    units = np.repeat(np.arange(60), 10)
    many = [np.repeat(v, 10, axis=0) for v in (base, mine, y)]
    one, _ = compare(metric(name), base, mine, y, 0)
    copied, _ = compare(metric(name), *many, 0, units)
    assert copied.n == one.n == 60 and copied.drop == pytest.approx(one.drop)
    assert copied.sd == pytest.approx(one.sd, rel=0.1) and copied.lost == one.lost
    base, mine, y = drawn(60, np.random.default_rng(3), rate=0.0)
    many = [np.repeat(v, 10, axis=0) for v in (base, mine, y)]
    assert certify(name, *many, 0.05, 0, units=units)["p"] > 0.03 > 0.002 > certify(name, *many, 0.05, 0)["p"]


def test_rows_of_a_group_are_one_sample_with_their_mean():
    y = np.zeros(6, dtype=np.int64)
    base, mine = logits(y), logits(np.array([1, 0, 0, 0, 1, 1]))
    bounded = Metric("accuracy", metric("accuracy").per_sample, None, True, True, within=(0, 1))
    seen, _ = compare(bounded, base, mine, y, 0, np.array([0, 0, 1, 1, 2, 2]))
    assert seen.n == 3 and seen.drop == pytest.approx((0.5 + 0 + 1) / 3) and seen.lost is None


def test_rows_of_other_splits_do_not_count():
    base, mine, y = drawn(40, np.random.default_rng(4), rate=0.2)
    units = np.where(np.arange(40) < 30, -1, np.arange(40))
    seen, _ = compare(metric("accuracy"), base, mine, y, 0, units)
    assert seen == compare(metric("accuracy"), base[30:], mine[30:], y[30:], 0)[0]
    with pytest.raises(InputError, match="no sample of this split can be evidence"):
        compare(metric("accuracy"), base, mine, y, 0, np.full(40, -1))


def backwards(outputs, targets):
    return np.abs(outputs - targets)


def whole_backwards(outputs, targets):
    return float(np.abs(outputs - targets).mean())


@pytest.mark.parametrize("score", [backwards, whole_backwards])
def test_a_metric_that_wrong_answers_make_better_shows_nothing(score):
    """An error that counts as better when it is higher: a candidate twice as bad was certified."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    with pytest.raises(
        InputError, match=r"wrong answers make (whole_)?backwards better[\s\S]*higher_is_better = False"
    ):
        compare(metric(score), y + 0.1, y + 0.2, y, 0)
    assert compare(Metric("error", score, score, False), y + 0.1, y + 0.2, y, 0)[0].drop == pytest.approx(0.1)


def rarely(targets):
    """A model that is right, in logits."""
    return np.eye(5)[targets] * 9.0


def balanced(outputs, targets):
    called = outputs.argmax(1)
    return float(np.mean([(called[targets == c] == c).mean() for c in np.unique(targets)]))


@pytest.mark.parametrize("name", ["macro_f1", balanced])
@pytest.mark.parametrize("rare", [3, 6])
def test_of_a_class_of_a_few_samples_nothing_is_certified(name, rare):
    """Three samples without a failure say little of the next one of their class."""
    targets = np.concatenate([np.arange(1000 - rare) % 4, np.full(rare, 4)])
    right = rarely(targets)
    said = certify(name, right, right, targets, 0.045, seed=0)
    assert said["verdict"] == "not certifiable" and said["drop"] == 0
    # the truth might be that 40 % of them fail: a drop of 0.05 or more
    assert said["upper"] > 0.05
    even = np.arange(1000) % 5
    assert certify(name, rarely(even), rarely(even), even, 0.045, seed=0)["verdict"] == "certified"


def test_several_columns_of_targets_have_rare_labels():
    targets = np.zeros((600, 4), np.int64)
    targets[:, 0], targets[:300, 1], targets[:4, 2] = np.arange(600) % 2, 1, 1

    def macro(outputs, targets):
        hit = [((outputs[:, c] > 0) & (targets[:, c] == 1)).sum() / (targets[:, c] == 1).sum() for c in range(3)]
        return float(np.mean(hit))

    m = Metric("macro", None, macro, True, within=(0, 1))
    right = np.where(targets == 1, 5.0, -5.0)
    common = m.sign * (compare(m, right, right, targets[:, :], 0)[0].cost or 0)
    targets[:4, 2] = 0
    targets[::2, 2] = 1  # no rare label any more
    right = np.where(targets == 1, 5.0, -5.0)
    assert common > 10 * (compare(m, right, right, targets, 0)[0].cost or 0)


def test_a_candidate_that_answers_one_thing_fails_at_what_the_original_could():
    """All of its samples have one answer, so that others' answers are as good as their own."""

    def share(outputs, targets):
        return ((outputs > 0) == (targets > 0)).mean(1) * 10 - 10

    rng = np.random.default_rng(0)
    targets = (rng.random((200, 3)) < 0.5).astype(np.float32)
    original, constant = np.where(targets > 0, 1.0, -1.0), np.ones((200, 3))
    paired, _ = compare(metric(share), original, constant, targets, 0)
    assert paired.drop > 3 and paired.cost and paired.cost > 0
