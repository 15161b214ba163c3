"""Metrics against scikit-learn and by hand; intervals against SciPy and by coverage."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score

from featherweight.errors import InputError
from featherweight.measure.accuracy import evaluate, metric
from featherweight.measure.class_metrics import macro_f1_interval
from featherweight.measure.metric import Metric
from featherweight.proof.student import Z95, t975
from featherweight.proof.wilson import wilson


def logits(n=300, classes=7, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return rng.normal(size=(n, classes)) + signal * np.eye(classes)[y], y


def test_quantiles_are_scipys():
    assert stats.norm.ppf(0.975) == pytest.approx(Z95, abs=1e-12)
    for df in [*range(1, 40), 100, 999, 10**6]:
        assert t975(df) == pytest.approx(stats.t.ppf(0.975, df), rel=5e-6)
    with pytest.raises(ValueError):
        t975(0)


def test_built_ins_are_scikit_learns():
    out, y = logits()
    p = np.exp(out) / np.exp(out).sum(1, keepdims=True)
    expected = {
        "accuracy": (out.argmax(1) == y).mean(),
        "top5": top_k_accuracy_score(y, out, k=5),
        "macro_f1": f1_score(y, out.argmax(1), average="macro"),
        "nll": log_loss(y, p),
    }
    for name, value in expected.items():
        assert evaluate(name, out, y, 0).value == pytest.approx(value), name
    a, b = np.random.default_rng(0).normal(size=(2, 40, 3))
    assert evaluate("mse", a, b, 0).value == pytest.approx(((a - b) ** 2).mean())
    assert evaluate("mae", a, b, 0).value == pytest.approx(np.abs(a - b).mean())


def test_macro_f1_counts_classes_that_only_appear_in_predictions():
    y, z = np.array([0, 0, 1, 1]), np.array([0, 3, 1, 1])
    assert evaluate("macro_f1", np.eye(4)[z], y, 0).value == pytest.approx(f1_score(y, z, average="macro"))


def test_one_logit_and_not_a_number():
    assert evaluate("accuracy", np.array([2.0, -1.0, 0.5]), np.array([1, 0, 0]), 0).value == pytest.approx(2 / 3)
    assert evaluate("accuracy", np.array([[2.0], [-1.0]]), np.array([1, 0]), 0).value == 1.0
    out = np.array([[np.nan, 0.0], [3.0, 0.0]])
    # a model that gives NaN is wrong, whatever argmax says
    assert evaluate("accuracy", out, np.array([0, 0]), 0).value == 0.5
    with pytest.raises(InputError, match="finite"):
        evaluate("mse", out, np.zeros((2, 2)), 0)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (7, 10), (1, 1), (493, 500)])
def test_wilson_is_scipys(k, n):
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.9, 0.97])
def test_wilson_covers(p):
    hits = [(lambda c: c[0] <= p <= c[1])(wilson(int(k), 360)) for k in np.random.default_rng(0).binomial(360, p, 4000)]
    assert 0.93 < np.mean(hits) < 0.97


def test_kind_of_interval_follows_the_values():
    y = np.zeros(50)
    out = np.random.default_rng(0).normal(size=50)
    t = evaluate(lambda o, t: np.abs(o - t), out, y, 0)
    assert t.ci95 == pytest.approx(stats.t.interval(0.95, 49, np.abs(out).mean(), stats.sem(np.abs(out))), rel=1e-6)
    right = evaluate(lambda o, t: (o > 0).astype(float), out, y, 0)
    assert right.ci95 == pytest.approx(wilson(int((out > 0).sum()), 50))
    whole = evaluate(lambda o, t: float(np.median(o)), out, y, 3)
    assert whole.ci95[0] < whole.value < whole.ci95[1]
    assert (
        whole
        == evaluate(lambda o, t: float(np.median(o)), out, y, 3)
        != evaluate(lambda o, t: float(np.median(o)), out, y, 4)
    )
    assert evaluate("mse", y, y, 0).ci95 == (0.0, 0.0)  # all zero, yet no proportion


def test_bootstrap_covers_the_mean():
    hits = 0
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=80)
        low, high = evaluate(lambda o, t: float(o.mean()), x, x, seed).ci95
        hits += low <= 0 <= high
    assert 0.85 < hits / 60 <= 1.0


def test_direction_and_names():
    def loss(outputs, targets):
        return np.abs(outputs - targets)

    def gain(outputs, targets):
        return -np.abs(outputs - targets)

    assert metric(gain).name == "gain" and metric(gain).higher_is_better and not metric(gain, False).higher_is_better
    assert metric(loss, True).higher_is_better
    loss.higher_is_better = False
    assert (
        not metric(loss).higher_is_better
        and metric(metric("nll")) is metric("nll")
        and not metric("nll").higher_is_better
    )


def test_with_its_sign_more_is_better():
    assert metric("accuracy").sign == 1.0 and metric("nll").sign == -1.0
    assert (
        Metric("m", None, lambda a, b: 0.0, True).sign == 1.0
        and metric(lambda a, b: 0.0, higher_is_better=False).sign == -1.0
    )


def test_bad_input_is_refused():
    out, y = logits(10)
    for bad in [
        ("accuracy", out[:0], y[:0]),
        ("accuracy", out[:3], y),
        ("top5", out[:, :3], y),
        ("nll", out, y + 7),
        ("accuracy", out, y + 0.5),
        ("mse", out, y),
        ("accuracy", out[:, :, None], y),
        (lambda o, t: np.zeros(3), out, y),
        (lambda o, t: np.nan, out, y),
    ]:
        with pytest.raises(InputError):
            evaluate(*bad, 0)
    for bad in ("acuracy", 3, None):
        with pytest.raises(InputError):
            metric(bad)
    with pytest.raises(InputError, match="neither"):
        evaluate(Metric("none", None, None, True), out, y, 0)
    with pytest.raises(InputError, match="one sample"):
        evaluate("mse", out[:1], out[:1], 0)
    assert evaluate("accuracy", out[:1], out[:1].argmax(1), 0).value == 1.0


def population(shares, right):
    """(joint [K, K] of class and answer, its macro-F1): a wrong answer is another class by its
    share."""
    shares, right = np.array(shares), np.array(right)
    other = shares * (1 - np.eye(len(shares)))
    joint = shares[:, None] * (np.diag(right) + (1 - right)[:, None] * other / other.sum(1, keepdims=True))
    return joint, float((2 * joint.diagonal() / (joint.sum(0) + joint.sum(1))).mean())


@pytest.mark.parametrize(
    ("shares", "right", "n"),
    [
        ([0.25] * 4, [0.8] * 4, 200),
        ([0.6, 0.39, 0.01], [0.9, 0.9, 0.5], 300),
        ([0.97, 0.03], [0.99, 0.6], 200),
        ([0.99, 0.01], [0.99, 0.1], 200),
    ],
)
def test_the_interval_of_macro_f1_covers_it_with_rare_classes_too(shares, right, n):
    """2,000 samples of each population, every class at least once in each; the bootstrap covered
    the second in 86 % and the last with intervals that reach over the classes left out."""
    joint, wanted = population(shares, right)
    rng, k = np.random.default_rng(0), len(shares)
    covered = []
    while len(covered) < 2000:
        y, z = np.divmod(rng.choice(k * k, size=n, p=joint.reshape(-1)), k)
        if len(np.unique(y)) == k:
            low, high = macro_f1_interval(np.eye(k)[z], y)
            assert low <= f1_score_of(y, z, k) <= high
            covered.append(low <= wanted <= high)
    assert np.mean(covered) > 0.915


def f1_score_of(y, z, k):
    """scikit-learn's macro-F1, without its checks."""
    hits, sums = np.bincount(y[y == z], minlength=k), np.bincount(y, minlength=k) + np.bincount(z, minlength=k)
    return float((2 * hits / sums).mean())


def test_the_interval_of_macro_f1_stays_near_it_where_a_rare_class_is_never_right():
    """Two of 200 samples are rare and wrong. Without them macro-F1 would be 0.99: a bootstrap that
    leaves them out in one resample of seven has that as its upper end."""
    y = np.array([0] * 198 + [1] * 2)
    outputs = np.stack([np.ones(200), np.zeros(200)], 1)
    q = evaluate("macro_f1", outputs, y, 0)
    # by hand: J = 198/200 and 0/2, Wilson's interval of both, which do not correlate
    ends = [wilson(198, 200), wilson(0, 2)]
    f = np.array([2 * 198 / 398, 0.0])
    low, high = (2 * np.array(ends) / (1 + np.array(ends))).T
    assert q.value == pytest.approx(f.mean())
    assert q.ci95 == pytest.approx(
        (f.mean() - np.hypot(*(f - low)) / 2, f.mean() + np.hypot(*(high - f)) / 2), abs=1e-12
    )
    whole = Metric("f1", None, lambda o, t: evaluate("macro_f1", o, t, 0).value, True)
    assert q.ci95[1] < 0.9 < 0.98 < evaluate(whole, outputs, y, 0).ci95[1]


def auc(outputs, targets):
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(targets, outputs[:, 1] - outputs[:, 0]))


def test_a_metric_without_a_value_on_some_resamples_has_an_interval():
    """Three positives of sixty: a resample in twenty has none, and no area under the ROC curve."""
    rng = np.random.default_rng(0)
    y = np.array([0] * 57 + [1] * 3)
    outputs = np.stack([np.zeros(60), rng.normal(size=60) + y], 1)
    q = evaluate(auc, outputs, y, 0)
    assert q.ci95[0] < q.value < q.ci95[1] <= 1 and np.isfinite(q.ci95).all()


def test_a_metric_without_a_value_on_most_resamples_says_so():
    y = np.array([0] * 57 + [1] * 3)
    outputs = np.stack([np.zeros(60), np.arange(60.0)], 1)

    def picky(o, t):
        return auc(o, t) if len(np.unique(o)) > 50 else float("nan")

    with pytest.raises(
        InputError, match=r"most resamples[\s\S]*57 of 0, 3 of 1[\s\S]*more samples of the rarest class"
    ):
        evaluate(picky, outputs, y, 0)


def squared(outputs, targets):
    return (outputs.argmax(1) - targets) ** 2.0


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", squared])
def test_copies_make_no_interval_narrower(name):
    outputs, y = logits(60, 3)
    units = np.arange(60).repeat(9)
    one, many = evaluate(name, outputs, y, 0), evaluate(name, outputs.repeat(9, 0), y.repeat(9), 0, units)
    counted = evaluate(name, outputs.repeat(9, 0), y.repeat(9), 0)
    assert many.value == pytest.approx(one.value) and many.n == 540

    def width(q):
        return q.ci95[1] - q.ci95[0]

    assert width(many) == pytest.approx(width(one), rel=0.35 if name == "macro_f1" else 1e-6)
    assert width(counted) < 0.5 * width(many) and many.ci95[0] < many.value < many.ci95[1]


def mean_error(outputs, targets):
    return np.abs(outputs - targets).mean(axis=-1)


def test_a_function_named_as_an_error_has_to_say_which_way_it_is_better():
    with pytest.raises(InputError, match=r"better when it is higher, or when it is lower[\s\S]*mean_error.higher_is"):
        metric(mean_error)
    mean_error.higher_is_better = False
    assert not metric(mean_error).higher_is_better
    for name in ("loss", "val_loss", "rmse", "mae_2", "WER", "top1_error", "crossentropyloss"):
        with pytest.raises(InputError, match="which|lower"):
            metric(type("F", (), {"__call__": lambda *_: 0.0, "__name__": name})())
    for name in ("accuracy_without_errors", "maestro", "lossless", "summer", "f1"):
        assert metric(type("F", (), {"__call__": lambda *_: 0.0, "__name__": name})()).higher_is_better
