"""Metrics by name are scikit-learn's and SciPy's; their sums resample as the samples do."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk

from featherweight.errors import InputError
from featherweight.measure.accuracy import _sums, bootstrap, evaluate, metric
from featherweight.measure.certificate import certify
from featherweight.measure.metrics import BY_NAME, named, told

N = 400
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 5, N)
Z = RNG.normal(size=(N, 5)) + 1.5 * np.eye(5)[Y]
Y2 = RNG.integers(0, 2, N)
Z2 = RNG.normal(size=N) + 1.2 * (2 * Y2 - 1)
LABELS = (RNG.random((N, 4)) < 0.4).astype(np.int64)
ZL = RNG.normal(size=(N, 4)) + 1.5 * (2 * LABELS - 1)
T = RNG.normal(size=(N, 3)) + 5
O = T + 0.3 * RNG.normal(size=(N, 3))  # noqa: E741
PRED, PRED2, PREDL = Z.argmax(1), (Z2 > 0).astype(int), (ZL > 0).astype(int)

CLASSES = {
    "accuracy": sk.accuracy_score(Y, PRED),
    "balanced_accuracy": sk.balanced_accuracy_score(Y, PRED),
    "macro_f1": sk.f1_score(Y, PRED, average="macro"),
    "micro_f1": sk.f1_score(Y, PRED, average="micro"),
    "weighted_f1": sk.f1_score(Y, PRED, average="weighted"),
    "auc": sk.roc_auc_score(Y, softmax(Z, 1), multi_class="ovr"),
    "average_precision": sk.average_precision_score(np.eye(5)[Y], softmax(Z, 1)),
    "mcc": sk.matthews_corrcoef(Y, PRED),
    "kappa": sk.cohen_kappa_score(Y, PRED),
    "nll": sk.log_loss(Y, softmax(Z, 1)),
}
TWO = {
    "accuracy": sk.accuracy_score(Y2, PRED2),
    "f1": sk.f1_score(Y2, PRED2),
    "precision": sk.precision_score(Y2, PRED2),
    "recall": sk.recall_score(Y2, PRED2),
    "auc": sk.roc_auc_score(Y2, Z2),
    "average_precision": sk.average_precision_score(Y2, Z2),
    "macro_f1": sk.f1_score(Y2, PRED2, average="macro"),
    "mcc": sk.matthews_corrcoef(Y2, PRED2),
}
SETS = {
    "exact_match": sk.accuracy_score(LABELS, PREDL),
    "label_accuracy": 1 - sk.hamming_loss(LABELS, PREDL),
    "macro_f1": sk.f1_score(LABELS, PREDL, average="macro"),
    "micro_f1": sk.f1_score(LABELS, PREDL, average="micro"),
    "weighted_f1": sk.f1_score(LABELS, PREDL, average="weighted"),
    "auc": sk.roc_auc_score(LABELS, ZL),
    "average_precision": sk.average_precision_score(LABELS, ZL),
}
NUMBERS = {
    "mse": sk.mean_squared_error(T, O),
    "rmse": np.sqrt(sk.mean_squared_error(T, O)),
    "mae": sk.mean_absolute_error(T, O),
    "mape": sk.mean_absolute_percentage_error(T, O),
    "r2": sk.r2_score(T, O),
    "cosine": (sk.pairwise.paired_cosine_distances(T, O) * -1 + 1).mean(),
}
CASES = [
    *(("classes", name, Z, Y, value) for name, value in CLASSES.items()),
    *(("two", name, Z2, Y2, value) for name, value in TWO.items()),
    *(("sets", name, ZL, LABELS, value) for name, value in SETS.items()),
    *(("numbers", name, O, T, value) for name, value in NUMBERS.items()),
]


@pytest.mark.parametrize(
    ("kind", "name", "outputs", "targets", "expected"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_the_value_is_that_of_the_reference(kind, name, outputs, targets, expected):
    q = evaluate(name, outputs, targets, seed=0)
    assert q.value == pytest.approx(expected, abs=1e-9)
    assert q.ci95[0] <= q.value <= q.ci95[1] and q.ci95[1] - q.ci95[0] < 0.3


def test_two_outputs_are_ranked_as_one():
    both = np.stack([-Z2 / 2, Z2 / 2], 1)
    for name in ("auc", "average_precision", "f1", "accuracy"):
        assert evaluate(name, both, Y2, 0).value == pytest.approx(TWO[name])


def test_probabilities():
    p = 1 / (1 + np.exp(-Z2))
    assert evaluate("log_loss", p, Y2, 0).value == pytest.approx(sk.log_loss(Y2, p))
    assert evaluate("log_loss", softmax(Z, 1), Y, 0).value == pytest.approx(sk.log_loss(Y, softmax(Z, 1)))
    with pytest.raises(InputError, match="needs probabilities"):
        metric("log_loss").scores(Z, Y)
    for name in ("accuracy", "f1", "precision", "recall", "macro_f1", "mcc"):
        assert evaluate(f"{name}@0.5", p, Y2, 0).value == pytest.approx(evaluate(name, Z2, Y2, 0).value)
    pl = 1 / (1 + np.exp(-ZL))
    for name in ("exact_match", "label_accuracy", "micro_f1", "macro_f1"):
        assert evaluate(f"{name}@0.5", pl, LABELS, 0).value == pytest.approx(evaluate(name, ZL, LABELS, 0).value)


def test_what_an_original_gives_as_targets():
    other = Z + 0.5 * RNG.normal(size=Z.shape)
    assert evaluate("agreement", other, Z, 0).value == np.mean(other.argmax(1) == PRED)
    assert evaluate("agreement", Z, Z, 0).value == 1
    kl = (softmax(Z, 1) * (log_softmax(Z, 1) - log_softmax(other, 1))).sum(1).mean()
    assert evaluate("kl", other, Z, 0).value == pytest.approx(kl)
    assert evaluate("kl", Z, Z, 0).value == pytest.approx(0, abs=1e-12)


def suited(name):
    """(the metric, outputs and targets that it is made for)."""
    tags = ["O", "B-A", "I-A", "B-B", " "]
    y = RNG.integers(0, 5, (N, 6))
    places = (np.moveaxis(RNG.normal(size=(N, 6, 5)) + 3 * np.eye(5)[y], -1, 1), y)
    kinds = {**{n: (O, T) for n in NUMBERS}, **{n: (Z2, Y2) for n in ("f1", "precision", "recall")}}
    kinds |= {n: (ZL, LABELS) for n in ("exact_match", "label_accuracy")}
    kinds |= {"agreement": (Z, Z + 0.1), "kl": (Z + 0.1 * RNG.normal(size=Z.shape), Z)}
    kinds |= {"log_loss": (softmax(Z, 1), Y), "cosine": (O, T)}
    kinds["top5"] = (np.concatenate([Z, Z - 1], 1), Y)
    kinds |= dict.fromkeys(("pixel_accuracy", "token_accuracy", "miou", "cer", "wer"), places)
    kinds["entity_f1"] = (places[0][:, :4], np.minimum(y, 3))
    kinds["iou"] = (Z2[:, None, None] + np.zeros((1, 3, 2)), np.broadcast_to(Y2[:, None, None], (N, 3, 2)))
    outputs, targets = kinds.get(name, (Z, Y))
    return told(metric(name), tags[:4] if name == "entity_f1" else tags, 1), outputs, targets


@pytest.mark.parametrize("name", [n for n, m in BY_NAME.items() if m.sums is not None])
def test_sums_resample_as_the_samples_do(name):
    m, outputs, targets = suited(name)
    assert _sums(m, [outputs], targets) is not None
    with_sums = bootstrap(m, [outputs, outputs[::-1]], targets, seed=3)
    plain = metric(lambda o, t: m.whole(o, t))
    object.__setattr__(plain, "name", name)  # the same draws
    assert np.allclose(with_sums[:, 0], bootstrap(plain, [outputs], targets, seed=3)[:, 0])


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_metric_can_be_certified(name):
    m, outputs, targets = suited(name)
    found = certify(m, outputs, outputs, targets, 10.0, 0)
    assert found["drop"] == 0 and found["verdict"] == "certified"
    worse = RNG.permutation(outputs)
    assert m.sign * (evaluate(m, outputs, targets, 0).value - evaluate(m, worse, targets, 0).value) > 0


def test_rows_that_no_class_has_are_left_out():
    y = np.where(Y == 4, 3, Y)  # no sample of class 4
    assert evaluate("auc", Z, y, 0).value == pytest.approx(
        np.mean([sk.roc_auc_score(y == c, softmax(Z, 1)[:, c]) for c in range(4)])
    )
    assert evaluate("balanced_accuracy", Z, y, 0).value == pytest.approx(
        np.mean([(PRED[y == c] == c).mean() for c in range(4)])
    )


def test_names_and_thresholds_that_are_none():
    assert named("roc_auc").name == "auc" and named("nothing") is None
    with pytest.raises(InputError, match="no such threshold"):
        named("mse@0.5")
    with pytest.raises(InputError, match="no such threshold"):
        named("accuracy@half")
    with pytest.raises(InputError, match="acuracy") as e:
        metric("acuracy")
    assert "accuracy" in str(e.value.fix)


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("f1", Z, Y),
        ("exact_match", Z, Y),
        ("r2", np.ones((9, 1)), np.ones((9, 1))),
        ("mape", np.ones(9), np.zeros(9)),
        ("agreement", Z, Y),
        ("kl", Z, Y),
        ("mse", Z, Y),
    ],
)
def test_what_a_metric_does_not_take_is_refused(name, outputs, targets):
    with pytest.raises(InputError, match="cannot be computed"):
        metric(name).scores(outputs, targets)
