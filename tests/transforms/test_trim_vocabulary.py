"""TrimVocabulary: bit for bit on tokens that stay, by hand on those that go, refusals, files."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.engine.export import write_artifact
from featherweight.errors import InputError, RecipeError, StoreError
from featherweight.models.copies import copied
from featherweight.models.package import Package
from featherweight.models.surgery import edit
from featherweight.models.tables import row_bytes, rows_of, trimmed
from featherweight.nets.encoder import Encoder
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.testing import check_transform
from featherweight.train.loop import predict
from featherweight.transforms.distill import Distill
from featherweight.transforms.prune import Prune
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from featherweight.transforms.trim_vocabulary import TrimVocabulary
from tests import toy
from tests.lean import some

N, T, V = 96, 8, 900


def encoder():
    torch.manual_seed(0)
    return Encoder(vocab=V, length=T, classes=4, depth=1, heads=4, width=32, mlp_ratio=2.0).build()


def tokens(n=N):
    """Ids 100 to 163; 100 to 103 are the commonest."""
    rng, y = np.random.default_rng(0), np.arange(n) % 4
    ids = 100 + np.where(
        rng.random((n, T)) < 0.5, rng.integers(0, 4, (n, T)), rng.integers(0, 16, (n, T)) + 16 * y[:, None]
    )
    return ArraySplit({"input_ids": ids.astype("int64"), "attention_mask": np.ones((n, T), "int64")}, y)


def task(model=encoder, **more):
    return Task("tokens", model, lambda: split(tokens()), **more)


def made(transform, t=None, package=None):
    t = t or task()
    return transform.apply(package or Package(t.build()), toy.context(t))


def table(package, path="tokens"):
    return rows_of(package.module.get_submodule(path))


def seen(t=None):
    train = (t or task()).splits().train
    return np.bincount(train.batch(np.arange(len(train)))[0]["input_ids"].ravel(), minlength=V)


def rows(t=None):
    return tuple(torch.from_numpy(v) for v in (t or task()).splits().train.batch(np.arange(20))[0].values())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"unknown": "mean"},
        {"min_count": 9},
        {"coverage": 0.5},
        {"floor": 300},
        {"keep": (5, 899)},
        {"min_count": 0},
    ],
    ids=str,
)
def test_conformance(fields):
    check_transform(TrimVocabulary(**fields), task())


def test_tokens_that_stay_give_the_very_outputs():
    t = task()
    before, package = t.build(), made(TrimVocabulary(), t)
    assert torch.equal(package.module(*rows()), before(*rows()))
    kept = (seen() > 0).sum()
    assert package.module.tokens.weight.shape == (kept, 32) and package.module.tokens.num_embeddings == kept
    assert table(package).dtype == torch.int16 and len(table(package)) == V
    assert package.notes[-1]["tables"]["tokens"] == {"rows": [V, kept], "seen": kept}
    assert [p for p, _ in before.named_modules()] == [p for p, _ in package.module.named_modules()]
    for train in (False, True):  # gradients reach the rows that are left
        module = copied(package.module).train(train)
        module(*rows()).sum().backward()
        assert module.tokens.weight.grad.abs().sum() > 0


def test_which_rows_stay():
    counts = seen()
    for fields, want in (
        ({"min_count": 3}, counts >= 3),
        ({"min_count": 3, "keep": (7,)}, (counts >= 3) | (np.arange(V) == 7)),
        ({"floor": 200}, (counts > 0) | (np.arange(V) < 200 - (counts > 0).sum() + ((counts > 0)[:200]).sum())),
    ):
        weight = task().build().tokens.weight
        package = made(TrimVocabulary(**fields))
        left = package.module.tokens.weight
        if "floor" not in fields:
            assert torch.equal(left, weight[torch.from_numpy(want)])
        else:
            assert len(left) == 200 and torch.equal(left[:100], weight[:100])
    covered = made(TrimVocabulary(coverage=0.5)).module.tokens.num_embeddings
    commonest = np.sort(counts)[::-1]
    assert covered == int((np.cumsum(commonest) - commonest < 0.5 * counts.sum()).sum())


def test_what_went_by_hand():
    w = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [0.0, -1.0], [0.1, 5.0]])
    kept = torch.tensor([True, False, True, False, False])
    left, at = trimmed(w, kept, "nearest")
    assert torch.equal(left, w[[0, 2]]) and at.tolist()[:3] == [0, 0, 1] and at[4] == 1
    left, at = trimmed(w, kept, "mean")
    assert torch.allclose(left[2], w[[1, 3, 4]].mean(0)) and at.tolist() == [0, 2, 1, 2, 2]
    left, at = trimmed(w, torch.ones(5, dtype=torch.bool), "mean")
    assert torch.equal(left, w) and at.tolist() == [0, 1, 2, 3, 4]
    left, at = trimmed(w, torch.tensor([False, False, True, False, False]), "nearest")
    assert left.shape == (1, 2) and at.tolist() == [0] * 5


def test_the_model_reads_what_the_table_says():
    t = task()
    package, before = made(TrimVocabulary(unknown="mean"), t), t.build()
    ids, mask = (v.clone() for v in rows())
    ids[:, 0] = 5
    gone = torch.from_numpy(seen() == 0)
    with torch.no_grad():
        before.tokens.weight[5] = before.tokens.weight[gone].mean(0)
    assert torch.allclose(package.module(ids, mask), before(ids, mask), atol=1e-6)


def test_the_small_table_is_as_small_as_it_can_be():
    assert row_bytes(30522, 9000) == 61044 and row_bytes(30522, 2**15) == 61044
    assert row_bytes(250_000, 2**15 + 1) == 1_000_000
    module = nn.ModuleDict({"e": nn.Embedding(40_000, 4)})
    edit(module, {"edit": "trim_table", "path": "e", "rows": 33_000})
    assert rows_of(module["e"]).dtype == torch.int32 and module["e"](torch.tensor([3])).shape == (1, 4)


def test_twice():
    t = task()
    once, counts = made(TrimVocabulary(), t), seen()
    twice = made(TrimVocabulary(min_count=3), t, once)
    assert twice.module.tokens.num_embeddings == (counts >= 3).sum() and len(table(twice)) == V
    want = made(TrimVocabulary(min_count=3), t)
    assert torch.equal(twice.module.tokens.weight, want.module.tokens.weight)
    stay = torch.from_numpy(counts >= 3)
    assert torch.equal(table(twice)[stay], table(want)[stay])


class Padded(nn.Module):
    """Tells padding by the ids themselves, as RoBERTa's positions do."""

    def __init__(self):
        super().__init__()
        self.table, self.places, self.out = nn.Embedding(V, 8, padding_idx=1), nn.Embedding(T + 2, 8), nn.Linear(8, 4)

    def forward(self, input_ids, attention_mask):
        real = (input_ids != 1).long()
        h = self.table(input_ids) + self.places(torch.cumsum(real, 1) * real)
        return self.out((h * attention_mask.unsqueeze(-1)).mean(1))


def test_the_rest_of_the_model_sees_the_ids_themselves():
    t = task(Padded)
    package = made(TrimVocabulary(), t)
    ids, mask = (v.clone() for v in rows())
    ids[:, 5:], mask[:, 5:] = 1, 0
    assert torch.equal(package.module(ids, mask), t.build()(ids, mask))  # the padding stays
    layer = package.module.table
    assert layer.padding_idx == table(package, "table")[1] and bool((layer.weight[layer.padding_idx] == 0).all())


class Tied(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.table, self.out = nn.Embedding(V, 8), nn.Linear(8, V, bias=False)
        if how == "tied":
            self.out.weight = self.table.weight
        if how == "renormalised":
            self.table.max_norm = 1.0
        if how == "computed":
            nn.utils.parametrizations.weight_norm(self.table)

    def forward(self, input_ids, attention_mask):
        ids = input_ids + 1 if self.how == "other ids" else input_ids
        h = self.table(ids).mean(1)
        return (h @ self.table.weight.t() if self.how == "read" else self.out(h))[:, -4:]


class NoTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(V, 4))

    def forward(self, input_ids, attention_mask):
        return self.w[input_ids].mean(1)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (
            lambda: Tied("tied"),
            r"no embedding of this model can lose rows(.|\n)*table: it shares its weights with out.weight",
        ),
        (lambda: Tied("read"), "does more with these embeddings than look tokens up"),
        (lambda: Tied("other ids"), "table: it is given something else than an input"),
        (lambda: Tied("renormalised"), "its rows change when they are read"),
        (lambda: Tied("computed"), "its weight is computed from other parameters"),
        (NoTable, "no nn.Embedding"),
    ],
)
def test_what_cannot_lose_rows_is_refused(model, match):
    with pytest.raises(InputError, match=match):
        made(TrimVocabulary(), task(model))


def test_images_have_no_vocabulary():
    with pytest.raises(InputError, match="no embedding of this model can lose rows"):
        made(TrimVocabulary(), toy.task())


def test_where_it_saves_nothing_the_table_is_left_whole():
    package = made(TrimVocabulary(floor=V))
    assert package.edits == () and "saves nothing" in package.notes[-1]["whole"]["tokens"]
    assert TrimVocabulary(min_count=0).idle and not TrimVocabulary(min_count=0, coverage=0.9).idle
    with pytest.raises(InputError, match=r"no such ids to keep(.|\n)*0 to 899"):
        made(TrimVocabulary(keep=(900,)))
    with pytest.raises(RecipeError, match="trim_vocabulary cannot follow quantize"):
        Recipe(Quantize(), TrimVocabulary()).check()
    with pytest.raises(StoreError, match="no such embedding"):
        edit(encoder(), {"edit": "trim_table", "path": "tokens", "rows": V + 2})


def test_the_tokenizers_special_tokens_stay():
    def deploy(folder):
        told = {
            "added_tokens": [{"id": 3, "special": True}, {"id": 4, "special": False}, {"id": 10**6, "special": True}]
        }
        (folder / "tokenizer.json").write_text(json.dumps(told))
        return {"kind": "text", "tokenizer": "tokenizer.json"}

    t = task(deploy=deploy)
    package = made(TrimVocabulary(unknown="mean"), t)
    weight, at = t.build().tokens.weight, table(package)
    assert torch.equal(package.module.tokens.weight[at[3].long()], weight[3]) and at[4] == at[5] != at[3]


STEPS = {
    "float": [],
    "trained": [Train(epochs=1, batch_size=32)],
    "distilled": [Distill(epochs=1, batch_size=32)],
    "zeros": [Prune(ratio=0.3, granularity="weight", criterion="magnitude"), TrimVocabulary(min_count=3)],
    "heads": [Prune(ratio=0.25, round_to=4, granularity="all", allocation="uniform")],
    "trained int8": [Qat(epochs=1, batch_size=32, samples=16)],
    "int8": [Quantize(samples=16)],
    "8-bit tables": [Quantize(scheme="int8-dynamic", embeddings=8)],
    "4-bit tables": [Quantize(scheme="weight-only", bits=4, embeddings=4)],
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("steps", some(STEPS, ("float", "trained int8", "8-bit tables", "zeros")))
def test_other_steps_follow_it(steps, runtime, tmp_path):
    t = task()
    base = Package(t.build())
    context = toy.context(t, teacher=predict(base.module, t.splits().train), model=base)
    package = TrimVocabulary().apply(base, context)
    for step in STEPS[steps]:
        package = step.apply(package, context)
    if runtime == "torch" and package.plan is not None:
        pytest.skip("it runs no plans")
    package.save(tmp_path, t.build)
    again = Package.load(tmp_path, t.build)
    assert torch.equal(again.module(*rows()), package.module(*rows()))
    sizes, noise = [], []
    for name, one in (("trimmed", again), ("whole", base.edited(plan=package.plan, scales={}))):
        folder = tmp_path / name
        folder.mkdir()
        write_artifact(t, one, Target(runtime), Recipe(TrimVocabulary(), *STEPS[steps]), folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        sizes.append(manifest["size_bytes"])
        noise.append(manifest["export"]["parity"]["sqnr_db"] or 999.0)  # none where it is exact
        assert package.plan is not None or manifest["export"]["parity"]["agreement"] == 1.0
    if not package.scales:  # else the whole one has no grids of its own
        assert sizes[0] < sizes[1]
        assert package.plan is None or noise[0] > noise[1] - 3


class Bag(nn.Module):
    """No attention: then all of a graph's operators are quantized, but not the small table."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(V, 32), nn.Linear(32, 4)

    def forward(self, input_ids, attention_mask):
        return self.out(torch.relu((self.table(input_ids) * attention_mask.unsqueeze(-1)).mean(1)))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_static_int8_without_attention(runtime, tmp_path):
    t = task(Bag)
    package = made(Quantize(samples=16), t, made(TrimVocabulary(), t))
    write_artifact(t, package, Target(runtime), Recipe(TrimVocabulary()), tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["export"]["parity"]["sqnr_db"] > 20
