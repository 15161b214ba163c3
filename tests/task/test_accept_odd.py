"""Data, labels and models on which a task was once something else than what was given."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from featherweight.errors import TaskError
from featherweight.task.accept import task_of
from featherweight.task.accept._identity import identity
from tests.task.test_accept import Forward, N, Pairs, X, Y, net

TWELVE = np.arange(N) % 12


def wide(outputs=12):
    return net(outputs)


def targets_of(task):
    """{input: target} of all splits."""
    splits = task.splits()
    out = {}
    for part in (splits.train, splits.valid, splits.test):
        for inputs, targets in part.batches():
            out |= {x.tobytes(): int(t) for x, t in zip(next(iter(inputs.values())), targets, strict=True)}
    return out


@pytest.mark.parametrize(
    "labels",
    [TWELVE.astype(object), TWELVE.astype(str), pd.Series(TWELVE.astype(str)), TWELVE.astype(str).tolist()],
    ids=["objects", "text", "series", "list"],
)
def test_numbers_in_another_dress_stay_the_numbers(labels):
    found = targets_of(task_of(wide(), (X, labels)))
    assert [found[x.tobytes()] for x in X] == TWELVE.tolist()


def test_a_categorical_has_its_own_order():
    names = ["low", "mid", "high"]
    series = pd.Series(pd.Categorical(np.array(names)[Y], categories=names, ordered=True))
    for data, more in (((X, series), {}), (pd.DataFrame(X).assign(kind=series), {"label": "kind"})):
        task = task_of(net(), data, **more)
        assert task.splits().train.classes == tuple(names)
        assert [targets_of(task)[x.tobytes()] for x in X] == Y.tolist()


def test_names_that_are_not_the_models_are_refused():
    some = np.array(["c00", "c05", "c09"])[Y]
    with pytest.raises(TaskError, match="another number of names"):
        task_of(wide(), (X, some))
    order = [f"c{i:02}" for i in range(12)]
    assert set(targets_of(task_of(wide(), (X, some), classes=order)).values()) == {0, 5, 9}
    with pytest.raises(TaskError, match="another number of names"):
        task_of(net(1), (X, np.array(["a", "b", "c"])[Y]))
    assert any("ben 0, mal 1" in note for note in task_of(net(2), (X, np.array(["mal", "ben"])[Y % 2])).notes)
    assert any("'pos'" in note for note in task_of(net(1), (X, np.array(["neg", "pos"])[Y % 2])).notes)


@pytest.mark.parametrize("gap", [None, float("nan"), pd.NA], ids=str)
def test_missing_labels_are_no_class(gap):
    labels = np.array(["a", "b", "c"], dtype=object)[Y]
    labels[7] = gap
    with pytest.raises(TaskError, match="labels are missing"):
        task_of(net(), (X, labels))


@pytest.mark.parametrize("two", [(1, 2), (-1, 1)])
def test_two_numbers_for_one_logit_are_two_classes(two):
    task = task_of(net(1), (X, np.array(two)[Y % 2]))
    assert task.loss == "bce" and [targets_of(task)[x.tobytes()] for x in X] == (Y % 2).tolist()


@pytest.mark.parametrize(
    "classes", [["a", "b"], ["a", "b", "c", "d"], ["a", "a", "b"], {0: "a", 1: "b", 2: "c"}, "abc", []], ids=str
)
def test_names_of_classes_that_cannot_be(classes):
    with pytest.raises(TaskError, match="no names for the classes"):
        task_of(net(), (X, Y), classes=classes)


def test_every_split_is_held_to_what_train_says():
    part = {"train": (X[:60], Y[:60]), "valid": (X[60:90], Y[60:90])}
    with pytest.raises(TaskError, match="class numbers are whole"):
        task_of(net(), {**part, "test": (X[90:], Y[90:] + 0.7)}).splits()
    hot = np.eye(3)[Y]
    wrong = hot[90:].copy()
    wrong[3] = 1
    with pytest.raises(TaskError, match="a single 1"):
        task_of(net(), {"train": (X[:60], hot[:60]), "valid": (X[60:90], hot[60:90]), "test": (X[90:], wrong)}).splits()
    with pytest.raises(TaskError, match="0 or 1"):
        task_of(net(1), {"train": (X[:60], Y[:60] % 2), "test": (X[60:], Y[60:])}).splits()


# --- which samples --------------------------------------------------------------------------------


class Own(torch.utils.data.Sampler):
    def __iter__(self):
        return iter(range(0, N, 2))

    def __len__(self):
        return N // 2


@pytest.mark.parametrize(
    "loader",
    [
        lambda d: DataLoader(d, sampler=list(range(0, N, 2))),
        lambda d: DataLoader(d, sampler=Own()),
        lambda d: DataLoader(d, batch_sampler=BatchSampler(SubsetRandomSampler(range(0, N, 2)), 8, False)),
        lambda d: DataLoader(d, batch_sampler=[[i, i + 2] for i in range(0, N, 4)]),
        lambda d: DataLoader(d, sampler=WeightedRandomSampler([1.0, 0.0] * (N // 2), N)),
    ],
    ids=["list", "own", "batch sampler", "list of batches", "weights"],
)
def test_a_loader_is_what_its_sampler_draws(loader):
    task = task_of(net(), loader(Pairs()))
    assert set(targets_of(task)) == {x.tobytes() for x in X[::2]}
    assert any("60 of 120" in note for note in task.notes)


class Half(Pairs):
    """Augmented now and then, its targets drawn, or by its own generator."""

    def __init__(self, how):
        super().__init__()
        self.how, self.own = how, np.random.default_rng(0)

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        if self.how == "rarely" and torch.rand(()) < 0.1:
            x = -x
        if self.how == "targets":
            y = int(np.random.randint(3))
        if self.how == "own":
            x = x + float(self.own.normal())
        return x, y


@pytest.mark.parametrize("how", ["rarely", "targets"])
def test_what_is_drawn_now_and_then_is_noticed(how):
    first, again = (task_of(net(), Half(how)) for _ in range(2))
    assert first.fingerprint == again.fingerprint and any("another one each time" in n for n in first.notes)


def test_a_generator_of_the_datasets_own_is_refused():
    with pytest.raises(TaskError, match="a generator of the dataset's own"):
        task_of(net(), Half("own"))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.from_numpy(X), Y.tolist(), strict=True))


def test_a_stream_is_read_once_whatever_workers_a_loader_has():
    assert task_of(net(), DataLoader(Stream(), batch_size=8, num_workers=2)).splits().report["samples"] == N


def test_batches_are_not_samples():
    batches = list(DataLoader(Pairs(), batch_size=10))
    with pytest.raises(TaskError, match="looks like a batch of samples"):
        task_of(net(1), batches)


def test_what_belongs_to_no_row_is_not_dropped():
    with pytest.raises(TaskError, match="different lengths"):
        task_of(Forward(), {"x": X, "w": X[:-1], "labels": Y})
    with pytest.raises(TaskError, match="other indexes"):
        task_of(net(), (pd.DataFrame(X), pd.Series(Y)[::-1]))
    with pytest.raises(TaskError, match="masked"):
        task_of(net(), (np.ma.masked_array(X, X > 1), Y))
    with pytest.raises(TaskError, match="no split"):
        task_of(net(), {"train": (X, Y), "test": (X, Y), "more": (X, Y)})


def test_splits_by_other_names():
    assert task_of(net(), {"Training": (X[:60], Y[:60]), "TEST": (X[60:], Y[60:])}).splits().report["samples"] == N


class Broken(Pairs):
    def __getitem__(self, i):
        if i == 40:
            raise KeyError("photo 40")
        return super().__getitem__(i)


def test_a_dataset_that_fails_says_where():
    with pytest.raises(TaskError, match=r"does not give its samples[\s\S]*photo 40"):
        task_of(net(), Broken()).splits()


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net()

    def forward(self, left, right):
        return self.layers(left - right)


class Nested(Dataset):
    def __init__(self, form):
        self.form = form

    def __len__(self):
        return N

    def __getitem__(self, i):
        a, b = torch.from_numpy(X[i] + 1), torch.from_numpy(X[i])
        return {"tuple": (a, b), "list": [a, b], "named": {"right": b, "left": a}}[self.form], int(Y[i])


@pytest.mark.parametrize(
    "data",
    [
        ((X + 1, X), Y),
        ([X + 1, X], Y),
        (X + 1, X, Y),
        *map(Nested, ("tuple", "list", "named")),
        DataLoader(Nested("tuple"), batch_size=4),
    ],
    ids=["tuple", "list", "flat", "samples", "sample lists", "sample names", "loader"],
)
def test_two_inputs_in_every_form(data):
    inputs, targets = task_of(Two(), data).splits().train.batch(np.arange(5))
    assert list(inputs) == ["left", "right"] and np.allclose(inputs["left"] - inputs["right"], 1, atol=1e-5)
    rows = {x.tobytes(): y for x, y in zip(X, Y, strict=True)}
    assert [rows[x.tobytes()] for x in inputs["right"]] == targets.tolist()


# --- precision, losses, probabilities -------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_precisions_are_taken_in_float32(kind):
    module = net().to(kind)
    task = task_of(module, (torch.from_numpy(X).to(kind), Y))
    assert next(task.build().parameters()).dtype == torch.float32 and next(module.parameters()).dtype == kind


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i4", "<f8"])
def test_byte_order_is_no_matter(kind):
    task = task_of(net(), ((X * 10).astype(kind), Y))
    out = task.build()(torch.from_numpy(task.splits().train.batch(np.arange(3))[0]["input"]))
    assert out.shape == (3, 3) and bool(torch.isfinite(out).all())


def test_splits_that_were_cut_before_keep_their_groups():
    import featherweight as fw

    cut = fw.split(fw.ArraySplit({"x": X}, Y), groups=np.arange(N) // 4)
    found = task_of(Forward(), cut).splits()
    assert found is cut and found.units["test"] is cut.units["test"] and found.report["how"].endswith("kept together")


def test_probabilities_have_their_threshold_whatever_metric_is_named():
    model = nn.Sequential(net(1), nn.Sigmoid())
    assert task_of(model, (X, Y % 2), metric="recall").metric == "recall@0.5"
    assert task_of(model, (X, Y % 2), metric="auc").metric == "auc"
    assert task_of(net(1), (X, Y % 2), metric="recall").metric == "recall"


def test_a_loss_of_logits_is_believed():
    model = nn.Sequential(net(1), nn.Sigmoid())  # whatever it looks like
    task = task_of(model, (X, Y % 2), loss=nn.BCEWithLogitsLoss())
    assert (task.loss, task.metric) == ("bce", "accuracy")
    with pytest.raises(TaskError, match="takes probabilities"):
        task_of(net(1), (X, Y % 2), loss=nn.BCELoss())


def test_a_frozen_model_is_trained():
    module = net().requires_grad_(False)
    assert all(p.requires_grad for p in task_of(module, (X, Y)).build().parameters())
    module[2].requires_grad_(True)  # and one of which a part is frozen stays so
    assert [p.requires_grad for p in task_of(module, (X, Y)).build().parameters()] == [False, False, True, True]
    assert not next(module.parameters()).requires_grad


# --- identity -------------------------------------------------------------------------------------

SCALE = 1.0


def scaled(z):
    return z * SCALE


class Held(nn.Module):
    def __init__(self, sign=1.0):
        super().__init__()
        self.layers, self.sign = net(), sign

    def forward(self, x):
        return scaled(self.layers(x)) * self.sign


def closed(k):
    return lambda outputs, targets: ((outputs - k) ** 2).mean()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Held(1.0), lambda: Held(-1.0)),
        (lambda: closed(1), lambda: closed(2)),
        (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), lambda: nn.CrossEntropyLoss(label_smoothing=0.9)),
        (lambda: nn.CrossEntropyLoss(torch.ones(3)), lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))),
        (lambda: lambda x, k=1: x, lambda: lambda x, k=2: x),
        (lambda: hooked(1.0), lambda: hooked(2.0)),
    ],
    ids=["attribute", "closure", "setting", "weights", "default", "hook"],
)
def test_what_computes_otherwise_is_something_else(one, other):
    assert identity(one()) == identity(one()) and identity(one()) != identity(other())


def hooked(by):
    module = net()
    module.register_forward_hook(lambda m, args, out: out * by)
    return module


def test_a_function_that_is_called_counts(monkeypatch):
    before = identity(Held())
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert identity(Held()) != before
    monkeypatch.undo()
    assert identity(Held()) == before
    monkeypatch.setitem(globals(), "scaled", lambda z: -z)
    assert identity(Held()) != before


def test_an_identity_is_the_same_in_another_process(tmp_path):
    import subprocess
    import sys

    (tmp_path / "s.py").write_text(
        "import torch\nfrom torch import nn\nfrom featherweight.task.accept._identity import identity\n"
        "class N(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.s = nn.Linear(2, 2), {'x', 'y'}\n"
        "    def forward(self, x):\n        return self.a(x)\n"
        "torch.manual_seed(0)\nprint(identity(N()), identity(nn.CrossEntropyLoss(label_smoothing=0.1)))\n"
    )
    runs = [subprocess.run([sys.executable, str(tmp_path / "s.py")], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.split()) == 2, runs[0].stderr
