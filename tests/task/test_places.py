"""Tasks with an answer at each place of a sample, with labels that are read from frames, and with
embeddings: what their targets are taken for, and their losses."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError
from featherweight.measure.accuracy import metric_of
from featherweight.task.accept import task_of
from featherweight.task.losses import BY_NAME, classes_second

RNG = np.random.default_rng(0)
N, K = 40, 3
X = RNG.normal(size=(N, 2, 6, 5)).astype(np.float32)
MASK = RNG.integers(0, K, (N, 6, 5))
IDS = RNG.integers(1, 20, (N, 7))
TAGS = ["O", "B-PER", "I-PER"]


class Tokens(nn.Module):
    """Logits of each token: [n, T, classes], or [n, classes, T]."""

    def __init__(self, classes=K, last=True):
        super().__init__()
        self.embed, self.head, self.last = nn.Embedding(20, 8), nn.Linear(8, classes), last

    def forward(self, input_ids):
        out = self.head(self.embed(input_ids))
        return out if self.last else out.transpose(1, 2)


def dense(outputs=K):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, outputs, 1))


def facts(task):
    return task.loss, task.metric, task.class_axis


def train_targets(task):
    return task.splits().train.all_targets()


def test_masks_of_classes():
    task = task_of(dense(), (X, MASK), classes=["sky", "road", "car"])
    assert facts(task) == ("cross_entropy", "miou", 1)
    assert task.splits().report["class_names"] == ["sky", "road", "car"]
    assert train_targets(task).dtype == np.int64 and train_targets(task).shape[1:] == (6, 5)


@pytest.mark.parametrize("shape", [(N, 1, 6, 5), (N, 6, 5, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_masks_as_they_come(shape, dtype):
    task = task_of(dense(), (X, MASK.reshape(shape).astype(dtype)))
    assert facts(task) == ("cross_entropy", "miou", 1) and train_targets(task).shape[1:] == (6, 5)


def test_places_of_255_do_not_count_and_that_is_said():
    task = task_of(dense(), (X, np.where(MASK == 2, 255, MASK).astype(np.uint8)))
    assert sorted(np.unique(train_targets(task))) == [-100, 0, 1]
    assert any("255 do not count" in note for note in task.notes)


def test_masks_of_one_class():
    task = task_of(dense(1), (X, (MASK > 1).astype(np.int64)))
    assert facts(task) == ("bce", "iou", 1) and task.splits().report["class_names"] == ["0", "1"]
    assert facts(task_of(dense(1), (X, (MASK > 1)[:, None]))) == ("bce", "iou", 1)


def test_masks_with_a_channel_a_class():
    one_hot = np.moveaxis(np.eye(K)[MASK], -1, 1)
    task = task_of(dense(), (X, one_hot))
    assert facts(task) == ("cross_entropy", "miou", 1)
    np.testing.assert_array_equal(np.unique(train_targets(task)), [0, 1, 2])
    several = (RNG.random((N, K, 6, 5)) < 0.5).astype(np.float32)
    assert facts(task_of(dense(), (X, several))) == ("bce", "macro_f1", 1)


def test_masks_in_samples_one_by_one():
    assert facts(task_of(dense(), list(zip(X, MASK, strict=True)))) == ("cross_entropy", "miou", 1)


def test_numbers_at_places():
    task = task_of(dense(2), (X, X + 1))
    assert facts(task) == ("mse", "r2", None)


def test_tokens_whose_classes_are_last():
    tags = np.where(IDS < 5, -100, IDS % K)
    task = task_of(Tokens(), ({"input_ids": IDS}, tags), classes=TAGS)
    assert facts(task) == ("cross_entropy", "entity_f1", -1)
    assert facts(task_of(Tokens(), (IDS, tags))) == ("cross_entropy", "token_accuracy", -1)
    assert facts(task_of(Tokens(last=False), (IDS, tags))) == ("cross_entropy", "token_accuracy", 1)
    assert facts(task_of(Tokens(), (IDS, tags), metric="accuracy"))[1] == "token_accuracy"
    assert facts(task_of(dense(), (X, MASK), metric="accuracy"))[1] == "pixel_accuracy"


def test_names_of_tokens():
    names = np.array(TAGS, dtype=object)[IDS % K]
    names[:, -1] = None
    task = task_of(Tokens(), (IDS, names), classes=TAGS)
    expected = IDS % K
    expected[:, -1] = -100
    assert facts(task) == ("cross_entropy", "entity_f1", -1)
    whole = np.concatenate([p.all_targets() for p in (task.splits().train, task.splits().valid, task.splits().test)])
    assert sorted(map(tuple, whole)) == sorted(map(tuple, expected))
    with pytest.raises(TaskError, match="another number of names"):
        task_of(Tokens(5), (IDS, names))
    with pytest.raises(TaskError, match="no classes"):
        task_of(Tokens(), (IDS, names), classes=["O", "B-PER", "B-LOC"])


def test_as_many_places_as_classes_is_said_and_can_be_told():
    tags = RNG.integers(0, 7, (N, 7))
    task = task_of(Tokens(7), (IDS, tags))
    assert task.class_axis == 1 and any("class_axis=-1" in note for note in task.notes)
    told = task_of(Tokens(7), (IDS, tags), class_axis=-1)
    assert told.class_axis == -1 and told.fingerprint != task.fingerprint
    with pytest.raises(TaskError, match="not on this axis"):
        task_of(Tokens(), (IDS, IDS % K), class_axis=1)


def test_frames_that_are_read():
    labels = np.array([[1, 2], [2, -1]] * (N // 2))
    for loss in ("ctc", nn.CTCLoss(), nn.CTCLoss):
        assert facts(task_of(Tokens(), (IDS, labels), loss=loss)) == ("ctc", "cer", -1)
    assert facts(task_of(Tokens(last=False), (IDS, labels), metric="wer", class_axis=1)) == ("ctc", "wer", 1)
    named = task_of(Tokens(last=False), (IDS, labels), loss="ctc", classes=["-", "a", "|"])
    assert named.class_axis == 1 and metric_of(named).name == "cer"
    with pytest.raises(TaskError, match="loss='ctc'"):
        task_of(Tokens(), (IDS, labels))
    with pytest.raises(TaskError, match="no output for every class"):
        task_of(Tokens(), (IDS, labels * 5), loss="ctc")


def test_embeddings():
    kinds, net = np.arange(N) % 8, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
    x = RNG.normal(size=(N, 4)).astype(np.float32)
    for asked in ({"metric": "recall_at_1"}, {"loss": "contrastive"}):
        assert facts(task_of(net, (x, kinds), **asked)) == ("contrastive", "recall_at_1", None)
    task = task_of(net, (x, np.array([f"person {k}" for k in kinds])), metric="recall_at_5")
    assert task.splits().report["class_names"][0] == "person 0"


def test_without_labels():
    assert facts(task_of(dense(), X)) == ("mse", "r2", None)
    assert facts(task_of(dense(), X, metric="agreement")) == ("kl", "agreement", 1)
    task = task_of(Tokens(), IDS, metric="agreement")
    assert facts(task) == ("kl", "agreement", -1)
    out, y = task.build()(torch.from_numpy(IDS[:9])).detach(), None
    y = task.build()(torch.from_numpy(IDS[:9])).detach()
    assert float(task.loss_fn(out, y)) == pytest.approx(0, abs=1e-6)
    assert float(task.loss_fn(out + torch.linspace(0, 3, K), y)) > 0.01
    assert float(task.loss_fn(out + torch.linspace(0, 3, 7)[:, None], y)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "net, data, message",
    [
        (dense(), (X, MASK[:, 0, 0]), "one target a sample"),
        (dense(), (X, MASK[:, :3]), "do not fit each other"),
        (dense(2), (X, MASK), "no output for every class"),
        (dense(), (X, MASK + 0.5), "do not fit each other"),
        (None, (X, MASK), "one row of answers"),
    ],
)
def test_what_does_not_fit_is_refused(net, data, message):
    with pytest.raises(TaskError, match=message):
        task = task_of(net, data)
        task.splits()
        task.outputs  # noqa: B018 (of a search)


def test_a_target_beyond_those_that_were_looked_at_is_refused():
    mask = np.where(np.arange(N)[:, None, None] == 17, 9, MASK)

    class Lazy(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return X[i], mask[i]

    with pytest.raises(TaskError, match="no output for every class"):
        task_of(dense(), Lazy()).splits()


# --- losses ---------------------------------------------------------------------------------------


def test_classes_that_are_last_lose_the_same():
    out, y = torch.randn(5, K, 7), torch.randint(0, K, (5, 7))
    y[0, :3] = -100
    expected = F.cross_entropy(out.permute(0, 2, 1)[y >= 0], y[y >= 0])
    torch.testing.assert_close(BY_NAME["cross_entropy"](out, y), expected)
    torch.testing.assert_close(classes_second(BY_NAME["cross_entropy"], out.movedim(1, -1), y), expected)
    other = torch.randn(5, K, 7)
    kl = BY_NAME["kl"]
    torch.testing.assert_close(classes_second(kl, out.movedim(1, -1), other.movedim(1, -1)), kl(out, other))
    torch.testing.assert_close(kl(out, other), kl(*(v.movedim(1, -1).reshape(-1, K) for v in (out, other))))


def test_yes_or_no_where_it_counts():
    out, y = torch.randn(4, 6), torch.randint(0, 2, (4, 6)).float()
    y[1] = -100
    keep = [0, 2, 3]
    expected = F.binary_cross_entropy_with_logits(out[keep], y[keep])
    torch.testing.assert_close(BY_NAME["bce"](out, y), expected)


def test_ctc_is_the_sum_over_all_paths():
    """Graves et al. 2006, eq. 3: labels are as probable as all frames that read so."""
    out = torch.randn(1, 3, 4, dtype=torch.float64)
    p = out.softmax(1)[0]
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        read = [c for c, before in zip(path, (None, *path[:-1]), strict=True) if c != before and c > 0]
        if read == [1, 2]:
            total += float(torch.stack([p[c, t] for t, c in enumerate(path)]).prod())
    loss = BY_NAME["ctc"](out, torch.tensor([[1, 2, 0]]))
    assert float(loss) == pytest.approx(-np.log(total) / 2)  # by its length, as torch has it
    assert float(BY_NAME["ctc"](out, torch.tensor([[1, 2, 1, 2, 1]]))) == 0  # too long for its frames


def test_contrastive_is_the_published_formula():
    """Khosla et al. 2020, eq. 2, sample by sample."""
    z, y = F.normalize(torch.randn(7, 5, dtype=torch.float64)), [0, 0, 1, 1, 1, 2, 0]
    terms = []
    for i in range(7):
        mates = [p for p in range(7) if p != i and y[p] == y[i]]
        if mates:
            below = sum(float((z[i] @ z[a] / 0.1).exp()) for a in range(7) if a != i)
            terms.append(-np.mean([float(z[i] @ z[p] / 0.1) - np.log(below) for p in mates]))
    out = (z * 3).requires_grad_()
    loss = BY_NAME["contrastive"](out, torch.tensor(y))
    assert loss.item() == pytest.approx(np.mean(terms))
    loss.backward()
    assert torch.isfinite(out.grad).all()
    alone = torch.randn(2, 3, requires_grad=True)
    assert BY_NAME["contrastive"](alone, torch.tensor([0, 1])).item() == 0


# --- a search -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["masks", *(pytest.param(k, marks=pytest.mark.slow) for k in ("tokens", "frames", "embeddings"))]
)
def test_each_is_searched_to_the_end(tmp_path, kind):
    torch.manual_seed(0)
    labels = np.array([[1, 2], [2, -1]] * (N // 2))
    net, data, more = {
        "masks": (dense(), (X, MASK), {}),
        "tokens": (Tokens(), (IDS, IDS % K), {"classes": TAGS}),
        "frames": (Tokens(), (IDS, labels), {"loss": "ctc"}),
        "embeddings": (
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)),
            (RNG.normal(size=(N, 4)).astype(np.float32), np.arange(N) % 4),
            {"metric": "recall_at_1"},
        ),
    }[kind]
    recipe = [fw.Distill(epochs=1), fw.Quantize(scheme="weight-only")]
    study = fw.optimize(
        net,
        data,
        recipe,
        **more,
        max_drop=0.99,
        trials=1,
        force=True,
        polish=0.0,
        measure_seconds=0.1,
        out=tmp_path,
        verbose=False,
    )
    (trial,) = study.state.trials
    assert trial.entry is not None, trial.reason
    assert 0 <= trial.entry.metric.value <= 3
