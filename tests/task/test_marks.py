"""What targets that are as many as outputs are taken for (yes or no, labels, a single 1, numbers),
what does not count, and what an original without labels is judged by."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight.errors import TaskError
from featherweight.measure.accuracy import metric_of
from featherweight.study.fitting import check_fit
from featherweight.task.accept import task_of
from featherweight.task.accept._axes import told_axis, values_of
from featherweight.task.accept._frames import needed
from featherweight.task.data import ArraySplit
from featherweight.task.losses import BY_NAME
from featherweight.task.splitting import split
from featherweight.task.task import Task

RNG = np.random.default_rng(0)
N = 40
X = RNG.normal(size=(N, 3, 6, 5)).astype(np.float32)
YES = RNG.integers(0, 2, (N, 6, 5))
KINDS = RNG.integers(0, 4, (N, 6, 5))
WHERE = RNG.random((N, 6, 5)) < 0.3


class Net(nn.Module):
    """A convolution, whose output stands as it is told."""

    def __init__(self, outputs=1, form="first", sigmoid=False, softmax=False):
        super().__init__()
        self.conv, self.form, self.sigmoid, self.softmax = nn.Conv2d(3, outputs, 3, padding=1), form, sigmoid, softmax

    def forward(self, x):
        out = self.conv(x)
        out = torch.sigmoid(out) if self.sigmoid else out.softmax(1) if self.softmax else out
        return {"first": out, "last": out.movedim(1, -1), "none": out[:, 0]}[self.form]


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)

    def forward(self, x):
        return self.conv(x)[:, 0]


def facts(task):
    return task.loss, task.metric, task.class_axis


def targets_of(task):
    splits = task.splits()
    return np.concatenate([part.all_targets() for part in (splits.train, splits.valid, splits.test)])


def judged(task):
    """The metric of what the model gives for valid, and by hand what its answers are."""
    valid = task.splits().valid
    x, y = valid.batch(np.arange(len(valid)))
    with torch.no_grad():
        out = task.build()(torch.from_numpy(next(iter(x.values())))).numpy()
    return metric_of(task), out, y


# --- a sigmoid at the end -------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "axis"), [("first", 1), ("last", -1), ("none", 0)])
@pytest.mark.parametrize(("sigmoid", "half"), [(False, 0.0), (True, 0.5)])
def test_masks_are_judged_where_the_answer_turns(form, axis, sigmoid, half):
    task = task_of(Net(1, form, sigmoid), (X, YES))
    assert facts(task) == (("log_loss", "iou@0.5", axis) if sigmoid else ("bce", "iou", axis))
    check_fit(task)
    m, out, y = judged(task)
    said, true = (out > half).reshape(y.shape), y == 1
    assert m.scores(out, y) == pytest.approx((said & true).sum() / (said | true).sum())


@pytest.mark.parametrize("sigmoid", [False, True])
def test_logits_that_happen_to_be_between_0_and_1_are_logits(sigmoid):
    net = Net(1, sigmoid=sigmoid)
    with torch.no_grad():
        net.conv.weight.mul_(0.01)
        net.conv.bias.fill_(0.5)
    assert facts(task_of(net, (X, YES)))[0] == ("log_loss" if sigmoid else "bce")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(90, 1), *[nn.Sigmoid()] * sigmoid)
    with torch.no_grad():
        flat[1].weight.mul_(0.01)
        flat[1].bias.fill_(0.5)
    task = task_of(flat, (X, YES[:, 0, 0]))
    assert facts(task)[:2] == (("log_loss", "accuracy@0.5") if sigmoid else ("bce", "accuracy"))


def test_labels_at_places_and_classes_of_a_softmax():
    several = RNG.integers(0, 2, (N, 4, 6, 5))
    assert facts(task_of(Net(4, sigmoid=True), (X, several))) == ("log_loss", "macro_f1@0.5", 1)
    task = task_of(Net(4, softmax=True), (X, KINDS))
    assert facts(task) == ("log_loss", "miou", 1)
    check_fit(task)
    out, y = torch.rand(3, 4, 5).softmax(1), torch.tensor([[0, 1, 2, 3, 0]] * 3)
    torch.testing.assert_close(task.loss_fn(out, y), F.nll_loss(out.log(), y))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"metric": "iou"}, ("log_loss", "iou@0.5")),
        ({"metric": "dice"}, ("log_loss", "dice@0.5")),
        ({"metric": "pixel_accuracy"}, ("log_loss", "pixel_accuracy@0.5")),
        ({"metric": "accuracy"}, ("log_loss", "pixel_accuracy@0.5")),
        ({"loss": nn.BCELoss()}, ("log_loss", "iou@0.5")),
        ({"loss": "log_loss"}, ("log_loss", "iou@0.5")),
        ({"loss": "log_loss", "metric": "f1"}, ("log_loss", "f1@0.5")),
        ({"loss": "bce"}, ("bce", "iou")),
        ({"loss": "bce", "metric": "iou"}, ("bce", "iou")),
        ({"loss": "mse"}, ("mse", "r2")),
    ],
)
def test_the_other_one_fits_what_was_given(more, expected):
    assert facts(task_of(Net(sigmoid=True), (X, YES), **more))[:2] == expected


def test_a_loss_of_logits_with_settings_says_that_they_are():
    task = task_of(Net(sigmoid=True), (X, YES), loss=nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0)))
    assert task.metric == "iou"


# --- what does not count --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["first", "last", "none"])
@pytest.mark.parametrize("void", [255, -100, -1])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_places_of_one_number_that_do_not_count(form, void, dtype):
    task = task_of(Net(1, form), (X, np.where(WHERE, void, YES).astype(dtype)))
    assert facts(task)[:2] == ("bce", "iou") and sorted(np.unique(targets_of(task))) == [-100, 0, 1]
    assert any("do not count" in note for note in task.notes)
    check_fit(task)
    m, out, y = judged(task)
    said, there = (out > 0).reshape(y.shape), y >= 0
    expected = (said & (y == 1)).sum() / ((said | (y == 1)) & there).sum()
    assert m.scores(out, y) == pytest.approx(expected)


def test_labels_that_do_not_count():
    several = RNG.choice([0, 1, 255], (N, 4, 6, 5))
    assert facts(task_of(Net(4), (X, several))) == ("bce", "macro_f1", 1)
    net, x, y = nn.Linear(4, 3), RNG.normal(size=(N, 4)).astype(np.float32), RNG.choice([0, 1, -1], (N, 3))
    task = task_of(net, (x, y))
    assert facts(task) == ("bce", "f1", 0)
    check_fit(task)
    m, out, known = judged(task)
    said, true = out > 0, known == 1
    assert m.scores(out, known) == pytest.approx(2 * (said & true).sum() / ((said & (known >= 0)).sum() + true.sum()))


def test_masks_of_0_and_255_are_yes_and_no():
    mask = (YES * 255).astype(np.uint8)
    one, two = task_of(Net(1), (X, mask)), task_of(Net(2), (X, mask))
    assert facts(one) == ("bce", "iou", 1) and facts(two) == ("cross_entropy", "miou", 1)
    for task in (one, two):
        assert sorted(np.unique(targets_of(task))) == [0, 1] and any("255 is taken for" in n for n in task.notes)
    with pytest.raises(TaskError, match="no class but the first"):
        task_of(Net(4), (X, mask))
    for net in (Net(2), Net(4)):
        with pytest.raises(TaskError, match="no target counts"):
            task_of(net, (X, mask * 0 + 255))


@pytest.mark.parametrize("odd", [1, 7])
def test_a_target_beside_0_and_255_that_was_not_looked_at_is_refused(odd, monkeypatch):
    monkeypatch.setattr("featherweight.task.accept._SOME", 10)
    mask = YES * 255
    mask[18, 0, 0] = odd
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(mask))
    for net in (Net(1), Net(2)):
        with pytest.raises(TaskError, match="neither yes nor no|have a 1, too|no output for every class"):
            task_of(net, data).splits()


def test_numbers_stay_numbers():
    assert facts(task_of(Net(3), (X, np.where(X > 0, 255, 0)))) == ("mse", "r2", None)
    assert facts(task_of(Net(), (X, np.where(YES, 1, -1)))) == ("mse", "r2", None)
    assert facts(task_of(Net(), (X, KINDS))) == ("mse", "r2", None)
    with pytest.raises(TaskError, match="say yes or no"):
        task_of(Net(), (X, KINDS), class_axis=1)


def test_what_does_not_count_is_known_of_all_splits():
    late = np.where(WHERE, 255, KINDS)
    task = task_of(Net(4), {"train": (X, KINDS), "valid": (X + 1, KINDS), "test": (X + 2, late)})
    assert (task.splits().test.all_targets() == -100).sum() == WHERE.sum()
    assert any("255 do not count" in n for n in task.notes)
    yes = task_of(Net(), {"train": (X, YES), "valid": (X + 1, YES), "test": (X + 2, np.where(WHERE, 255, YES))})
    assert (yes.splits().test.all_targets() == -100).sum() == WHERE.sum()


@pytest.mark.parametrize("cut", [False, True])
def test_targets_of_a_split_are_what_they_mean(cut):
    void = np.where(WHERE, 255, YES)
    for net, y, expected in (
        (Net(1), void, [-100, 0, 1]),
        (Net(1), YES * 255, [0, 1]),
        (Net(2), YES * 255, [0, 1]),
        (Net(4), np.where(WHERE, 255, KINDS), [-100, 0, 1, 2, 3]),
        (Net(4), np.moveaxis(np.eye(4)[KINDS], -1, 1), [0, 1, 2, 3]),
    ):
        data = ArraySplit({"x": X}, y)
        task = task_of(net, split(data) if cut else data)
        check_fit(task)
        assert np.unique(targets_of(task)).tolist() == expected
        assert len(task.fingerprint) == 64


@pytest.mark.parametrize("index", [255, -1, 0, 2])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0, 4.0])])
def test_what_the_loss_leaves_out_does_not_count(index, weight):
    y = np.where(WHERE, index, KINDS)
    task = task_of(Net(4), (X, y), loss=nn.CrossEntropyLoss(weight=weight, ignore_index=index))
    check_fit(task)
    assert task.metric == "miou" and (targets_of(task) == -100).sum() == (y == index).sum()
    out, own = torch.randn(N, 4, 6, 5), np.where(y == index, -100, y)
    given = nn.CrossEntropyLoss(weight=weight, ignore_index=index)(out, torch.from_numpy(y))
    torch.testing.assert_close(task.loss_fn(out, torch.from_numpy(own)), given)
    nothing = out.requires_grad_()
    task.loss_fn(nothing, torch.from_numpy(own) * 0 - 100).backward()
    assert float(nothing.grad.abs().max()) == 0


def test_samples_that_the_loss_leaves_out_are_refused():
    x, y = RNG.normal(size=(N, 4)).astype(np.float32), np.arange(N) % 4 - 1
    with pytest.raises(TaskError, match="leaves samples out"):
        task_of(nn.Linear(4, 3), (x, y), loss=nn.CrossEntropyLoss(ignore_index=-1))


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "log_loss"])
@pytest.mark.parametrize("void", [-100, -1])
def test_nothing_that_counts_loses_nothing(name, void):
    made = torch.randn(3, 4, 5) if name == "cross_entropy" else torch.rand(3, 1, 5)
    out, y = made.requires_grad_(), torch.full((3, 5), void)
    loss = BY_NAME[name](out, y)
    loss.backward()
    assert loss.item() == 0 and float(out.grad.abs().max()) == 0
    y[1, 2] = 1
    first = BY_NAME[name](out[1:2, :, 2:3], y[1:2, 2:3])
    torch.testing.assert_close(BY_NAME[name](out, y), first)


def test_log_loss_leaves_out_what_does_not_count():
    p, y = torch.rand(4, 6), torch.randint(0, 2, (4, 6)).float()
    y[1] = -100
    torch.testing.assert_close(BY_NAME["log_loss"](p, y), F.binary_cross_entropy(p[[0, 2, 3]], y[[0, 2, 3]]))
    masked = task_of(Net(sigmoid=True), (X, np.where(WHERE, 255, YES)), loss="log_loss", metric="log_loss")
    check_fit(masked)
    m, out, y = judged(masked)
    p, there = out[:, 0].astype(np.float64), y >= 0
    lost = np.where(there, -np.log(np.where(y == 1, p, 1 - p)), 0).reshape(len(y), -1).sum(1)
    np.testing.assert_allclose(m.scores(out, y), lost / there.reshape(len(y), -1).sum(1), rtol=1e-6)


# --- where the classes are ------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "axis"), [("first", 1), ("last", -1)])
def test_a_channel_a_class_and_labels_on_either_axis(form, axis):
    hot, several = np.eye(4)[KINDS], RNG.integers(0, 2, (N, 6, 5, 4))
    if axis == 1:
        hot, several = (np.moveaxis(v, -1, 1) for v in (hot, several))
    for more in ({}, {"class_axis": axis}):
        task = task_of(Net(4, form), (X, hot), **more)
        assert facts(task) == ("cross_entropy", "miou", axis)
        assert sorted(targets_of(task).sum((1, 2))) == sorted(KINDS.sum((1, 2)))
        labels = task_of(Net(4, form), (X, several), **more)
        assert facts(labels) == ("bce", "macro_f1", axis)
        check_fit(labels)


def test_volumes_without_a_channel():
    x, y = RNG.normal(size=(N, 1, 2, 4, 4)).astype(np.float32), RNG.integers(0, 2, (N, 2, 4, 4))
    task = task_of(Volume(), (x, y))
    assert facts(task) == ("bce", "iou", 0)
    m, out, y = judged(task)
    assert m.scores(out, y) == pytest.approx(((out > 0) & (y == 1)).sum() / ((out > 0) | (y == 1)).sum())
    assert facts(task_of(nn.Conv2d(3, 4, 2, stride=2), (X[:, :, :4, :4], np.ones((N, 4, 2, 2), int))))[2] == 1


@pytest.mark.parametrize(
    ("inputs", "shape", "axis"),
    [
        ([(3, 8, 9)], (8, 9), 0),
        ([(8, 9, 3)], (8, 9), 0),
        ([(1, 4, 8, 8)], (4, 8, 8), 0),
        ([(3, 8, 9)], (5, 8, 9), 1),
        ([(3, 8, 9)], (8, 9, 5), -1),
        ([(3, 8, 9)], (1, 4, 4), 1),
        ([(3, 8, 9)], (4, 4, 1), -1),
        ([(7,)], (7, 5), -1),
        ([(7,), (7,)], (5, 7), 1),
        ([(20, 13)], (20, 4), -1),
        ([(13, 20)], (4, 20), 1),
        ([(3, 32, 99)], (24, 30), None),
        ([(3, 8, 9)], (5, 4, 4), None),
        ([(7,)], (7,), None),
    ],
)
def test_inputs_show_where_the_classes_are(inputs, shape, axis):
    assert told_axis(inputs, shape) == axis


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float32, np.float64])
def test_the_values_that_there_are(dtype):
    values = np.array([[0, 1], [100, 3]], dtype=dtype)
    assert values_of([values, values[:1]]).tolist() == [0, 1, 3, 100]
    assert values_of([np.array([[True], [False]])]).tolist() == [0, 1]
    assert values_of([np.array([5000, -5000, 7])]).tolist() == [-5000, 7, 5000]
    assert values_of([RNG.normal(size=(100, 40))]) is None
    assert values_of([np.zeros((0, 3))]).tolist() == []


def test_no_axis_of_classes_is_of_no_classes():
    with pytest.raises(TaskError, match="several classes"):
        Task("t", lambda: nn.Linear(1, 1), lambda: None, loss="cross_entropy", class_axis=0)
    with pytest.raises(TaskError, match="no such axis"):
        Task("t", lambda: nn.Linear(1, 1), lambda: None, class_axis=2)


# --- without labels -------------------------------------------------------------------------------


class One(nn.Module):
    def __init__(self, sigmoid, flat):
        super().__init__()
        self.linear, self.sigmoid, self.flat = nn.Linear(4, 1), sigmoid, flat

    def forward(self, x):
        out = self.linear(x)
        out = torch.sigmoid(out) if self.sigmoid else out
        return out[:, 0] if self.flat else out


@pytest.mark.parametrize(("sigmoid", "asked"), [(False, "agreement"), (True, "agreement"), (True, "agreement@0.5")])
@pytest.mark.parametrize("kind", ["first", "last", "none", "flat", "column"])
def test_agreement_of_yes_or_no_is_that_of_the_answers(kind, sigmoid, asked):
    """By a loop over answers: another net's are judged, whose logits differ in sign."""
    check_agreement(kind, sigmoid, asked)


def test_agreement_of_labels_is_that_of_the_answers():
    check_agreement("labels", True, "agreement")


def check_agreement(kind, sigmoid, asked):
    torch.manual_seed(1)
    nets, x = [], X
    for _ in range(2):
        if kind in ("flat", "column"):
            x = RNG.normal(size=(N, 4)).astype(np.float32) if not nets else x
            nets.append(One(sigmoid, kind == "flat"))
        else:
            nets.append(Net(4 if kind == "labels" else 1, "first" if kind == "labels" else kind, sigmoid))
    task = task_of(nets[0], x, metric=asked)
    assert facts(task)[:2] == (("log_loss", "agreement@0.5") if sigmoid else ("kl", "agreement"))
    check_fit(task)
    m, own, y = judged(task)
    np.testing.assert_allclose(own, y, atol=1e-5)
    valid = task.splits().valid
    rows = next(iter(valid.batch(np.arange(len(valid)))[0].values()))
    with torch.no_grad():
        other = nets[1].eval()(torch.from_numpy(rows)).numpy()
    half = 0.5 if sigmoid else 0.0
    same = ((other > half) == (own > half)).reshape(len(own), -1).mean(1)
    assert 0 < same.mean() < 1
    np.testing.assert_allclose(m.scores(other, y), same)


@pytest.mark.parametrize("kind", ["first", "none"])
def test_one_logit_is_pulled_to_the_originals(kind):
    task = task_of(Net(1, kind), X, metric="agreement")
    out, teacher = torch.randn(4, 1, 6, 5), torch.randn(4, 1, 6, 5)
    if kind == "none":
        out, teacher = out[:, 0], teacher[:, 0]
    out.requires_grad_()
    loss = task.loss_fn(out, teacher)
    (g,) = torch.autograd.grad(loss, out)
    torch.testing.assert_close(g, (out.sigmoid() - teacher.sigmoid()).detach() / out.numel())
    p = teacher.sigmoid()
    entropy = F.binary_cross_entropy(p, p)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(out, p) - entropy)
    assert float(task.loss_fn(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_answers_that_may_be_classes_or_a_mask_are_asked_about():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 2, stride=2)

        def forward(self, x):
            return self.conv(x)[:, 0]

    with pytest.raises(TaskError, match="one answer of yes or no") as e:
        task_of(Pooled(), X, metric="agreement")
    assert "class_axis=0" in e.value.fix
    assert facts(task_of(Pooled(), X, metric="agreement", class_axis=0)) == ("kl", "agreement", 0)
    assert facts(task_of(Pooled(), X, metric="agreement", class_axis=1)) == ("kl", "agreement", 1)
    assert facts(task_of(Net(4, softmax=True), X, metric="agreement")) == ("mse", "agreement", 1)
    assert facts(task_of(Net(4, "last"), X, metric="agreement")) == ("kl", "agreement", -1)


def test_answers_are_compared_with_labels_only_where_there_are_some():
    with pytest.raises(TaskError, match="no labels that answers") as e:
        task_of(Net(), X, metric="iou")
    assert "agreement" in e.value.fix


# --- frames and embeddings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "frames"), [([1, 2, 3], 3), ([1, 1], 3), ([1, 0, 1], 3), ([0, 0], 0), ([2, 2, 2, 1], 6)]
)
def test_frames_that_labels_need(labels, frames):
    assert needed(np.array([labels])).tolist() == [frames]
    if frames:  # torch's loss is finite from there on
        for have, finite in ((frames, True), (frames - 1, False)):
            given = [v for v in labels if v]
            loss = F.ctc_loss(torch.zeros(have, 1, 4).log_softmax(-1), torch.tensor([given]), [have], [len(given)])
            assert bool(torch.isfinite(loss)) is finite


def test_labels_that_do_not_fit_their_frames_are_refused():
    x = RNG.normal(size=(N, 3, 8)).astype(np.float32)
    net = nn.Conv1d(3, 5, 3, padding=1)
    labels = np.tile([1, 2, 3, 4, 1, 2, 3, 4], (N, 1))
    assert facts(task_of(net, (x, labels), loss="ctc")) == ("ctc", "cer", 1)
    labels[7, 1] = 1
    with pytest.raises(TaskError, match="do not fit the frames") as e:
        task_of(net, (x, labels), loss="ctc")
    assert "1 of 40 samples need up to 9 frames" in e.value.got


def test_torchs_ctc_is_ours_or_refused():
    x, labels = RNG.normal(size=(N, 3, 8)).astype(np.float32), RNG.integers(1, 5, (N, 2))
    net = nn.Conv1d(3, 5, 3, padding=1)
    task = task_of(net, (x, labels), loss=nn.CTCLoss(zero_infinity=True))
    assert facts(task) == ("ctc", "cer", 1)
    for loss in (nn.CTCLoss(blank=4), nn.CTCLoss(reduction="sum")):
        with pytest.raises(TaskError, match="class 0 for the blank") as e:
            task_of(net, (x, labels), loss=loss)
        assert "loss='ctc'" in e.value.allowed


def test_embeddings_without_a_second_sample_of_any_kind_are_refused():
    x = RNG.normal(size=(N, 4)).astype(np.float32)
    for y in (np.arange(N), np.array([f"row {i}" for i in range(N)])):
        with pytest.raises(TaskError, match="no kind has a second sample"):
            task_of(nn.Linear(4, 3), (x, y), metric="recall_at_1")


@pytest.mark.parametrize("more", [{"metric": "entity_f1"}, {"metric": "macro_f1@0.3"}])
def test_of_classes_no_regression_is_proposed(more):
    ids = RNG.integers(0, 5, (N, 7))
    task = task_of(nn.Embedding(20, 5), (ids, ids), **more)
    with pytest.raises(TaskError, match="does not fit") as e:
        check_fit(task)
    assert "mse" not in e.value.fix and ("classes=[..]" in e.value.fix) == (more["metric"] == "entity_f1")
