"""Truncate: which axis is time, by hand, in every exported file, with other steps."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight.engine.export import write_artifact
from featherweight.engine.weights import load_model
from featherweight.errors import InputError, RecipeError
from featherweight.measure.ops import macs
from featherweight.models.entry import changed, changes
from featherweight.models.package import Package
from featherweight.nets.encoder import Encoder
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.testing import check_transform
from featherweight.train.loop import predict
from featherweight.transforms.distill import Distill
from featherweight.transforms.drop_blocks import DropBlocks
from featherweight.transforms.prune import Prune
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.resize import Resize
from featherweight.transforms.trim_vocabulary import TrimVocabulary
from featherweight.transforms.truncate import Truncate
from tests import toy
from tests.lean import some

N, T, V = 96, 12, 600


def encoder():
    torch.manual_seed(0)
    return Encoder(vocab=V, length=T, classes=4, depth=3, heads=4, width=32, mlp_ratio=2.0).build()


def tokens(mask=None, **more):
    """Four classes, by the quarter of the first 100 ids that the tokens are of."""
    rng, y = np.random.default_rng(0), np.arange(N) % 4
    ids = (rng.integers(0, 25, (N, T)) + 25 * y[:, None]).astype("int64")
    mask = np.ones((N, T), "int64") if mask is None else mask
    return ArraySplit({"input_ids": ids, "attention_mask": mask, **more}, y)


def text_task(**more):
    return Task(name="tokens", model=more.pop("model", encoder), data=lambda: split(tokens(**more)))


class Series(nn.Module):
    """Of [n, T], [n, C, T] or [n, T, C], by `kind`."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv1d(1 if kind == "T" else 3, 8, 3, padding=1)
        self.rnn, self.out = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        if self.kind == "TC":
            return self.out(self.rnn(x)[0].mean(1))
        return self.out(torch.relu(self.conv(x.unsqueeze(1) if self.kind == "T" else x)).mean(2))


SHAPES = {"T": (16,), "CT": (3, 16), "TC": (16, 3)}


def series(kind, model=None, shape=None):
    x = np.random.default_rng(0).normal(size=(N, *(shape or SHAPES[kind]))).astype("float32")
    return Task(kind, model or (lambda: Series(kind)), lambda: split(ArraySplit({"x": x}, np.arange(N) % 4)))


def made(transform, task, package=None):
    return transform.apply(package or Package(task.build()), toy.context(task))


def rows(task, n=5):
    return tuple(torch.from_numpy(v) for v in task.splits().train.batch(np.arange(n))[0].values())


@pytest.mark.parametrize("length", [0.25, 0.7, 1.0])
def test_conformance(length):
    check_transform(Truncate(length), text_task())


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("how", ["head", "pool"])
def test_conformance_of_series(kind, how):
    check_transform(Truncate(0.5, how), series(kind))


def test_of_tokens_the_head_stays():
    t = text_task()
    before, package = t.build(), made(Truncate(0.5), t)
    x = rows(t)
    assert torch.equal(package.module(*x), before(*(v[:, :6] for v in x)))
    assert package.notes[-1]["sequences"]["input_ids"] == {"axis": 1, "length": 6}
    example = dict(zip(("input_ids", "attention_mask"), x, strict=True))
    assert macs(package.module, example) < 0.51 * macs(before, example)
    assert [p for p, _ in before.named_modules()] == [p for p, _ in package.module.named_modules()]


@pytest.mark.parametrize(("kind", "axis"), [("T", 1), ("CT", 2), ("TC", 1)])
def test_which_axis_is_time(kind, axis):
    t = series(kind)
    (x,) = rows(t)
    before = t.build()
    head, pooled = made(Truncate(0.25), t), made(Truncate(0.25, "pool"), t)
    assert head.notes[-1]["sequences"]["x"] == {"axis": axis, "length": 4}
    assert torch.equal(changed(head.module, (x,))[0], x.narrow(axis, 0, 4))
    parts = x.movedim(axis, -1).unflatten(-1, (4, 4)).mean(-1).movedim(-1, axis)
    assert torch.allclose(changed(pooled.module, (x,))[0], parts, atol=1e-6)
    assert torch.allclose(pooled.module(x), before(parts), atol=1e-5)


def test_what_is_left_over_at_the_end_goes():
    (x,) = rows(t := series("CT", shape=(3, 17)))
    third = changed(made(Truncate(1 / 3, "pool"), t).module, (x,))[0]
    assert third.shape[2] == 5 and torch.equal(third, F.avg_pool1d(x, 3))


def test_a_short_axis_of_channels_is_not_time():
    """Of three channels at 9/10 three are left, which says nothing."""
    t = series("CT")
    package = made(Truncate(0.9), t)
    assert package.notes[-1]["sequences"] == {"x": {"axis": 2, "length": 14}}
    nothing = made(Truncate(0.99), t)
    assert nothing.edits == () and nothing.notes[-1]["sequences"] == {}
    assert made(Truncate(0.99), text_task()).edits == ()


def test_two_after_each_other():
    t = text_task()
    package = made(Truncate(0.5), t, made(Truncate(0.5), t))
    assert [v.shape[1] for v in changed(package.module, rows(t))] == [3, 3]
    t = series("CT")
    package = made(Truncate(0.5), t, made(Truncate(0.5, "pool"), t))
    (x,) = rows(t)
    assert torch.equal(changed(package.module, (x,))[0], F.avg_pool1d(x, 2)[..., :4])


class Either(nn.Module):
    def forward(self, x):
        return x.mean((1, 2)).unsqueeze(1).expand(-1, 4)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        return self.out(x)


class Mixed(nn.Module):
    """Tokens and numbers beside them."""

    def __init__(self):
        super().__init__()
        self.table, self.out, self.side = nn.Embedding(V, 8), nn.Linear(8, 4), nn.Linear(3, 4)

    def forward(self, input_ids, attention_mask, other):
        return self.out((self.table(input_ids) * attention_mask.unsqueeze(-1)).mean(1)) + self.side(other.float())


def test_numbers_beside_tokens_stay_whole():
    side = np.random.default_rng(0).random((N, 3), np.float32)
    t = text_task(model=Mixed, other=side)
    package = made(Truncate(0.5), t)
    x = rows(t)
    assert torch.equal(package.module(*x), t.build()(x[0][:, :6], x[1][:, :6], x[2]))


@pytest.mark.parametrize(
    ("task", "fields", "match"),
    [
        (series("CT", Either), {}, "which axis is time: the model takes less of either"),
        (series("T", Flat), {}, r"takes no shorter sequences(.|\n)*the layer 'out' \(Linear\) fails"),
        (toy.task(), {}, r"which input is a sequence(.|\n)*image: float32\[64, 1, 8, 8\]"),
        (text_task(model=Mixed, other=np.zeros((N, 3), "int64")), {}, "they are of several lengths"),
        (text_task(), {"how": "pool"}, "tokens have no mean"),
        (series("T"), {"how": "pool", "length": 0.4}, r"whole number of neighbours(.|\n)*near it is 0.5"),
        (series("T"), {"how": "pool", "length": 0.01}, "whole number of neighbours"),
        (text_task(mask=np.tile(np.arange(T) > 2, (N, 1)).astype("int64")), {}, "first part of these texts is padding"),
        (series("T", shape=(1,)), {}, "there is nothing to shorten"),
    ],
    ids=lambda v: getattr(v, "name", None) or str(v),
)
def test_what_is_unclear_is_refused(task, fields, match):
    with pytest.raises(InputError, match=match):
        made(Truncate(**fields), task)


def test_order_and_fields():
    with pytest.raises(RecipeError, match="truncate cannot follow quantize"):
        Recipe(Quantize(), Truncate()).check()
    for length in (0.0, 1.1):
        with pytest.raises(InputError, match="out of its range"):
            Truncate(length)
    assert Truncate(1.0).idle and not Truncate(0.5).idle


STEPS = {
    "float": [],
    "vocabulary": [TrimVocabulary()],
    "vocabulary first": [TrimVocabulary(), Truncate(0.5)],
    "heads": [Prune(ratio=0.25, round_to=4, granularity="all", allocation="uniform")],
    "blocks": [DropBlocks(drop=1, samples=8)],
    "distilled": [Distill(epochs=1, batch_size=32)],
    "trained": [Qat(epochs=1, batch_size=32, samples=16)],
    "int8": [TrimVocabulary(), Quantize(samples=16)],
    "int8 dynamic": [TrimVocabulary(unknown="mean"), Quantize(scheme="int8-dynamic")],
    "4 bits": [TrimVocabulary(), Quantize(scheme="weight-only", bits=4, embeddings=4)],
    "all": [DropBlocks(drop=1, samples=8), TrimVocabulary(), Distill(epochs=1), Quantize(samples=16)],
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("steps", some(STEPS, ("float", "int8 dynamic", "all")))
def test_other_steps_follow_it(steps, runtime, tmp_path):
    t = text_task()
    base = Package(t.build())
    context = toy.context(t, teacher=predict(base.module, t.splits().train), model=base)
    package = Truncate(0.5).apply(base, context)
    for step in STEPS[steps]:
        package = step.apply(package, context)
    if runtime == "torch" and package.plan is not None:
        package = package.edited(plan=None, scales={})
    package.save(tmp_path, t.build)
    again = Package.load(tmp_path, t.build)
    assert torch.equal(again.module(*rows(t)), package.module(*rows(t)))
    assert torch.equal(load_model(tmp_path, encoder)(*rows(t)), package.module(*rows(t)))
    assert len(changes(again.module)) == (4 if steps == "vocabulary first" else 2)
    folder = tmp_path / runtime
    folder.mkdir()
    write_artifact(t, again, Target(runtime), Recipe(Truncate(0.5), *STEPS[steps]), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["inputs"]["input_ids"]["shape"] == ["batch", T]
    assert manifest["export"]["parity"]["agreement"] >= (1.0 if package.plan is None else 0.8)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_series_in_files(kind, runtime, tmp_path):
    t = series(kind)
    package = made(Truncate(0.5, "pool"), t)
    if runtime != "torch" and kind != "TC":
        package = made(Quantize(samples=16), t, package)
    write_artifact(t, package, Target(runtime), Recipe(Truncate(0.5, "pool")), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["export"]["parity"]["sqnr_db"] > 25


def test_resize_takes_no_tokens():
    with pytest.raises(InputError, match="takes no images to resize"):
        made(Resize(0.5), text_task())


def pairs():
    """ids of two texts a row, without padding, and which of the two each is of."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, V, (N, T))
    ids[:, 0], ids[:, T // 2 - 1], ids[:, -1] = 1, 2, 2
    kinds = np.tile((np.arange(T) >= T // 2).astype("int64"), (N, 1))
    return ids, kinds


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.kinds, self.out = nn.Embedding(V, 8), nn.Embedding(2, 8), nn.Linear(8, 4)

    def forward(self, input_ids, token_type_ids=None):
        x = self.table(input_ids)
        return self.out((x if token_type_ids is None else x + self.kinds(token_type_ids)).mean(1))


def of_ids(**inputs):
    y = np.arange(N) % 4
    return Task(name="pairs", model=Pairs, data=lambda: split(ArraySplit(inputs, y)))


def test_the_second_text_of_a_pair_is_no_mask():
    ids, kinds = pairs()
    t = of_ids(input_ids=ids, token_type_ids=kinds)
    package, x = made(Truncate(0.5), t), rows(t)
    assert torch.equal(package.module(*x), t.build()(x[0][:, : T // 2], x[1][:, : T // 2]))


@pytest.mark.parametrize("masked", [False, True])
def test_ids_that_begin_with_padding_are_refused(masked):
    ids = np.random.default_rng(0).integers(1, V, (N, T))
    ids[::3, :4] = 0
    inputs = {"input_ids": ids, **({"token_type_ids": (ids != 0).astype("int64")} if masked else {})}
    with pytest.raises(InputError, match="first part of these texts is padding"):
        made(Truncate(0.5), of_ids(**inputs))


def test_texts_that_repeat_a_token_are_no_padding():
    ids = np.random.default_rng(0).integers(1, 4, (N, T))
    assert made(Truncate(0.5), of_ids(input_ids=ids)).module
