"""What people have, as a task: models and data of every usual form."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

import featherweight as fw
from featherweight.errors import FeatherweightError, TaskError
from featherweight.task.accept import task_of

N, CLASSES = 120, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % CLASSES


def net(outputs=CLASSES, inputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))


class Pairs(Dataset):
    """Samples one by one, as people write them."""

    def __init__(self, x=X, y=Y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]), int(self.y[i])


class Named(Pairs):
    def __getitem__(self, i):
        return {"x": self.x[i], "extra": "text", "labels": int(self.y[i])}


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.from_numpy(X), Y.tolist(), strict=True))


class Hugging(Pairs):
    """What a Hugging Face dataset is known by."""

    column_names = ["x", "text", "label"]

    def __init__(self):
        super().__init__()
        self.features = {
            "x": type("Seq", (), {"dtype": "float32"})(),
            "text": type("Value", (), {"dtype": "string"})(),
            "label": type("ClassLabel", (), {"names": ["a", "b", "c"], "dtype": "int64"})(),
        }
        self.format = {"type": None}

    def with_format(self, kind, columns):
        assert kind == "numpy" and columns == ["x", "label"]
        return self

    def __getitem__(self, rows):
        return {"x": self.x[rows], "label": self.y[rows]}


Hugging.__module__, Hugging.__name__ = "datasets.arrow_dataset", "Dataset"


class Forward(nn.Module):
    """forward takes `x` by name."""

    def __init__(self, outputs=CLASSES):
        super().__init__()
        self.layers = net(outputs)

    def forward(self, x):
        return self.layers(x)


DATA = {
    "arrays": lambda: (X, Y),
    "tensors": lambda: (torch.from_numpy(X), torch.from_numpy(Y)),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "doubles": lambda: (X.astype(np.float64), Y.astype(np.int32)),
    "column of targets": lambda: (X, Y[:, None]),
    "floating targets": lambda: (X, Y.astype(np.float32)),
    "frames": lambda: (pd.DataFrame(X), pd.Series(Y)),
    "arrays by name": lambda: ({"x": X}, Y),
    "mapping": lambda: {"x": X, "labels": Y},
    "bunch": lambda: {"data": X, "target": Y, "DESCR": "text", "target_names": np.array(["a", "b", "c"])},
    "dataset": Pairs,
    "dictionaries": Named,
    "tensor dataset": lambda: TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "subset": lambda: Subset(Pairs(), range(N)),
    "list of samples": lambda: [(x, int(y)) for x, y in zip(X, Y, strict=True)],
    "loader": lambda: DataLoader(Pairs(), batch_size=16, shuffle=True),
    "streamed": Streamed,
    "loader of a stream": lambda: DataLoader(Streamed(), batch_size=7),
    "hugging face": Hugging,
    "split": lambda: fw.ArraySplit({"x": X}, Y),
}


@pytest.mark.parametrize("form", DATA)
def test_data_of_every_form_are_the_same_task(form):
    task = task_of(Forward(), DATA[form]())
    splits = task.splits()
    assert task.loss == "cross_entropy" and task.metric == "accuracy"
    assert sorted(splits.report["sizes"].values()) == [24, 24, 72]
    inputs, targets = splits.train.batch(np.arange(72))
    assert list(inputs) == ["x"] and inputs["x"].dtype == np.float32 and targets.dtype == np.int64
    # whatever the form, each sample has its own target
    rows = {x.tobytes(): y for x, y in zip(X, Y, strict=True)}
    assert [rows[x.tobytes()] for x in inputs["x"]] == targets.tolist()
    assert task.build()(torch.from_numpy(inputs["x"])).shape == (72, CLASSES)


def test_names_of_classes_come_from_where_the_data_have_them():
    text = np.array(["cat", "dog", "emu"])[Y]
    assert task_of(Forward(), (X, text)).splits().train.classes == ("cat", "dog", "emu")
    assert task_of(Forward(), (X, list(text))).splits().train.classes == ("cat", "dog", "emu")
    assert task_of(Forward(), Hugging()).splits().train.classes == ("a", "b", "c")
    bunch = DATA["bunch"]()
    assert task_of(Forward(), bunch).splits().train.classes == ("a", "b", "c")
    task = task_of(Forward(), (X, text), classes=["emu", "dog", "cat"])
    _, targets = task.splits().train.batch(np.arange(3))
    assert task.splits().train.classes == ("emu", "dog", "cat") and set(targets) <= {0, 1, 2}
    with pytest.raises(TaskError, match="labels that are no classes"):
        task_of(Forward(), (X, text), classes=["emu", "dog"])


def test_columns_of_a_frame():
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=Y)
    task = task_of(net(), frame, label="kind")
    assert task.splits().train.batch(np.arange(2))[0]["input"].shape == (2, 4)
    with pytest.raises(TaskError, match="no such column"):
        task_of(net(), frame, label="sort")
    with pytest.raises(TaskError, match="no numbers"):
        task_of(net(), frame.assign(name="x"), label="kind")


def test_a_file_of_numpy(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, labels=Y)
    assert task_of(Forward(), tmp_path / "d.npz").splits().report["samples"] == N
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(TaskError, match="cannot be read as NumPy's"):
        task_of(Forward(), tmp_path / "bad.npz")
    with pytest.raises(TaskError, match="no such file"):
        task_of(Forward(), tmp_path / "gone.npz")
    with pytest.raises(TaskError, match="NumPy's"):
        (tmp_path / "d.csv").write_text("a,b")
        task_of(Forward(), tmp_path / "d.csv")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net()

    def forward(self, left, right=None, *, scale=1.0):
        return self.layers(left - right) * scale


@pytest.mark.parametrize(
    "data",
    [
        ({"right": X, "left": X + 1}, Y),
        ((X + 1, X), Y),
        ([torch.from_numpy(X + 1), torch.from_numpy(X)], torch.from_numpy(Y)),
        TensorDataset(torch.from_numpy(X + 1), torch.from_numpy(X), torch.from_numpy(Y)),
    ],
    ids=["by name", "tuple", "list", "three tensors"],
)
def test_several_inputs_go_to_their_arguments(data):
    inputs, targets = task_of(Two(), data).splits().train.batch(np.arange(3))
    assert list(inputs) == ["left", "right"] and len(targets) == 3
    assert np.allclose(inputs["left"] - inputs["right"], 1)


def test_inputs_by_name_that_stand_later_in_forward():
    class Later(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net()

        def forward(self, ids=None, embeds=None):
            return self.layers(embeds)

    module = Later()
    task = task_of(module, ({"embeds": X}, Y))
    built = task.build()
    assert torch.equal(built(torch.from_numpy(X[:3])), module(embeds=torch.from_numpy(X[:3])))


class Several(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.layers, self.made = net(), made

    def forward(self, x):
        return self.made(self.layers(x))


@pytest.mark.parametrize(
    ("made", "output"),
    [
        (lambda z: {"logits": z, "hidden": z.exp()}, None),
        (lambda z: {"a": z, "b": z.exp()}, "a"),
        (lambda z: (z, z.exp()), 0),
        (lambda z: (z,), None),
        (lambda z: type("Out", (), {})(), None),
    ],
    ids=["logits", "named", "placed", "one of one", "no tensor"],
)
def test_one_of_several_outputs(made, output):
    module = Several(made)
    if made(torch.zeros(2, 3)).__class__.__name__ == "Out":
        with pytest.raises(TaskError, match="gives no tensor"):
            task_of(module, (X, Y))
        return
    built = task_of(module, (X, Y), output=output).build()
    assert torch.equal(built(torch.from_numpy(X[:2])), module.layers(torch.from_numpy(X[:2])))


def test_several_outputs_of_which_none_was_named():
    with pytest.raises(TaskError, match="several tensors") as e:
        task_of(Several(lambda z: {"a": z, "b": z}), (X, Y))
    assert "output='a'" in str(e.value)
    with pytest.raises(TaskError, match="no such output"):
        task_of(Several(lambda z: {"a": z, "b": z}), (X, Y), output="c")
    with pytest.raises(TaskError, match="leave output out"):
        task_of(net(), (X, Y), output="a")


# --- models ---------------------------------------------------------------------------------------


def test_a_module_is_copied_and_left_as_it_was():
    module = net().train()
    before = copy.deepcopy(module.state_dict())
    task = task_of(nn.DataParallel(module), (X, Y))
    with torch.no_grad():
        task.build()[0].weight.zero_()
    assert module.training and all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert torch.equal(task.build()[0].weight, module[0].weight) and task.baseline is None


def test_classes_and_functions_make_models(tmp_path):
    assert task_of(Forward, (X, Y), baseline=3).baseline.steps[0].epochs == 3
    assert task_of(lambda: net(), (X, Y), baseline=fw.Train(epochs=2)).name == "sequential"
    (tmp_path / "nets.py").write_text("from torch import nn\ndef tiny():\n    return nn.Linear(4, 3)\n")
    assert task_of(f"{tmp_path / 'nets.py'}:tiny", (X, Y)).build().weight.shape == (3, 4)


class Weights(dict):
    pass


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: torch.jit.script(net()), "scripted or traced"),
        (lambda: net().state_dict(), "weights without the model"),
        (lambda: {"a": 1}, "this is no model"),
        (lambda: 3, "this is no model"),
        (lambda: nn.Linear, "cannot be called without arguments"),
        (lambda: lambda: 3, "makes no model"),
        (lambda: lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: "net.bin", "no model that can be read"),
        (lambda: nn.Linear(4, 3, device="meta"), "no weights"),
        (lambda: net(inputs=5), "does not take these inputs"),
    ],
    ids=["scripted", "weights", "dict", "number", "class", "no module", "fails", "file", "meta", "shapes"],
)
def test_what_is_no_model_is_refused_with_what_would_be(model, said):
    with pytest.raises(TaskError, match=said):
        task_of(model(), (X, Y))


def test_a_model_of_another_library_is_named():
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(TaskError, match="a scikit-learn model"):
        task_of(LogisticRegression(), (X, Y))


def test_images_as_they_lie_get_the_reason():
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    images = RNG.integers(0, 255, (N, 8, 8, 3))
    with pytest.raises(TaskError, match="channels first"):
        task_of(conv, (images.astype(np.float32), Y))
    with pytest.raises(TaskError, match="float32, scaled"):
        task_of(conv, (images.astype(np.uint8).transpose(0, 3, 1, 2), Y))


# --- what targets stand for -----------------------------------------------------------------------

LABELS = (RNG.random((N, 3)) < 0.4).astype(np.int64)
CASES = {
    "one logit": (lambda: net(1), Y % 2, "bce", "accuracy"),
    "one probability": (lambda: nn.Sequential(net(1), nn.Sigmoid()), Y % 2, "log_loss", "accuracy@0.5"),
    "probabilities": (lambda: nn.Sequential(net(), nn.Softmax(1)), Y, "log_loss", "accuracy"),
    "log-probabilities": (lambda: nn.Sequential(net(), nn.LogSoftmax(1)), Y, "cross_entropy", "accuracy"),
    "yes and no": (lambda: net(1), Y % 2 == 1, "bce", "accuracy"),
    "names of two": (lambda: net(2), np.array(["no", "yes"])[Y % 2], "cross_entropy", "accuracy"),
    "number": (lambda: net(1), X[:, 0] * 2, "mse", "r2"),
    "numbers": (lambda: net(2), X[:, :2], "mse", "r2"),
    "counts": (lambda: net(1), Y * 7, "mse", "r2"),
    "labels": (lambda: net(3), LABELS, "bce", "micro_f1"),
    "labels, probabilities": (lambda: nn.Sequential(net(3), nn.Sigmoid()), LABELS, "log_loss", "micro_f1@0.5"),
    "one-hot": (lambda: net(3), np.eye(3)[Y], "cross_entropy", "accuracy"),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_metric_suit_targets_and_outputs(case):
    from featherweight.study.fitting import check_fit

    model, targets, loss, metric = CASES[case]
    task = task_of(model(), (X, targets))
    assert (task.loss, task.metric) == (loss, metric)
    check_fit(task)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (Y + 1, "no output for every class"),
        (X[:, 0], "no whole numbers"),
        (LABELS[:, :2], "do not fit each other"),
        (np.array([f"name {i}" for i in range(N)]), "no classes"),
        (np.where(Y == 0, np.nan, X[:, 0]), "NaN"),
        (Y[:-1], "different lengths"),
    ],
    ids=["from 1", "fractions", "width", "names", "nan", "length"],
)
def test_targets_that_do_not_fit_are_refused(targets, said):
    with pytest.raises(TaskError, match=said):
        task_of(net(), (X, targets))


@pytest.mark.parametrize(
    ("given", "loss"),
    [
        (nn.CrossEntropyLoss(), "cross_entropy"),
        (nn.CrossEntropyLoss, "cross_entropy"),
        ("cross_entropy", "cross_entropy"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), None),
        (nn.CrossEntropyLoss(weight=torch.ones(3)), None),
        (nn.functional.cross_entropy, None),
    ],
)
def test_losses_of_torch(given, loss):
    from featherweight.study.fitting import check_fit

    task = task_of(net(), (X, Y), loss=given)
    assert task.loss == loss if loss else callable(task.loss)
    assert task.metric == "accuracy"
    check_fit(task)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(pos_weight=torch.ones(3) * 2), nn.MSELoss(), nn.L1Loss()])
def test_losses_of_torch_get_targets_as_they_take_them(loss):
    from featherweight.study.fitting import check_fit

    check_fit(task_of(net(), (X, LABELS), loss=loss))


def test_a_loss_that_is_none():
    with pytest.raises(FeatherweightError, match="no such loss") as e:
        task_of(net(), (X, Y), loss="crossentropy")
    assert "cross_entropy?" in str(e.value)
    with pytest.raises(TaskError, match="this is no loss"):
        task_of(net(), (X, Y), loss=3)


# --- splits ---------------------------------------------------------------------------------------


def test_parts_that_are_given_stay():
    parts = {"train": (X[:60], Y[:60]), "val": (X[60:90], Y[60:90]), "test": (X[90:], Y[90:])}
    assert task_of(net(), parts).splits().report["sizes"] == {"train": 60, "valid": 30, "test": 30}


@pytest.mark.parametrize("held", ["test", "val"])
def test_a_model_with_weights_is_judged_on_what_it_has_not_seen(held):
    data = {"train": Pairs(X[:60], Y[:60]), held: Pairs(X[60:], Y[60:])}
    splits = task_of(net(), data).splits()
    assert splits.report["sizes"] == {"train": 60, "valid": 30, "test": 30}
    seen = {x.tobytes() for x in X[:60]}
    for part in (splits.valid, splits.test):
        assert not seen & {x.tobytes() for x in part.batch(np.arange(30))[0]["input"]}
    # one that is trained here has seen nothing yet
    fresh = task_of(net, data, baseline=1).splits()
    assert fresh.report["sizes"] == {"train": 48, "valid": 12, "test": 60}


def test_parts_that_make_no_task():
    with pytest.raises(TaskError, match="no train split"):
        task_of(net(), {"valid": (X, Y), "test": (X, Y)})
    with pytest.raises(TaskError, match="given twice"):
        task_of(net(), {"train": (X, Y), "val": (X, Y), "valid": (X, Y)})
    with pytest.raises(TaskError, match="no targets"):
        task_of(net(), {"train": (X, Y), "test": X})
    with pytest.raises(TaskError, match="empty"):
        task_of(net(), (X[:0], Y[:0]))
    with pytest.raises(TaskError, match="no data that can be read"):
        task_of(net(), 3)


def test_a_sampler_of_a_part():
    loader = DataLoader(Pairs(), sampler=SubsetRandomSampler(range(60)))
    assert task_of(net(), loader).splits().report["samples"] == 60


class Drawn(Pairs):
    """Augmented at random."""

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]) + 0.1 * torch.randn(4), int(self.y[i])


def test_samples_that_are_drawn_are_drawn_once():
    module = net()
    state = torch.get_rng_state()
    first, again = (task_of(module, Drawn()) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert any("another one each time" in note for note in first.notes)
    assert torch.equal(torch.get_rng_state(), state)


# --- without labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [X, torch.from_numpy(X), TensorDataset(torch.from_numpy(X)), {"input": X}, (X,)])
def test_without_labels_the_originals_answers_are_kept(data):
    module = net()
    task = task_of(module, data)
    assert (task.loss, task.metric) == ("kl", "agreement")
    inputs, targets = task.splits().train.batch(np.arange(5))
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs["input"])).numpy()
    assert np.allclose(targets, expected, atol=1e-6)


def test_what_is_kept_of_numbers_probabilities_and_vectors():
    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net(8)

        def forward(self, x):
            return nn.functional.normalize(self.layers(x))

    assert task_of(net(1), X).metric == "r2"
    assert (task_of(Unit(), X).loss, task_of(Unit(), X).metric) == ("cosine", "cosine")
    assert task_of(nn.Sequential(net(), nn.Softmax(1)), X).metric == "agreement"
    assert task_of(net(), X, metric="r2").metric == "r2"
    with pytest.raises(TaskError, match="has none yet"):
        task_of(Forward, X)


def test_a_net_that_computes_otherwise_is_another_task():
    class A(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net()

        def forward(self, x):
            return self.layers(x)

    def other(self, x):
        return self.layers(x) * 2

    first = task_of(A(), (X, Y)).fingerprint
    assert task_of(A(), (X, Y)).fingerprint == first
    A.forward = other
    assert task_of(A(), (X, Y)).fingerprint != first


def test_targets_that_float32_cannot_tell_apart_are_refused():
    y = 1e12 + 1e3 * np.random.default_rng(0).normal(size=60)
    with pytest.raises(TaskError, match="float32.* cannot tell") as e:
        task_of(nn.Linear(4, 1), (np.zeros((60, 4), np.float32), y))
    assert "y - 1" in str(e.value)
