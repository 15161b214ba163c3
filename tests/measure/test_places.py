"""Metrics of answers at places, of sequences and of embeddings, held to scikit-learn's, to
published examples and to plain loops."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.neighbors import NearestNeighbors

from featherweight.errors import InputError
from featherweight.measure.accuracy import bootstrap, evaluate, metric
from featherweight.measure.certificate import certify
from featherweight.measure.metrics import named, told
from featherweight.measure.paired import _cost_of_some, _with_other_answers, compare
from featherweight.measure.sequence_metrics import decoded, distance, spans

RNG = np.random.default_rng(0)
N, K = 30, 4
Y = RNG.integers(0, K, (N, 6, 5))
Z = RNG.normal(size=(N, K, 6, 5)) + 1.5 * np.moveaxis(np.eye(K)[Y], -1, 1)
FLAT, SAID = Y.ravel(), Z.argmax(1).ravel()
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def logits(classes, names):
    """[n, C, T] that say these classes."""
    return np.moveaxis(np.eye(len(names))[[[names.index(c) for c in row] for row in classes]], -1, 1)


@pytest.mark.parametrize(
    "name, right",
    [
        ("pixel_accuracy", sk.accuracy_score(FLAT, SAID)),
        ("miou", sk.jaccard_score(FLAT, SAID, average="macro")),
        ("mean_iou", sk.jaccard_score(FLAT, SAID, average="macro")),
        ("macro_f1", sk.f1_score(FLAT, SAID, average="macro")),
        ("balanced_accuracy", sk.balanced_accuracy_score(FLAT, SAID)),
    ],
)
def test_metrics_at_places_are_scikit_learns_over_all_places(name, right):
    m = metric(name)
    assert m.scores(Z, Y) == pytest.approx(right)
    assert told(m, None, -1).scores(np.moveaxis(Z, 1, -1), Y) == pytest.approx(right)


def test_places_that_do_not_count_are_left_out():
    y = np.where(RNG.random(Y.shape) < 0.3, -100, Y)
    there = y.ravel() >= 0
    assert metric("miou").scores(Z, y) == pytest.approx(sk.jaccard_score(FLAT[there], SAID[there], average="macro"))
    assert metric("token_accuracy").scores(Z[..., 0], y[..., 0]) == pytest.approx(
        (Z.argmax(1) == y)[..., 0].sum() / (y[..., 0] >= 0).sum()
    )


def test_a_class_that_nobody_says_and_none_is_does_not_count():
    wide = np.concatenate([Z, np.full((N, 1, 6, 5), -99.0)], axis=1)
    assert metric("miou").scores(wide, Y) == metric("miou").scores(Z, Y)


@pytest.mark.parametrize("shape", [(N, 1, 6, 5), (N, 6, 5)])
def test_one_number_a_place_says_yes_or_no(shape):
    yes = (Y > 1).astype(np.float32)
    z = RNG.normal(size=Y.shape) + 2 * yes - 1
    expected = sk.jaccard_score(yes.ravel(), z.ravel() > 0)
    assert metric("iou").scores(z.reshape(shape), yes) == pytest.approx(expected)
    assert metric("dice").scores(z.reshape(shape), yes) == pytest.approx(sk.f1_score(yes.ravel(), z.ravel() > 0))
    half = metric("iou@0.5").scores(1 / (1 + np.exp(-z)).reshape(shape), yes)
    assert half == pytest.approx(expected)


def test_labels_at_places_that_do_not_exclude_each_other():
    yes = (RNG.random((N, 3, 6, 5)) < 0.4).astype(np.float32)
    z = RNG.normal(size=yes.shape) + 2 * yes - 1
    both = [np.moveaxis(v, 1, -1).reshape(-1, 3) for v in (yes, z > 0)]
    assert metric("macro_f1").scores(z, yes) == pytest.approx(sk.f1_score(*both, average="macro"))
    assert metric("miou").scores(z, yes) == pytest.approx(sk.jaccard_score(*both, average="macro"))


def test_agreement_is_the_share_of_places():
    other = Z + 0.8 * RNG.normal(size=Z.shape)
    expected = (Z.argmax(1) == other.argmax(1)).reshape(N, -1).mean(1)
    np.testing.assert_allclose(metric("agreement").scores(other, Z), expected)
    found = evaluate("agreement", other, Z, seed=0)
    assert found.ci95[0] < expected.mean() < found.ci95[1] and found.ci95[1] - found.ci95[0] < 0.2
    assert certify(metric("agreement"), None, Z, Z, 0.2, 0)["verdict"] in ("certified", "not certifiable")


def test_classes_of_samples_are_refused_with_what_there_is():
    with pytest.raises(InputError, match="pixel_accuracy"):
        metric("accuracy").scores(Z, Y)
    with pytest.raises(InputError, match="of one answer a sample there is accuracy"):
        metric("token_accuracy").scores(Z[..., 0, 0], Y[:, 0, 0])
    with pytest.raises(InputError, match="one target for each place"):
        metric("miou").scores(Z, Y[:, :3])
    with pytest.raises(InputError, match="below 4"):
        metric("miou").scores(Z, Y + 2)


def test_what_no_number_says_is_no_class():
    z = Z.copy()
    z[:, :, 0, 0] = np.nan
    assert metric("pixel_accuracy").scores(z, Y) == pytest.approx(
        ((Z.argmax(1) == Y).sum() - (Z.argmax(1) == Y)[:, 0, 0].sum()) / Y.size
    )


def test_what_no_number_says_is_not_right_where_nothing_counts():
    z, y = Z.copy(), Y.copy()
    z[:, :, 0, 0] = np.nan
    y[:, 0, 0] = -1
    there = y.ravel() >= 0
    assert metric("pixel_accuracy").scores(z, y) == pytest.approx((FLAT == SAID)[there].mean())


def test_nothing_agrees_with_no_number():
    z = Z.copy()
    z[:, :, 0, 0] = np.nan
    assert metric("agreement").scores(z, z) == pytest.approx(29 / 30)
    assert metric("agreement").scores(np.array([[np.nan, 0.0], [0.0, 1.0]]), np.zeros((2, 2))).tolist() == [0, 0]


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("axis", [1, -1])
def test_of_labels_at_places_iou_and_f1_are_of_all_together(labels, axis):
    yes = (RNG.random((N, labels, 6, 5)) < 0.4).astype(np.float32)
    z = RNG.normal(size=yes.shape) + 2 * yes - 1
    void = RNG.random(yes.shape) < 0.2
    expected = sk.jaccard_score(yes[~void], z[~void] > 0), sk.f1_score(yes[~void], z[~void] > 0)
    y, z = (np.moveaxis(v, 1, axis) for v in (np.where(void, -100, yes), z))
    for name, value in zip(("iou", "f1"), expected, strict=True):
        assert told(metric(name), None, axis).scores(z, y) == pytest.approx(value)
    each = [sk.f1_score(yes[:, k][~void[:, k]], np.moveaxis(z, axis, 1)[:, k][~void[:, k]] > 0) for k in range(labels)]
    assert told(metric("macro_f1"), None, axis).scores(z, y) == pytest.approx(np.mean(each))


def test_without_an_axis_of_classes_each_number_says_yes_or_no():
    """Rows of a mask are no classes."""
    yes = (RNG.random((N, 2, 5)) < 0.4).astype(np.float32)
    z = RNG.normal(size=yes.shape) + 2 * yes - 1
    other = RNG.normal(size=yes.shape)
    told_so = {name: told(metric(name), None, 0) for name in ("iou", "macro_f1", "pixel_accuracy", "agreement", "kl")}
    assert told_so["iou"].scores(z, yes) == pytest.approx(sk.jaccard_score(yes.ravel(), z.ravel() > 0))
    assert told_so["macro_f1"].scores(z, yes) == pytest.approx(sk.f1_score(yes.ravel(), z.ravel() > 0, average="macro"))
    assert told_so["pixel_accuracy"].scores(z, yes) == pytest.approx(((z > 0) == yes).mean())
    np.testing.assert_allclose(told_so["agreement"].scores(other, z), ((other > 0) == (z > 0)).mean((1, 2)))
    p, q = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-other))
    far = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean((1, 2))
    np.testing.assert_allclose(told_so["kl"].scores(other, z), far)
    np.testing.assert_allclose(metric("kl").scores(other[:, None], z[:, None]), far)
    same = told(metric("agreement"), None, 0)
    assert (
        same.scores(other.reshape(N, 10), z.reshape(N, 10)).tolist() == told_so["agreement"].scores(other, z).tolist()
    )


def test_log_loss_at_places():
    p = np.exp(Z) / np.exp(Z).sum(1, keepdims=True)
    y = np.where(RNG.random(Y.shape) < 0.3, -100, Y)
    there = y >= 0
    lost = np.where(there, -np.log(np.take_along_axis(p, Y[:, None], 1)[:, 0]), 0).sum((1, 2)) / there.sum((1, 2))
    np.testing.assert_allclose(metric("log_loss").scores(p, y), lost)
    with pytest.raises(InputError, match="no place that counts"):
        metric("log_loss").scores(p, np.where(np.arange(N)[:, None, None] == 3, -100, y))
    with pytest.raises(InputError, match="one target for each place"):
        metric("log_loss").scores(p, Y[:, :3])


@pytest.mark.parametrize("name", ["miou", "pixel_accuracy"])
def test_samples_are_drawn_whole(name):
    m, pick = metric(name), np.random.default_rng(5)
    drawn = bootstrap(m, [Z], Y, seed=0)[:, 0]
    by_hand = [m.scores(Z[i], Y[i]) for i in (pick.integers(N, size=N) for _ in range(300))]
    assert drawn.mean() == pytest.approx(np.mean(by_hand), abs=0.005)
    assert drawn.std() == pytest.approx(np.std(by_hand), rel=0.2)


@pytest.mark.parametrize("name", ["miou", "macro_f1", "pixel_accuracy"])
def test_other_answers_are_added_up_as_if_all_were_counted_anew(name):
    m, rows = metric(name), np.array([3, 17])
    other = Z.copy()
    other[rows] = Z[[5, 6]]
    assert _with_other_answers(m, Z, Y)(rows, Z[[5, 6]]) == pytest.approx(m.scores(other, Y))
    assert _cost_of_some(m, Z, Y, float(m.scores(Z, Y)), 0) > 0


# --- spans ----------------------------------------------------------------------------------------


def test_spans_are_the_published_example():
    """The example of seqeval's README: F1 0.50."""
    names = ["O", "B-MISC", "I-MISC", "B-PER", "I-PER"]
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O", "O", "O", "O", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O", "O", "O", "O", "O"]]
    y = np.array([[names.index(c) for c in row] for row in true])
    y[1, 3:] = -100
    m = told(named("entity_f1"), names, 1)
    assert m.scores(logits(said, names), y) == pytest.approx(0.5)
    assert told(named("entity_f1"), names, -1).scores(np.moveaxis(logits(said, names), 1, -1), y) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "tags, expected",
    [
        ([], set()),
        (["O", "O"], set()),
        (["B-A", "I-A", "B-A"], {(0, 2, "A"), (2, 3, "A")}),
        (["I-A", "I-B"], {(0, 1, "A"), (1, 2, "B")}),
        (["B-A", "O", "I-A"], {(0, 1, "A"), (2, 3, "A")}),
        (["S-A", "S-A", "B-A", "E-A", "I-A"], {(0, 1, "A"), (1, 2, "A"), (2, 4, "A"), (4, 5, "A")}),
    ],
)
def test_where_spans_begin_and_end(tags, expected):
    assert spans(tags) == expected


def test_spans_need_names():
    with pytest.raises(InputError, match="classes="):
        named("entity_f1").scores(Z[..., 0], Y[..., 0])
    with pytest.raises(InputError, match="classes="):
        told(named("entity_f1"), ["a", "b", "c", "d"], 1).scores(Z[..., 0], Y[..., 0])


# --- what is read from frames ---------------------------------------------------------------------


def test_the_best_path_is_read():
    frames = [[0, 1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0, 0]]
    assert decoded(np.moveaxis(np.eye(3)[frames], -1, 1)) == [[1, 1, 2], []]


@pytest.mark.parametrize("a, b, edits", [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2)])
def test_the_distance_is_levenshteins(a, b, edits):
    assert distance(a, b) == edits


def test_error_rates_of_characters_and_words():
    names = ["-", "a", "b", " "]
    read = [[1, 0, 2, 3, 1, 0], [2, 2, 0, 2, 0, 0]]  # "ab a", "bb"
    z = np.moveaxis(np.eye(4)[read], -1, 1)
    y = np.array([[1, 2, 3, 2], [2, 2, -1, -1]])  # "ab b", "bb"
    assert named("cer").scores(z, y) == pytest.approx(1 / 6)
    assert told(named("wer"), names, 1).scores(z, y) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="names of the classes"):
        named("wer").scores(z, y)


def test_a_candidate_that_reads_nothing_is_worse_and_no_fault():
    names, rng = ["-", "a", "b", "c"], np.random.default_rng(3)
    y = rng.integers(1, 4, (80, 2))
    z = np.moveaxis(np.eye(4)[np.stack([y[:, 0], y[:, 0] * 0, y[:, 1]], 1)], -1, 1)
    blank = np.zeros_like(z)
    blank[:, 0] = 1
    m = told(named("cer"), names, 1)
    assert m.scores(z, y) == 0 and m.scores(blank, y) == 1
    found, _ = compare(m, z, blank, y, 0)
    assert found.drop == 1 and found.cost > 0
    assert certify(m, z, blank, y, 0.1, 0)["verdict"] == "refuted"
    with pytest.raises(InputError, match="cannot be told") as e:
        compare(m, blank, blank, y, 0)
    assert "train it longer" in e.value.fix


# --- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5])
def test_recall_is_that_of_plain_neighbours(k):
    x, y = RNG.normal(size=(90, 8)).astype(np.float32), RNG.integers(0, 12, 90)
    x += np.eye(12, 8)[y] * 2
    near = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(x).kneighbors(x, return_distance=False)
    by_hand = [any(y[j] == y[i] for j in [j for j in row if j != i][:k]) for i, row in enumerate(near)]
    np.testing.assert_array_equal(metric(f"recall_at_{k}").scores(x, y), np.array(by_hand, dtype=float))


def test_recall_of_few():
    m = metric("recall_at_5")
    assert m.scores(np.ones((1, 3)), np.array([0])).tolist() == [0]
    assert m.scores(np.ones((3, 3)), np.array([0, 1, 0])).tolist() == [1, 0, 1]
    assert m.scores(np.zeros((2, 3)), np.array([0, 1])).tolist() == [0, 0]


def test_all_subsets_of_names_have_their_scores():
    """Each metric of places has a value where there is anything to count, whatever occurs."""
    for classes in itertools.product(range(2), repeat=3):
        y = np.array(classes).reshape(1, 3, 1)
        z = np.moveaxis(np.eye(2)[y], -1, 1)
        assert metric("miou").scores(z, y) == metric("pixel_accuracy").scores(z, y) == 1
