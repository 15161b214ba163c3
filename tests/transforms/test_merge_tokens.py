"""MergeTokens: against the pairs counted by hand, the published algorithm's parts, every exported
file, and layers for which it would be wrong."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.engine.export import write_artifact
from featherweight.errors import InputError
from featherweight.models.package import Package
from featherweight.models.surgery import keep_blocks
from featherweight.models.tokens import matched, merge
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
from featherweight.transforms.merge_tokens import MergeTokens, rows_of
from featherweight.transforms.prune import Prune
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.truncate import Truncate
from tests import toy
from tests.lean import some

N, T = 96, 12


def encoder():
    torch.manual_seed(0)
    return Encoder(vocab=100, length=T, classes=4, depth=4, heads=4, width=32, mlp_ratio=2.0).build()


class Vit(nn.Module):
    """Patches of 4 x 4 of images [n, 3, 16, 16], a token for all, layers of torch's own."""

    def __init__(self, turned=False):
        super().__init__()
        torch.manual_seed(0)
        self.turned = turned
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.all = nn.Parameter(torch.randn(1, 1, 32))
        self.places = nn.Parameter(torch.randn(1, 17, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=not turned)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.out = nn.Linear(32, 4)

    def forward(self, x):
        p = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.all.expand(p.shape[0], -1, -1), p], 1) + self.places
        if self.turned:
            return self.out(self.layers(h.transpose(0, 1))[0])
        return self.out(self.layers(h)[:, 0])


def texts():
    rng, y = np.random.default_rng(0), np.arange(N) % 4
    lengths = rng.integers(4, T + 1, N)
    return ArraySplit(
        {
            "input_ids": rng.integers(0, 25, (N, T)) + 25 * y[:, None],
            "attention_mask": (np.arange(T) < lengths[:, None]).astype("int64"),
        },
        y,
    )


def text_task(model=encoder):
    return Task("texts", model, lambda: split(texts()))


def image_task(model=Vit):
    x = np.random.default_rng(0).normal(size=(N, 3, 16, 16)).astype("float32")
    return Task("images", model, lambda: split(ArraySplit({"x": x}, np.arange(N) % 4)))


def made(task, ratio=0.4, depth=0.5, package=None):
    return MergeTokens(ratio, depth).apply(package or Package(task.build()), toy.context(task))


def rows(task, n=16):
    inputs, _ = task.splits().train.batch(np.arange(n))
    return tuple(torch.as_tensor(v) for v in inputs.values())


def paired(x, sizes, merged):
    """{place of a token: that of the one that it is merged into}, one by one, and what stands where
    afterwards: Bolya et al. 2023, section 3, with numpy."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    best = {}
    for i in range(1, len(x), 2):
        fit = {j: unit[i] @ unit[j] - 2 * (j == 0) - 4 * (sizes[j] == 0) for j in range(0, len(x), 2)}
        j = max(fit, key=fit.get)
        best[i] = (fit[j] + 8 * (sizes[i] == 0), j)
    gone = sorted(best, key=lambda i: -best[i][0])[:merged]
    into = {i: best[i][1] for i in gone}
    values = {}
    for j in range(len(x)):
        if j not in into:
            of = [j, *(i for i in into if into[i] == j)]
            weight = sizes[of]
            values[j] = (weight[:, None] * x[of]).sum(0) / max(weight.sum(), 1)
    return into, values


@pytest.mark.parametrize("t", [4, 9, 12])
@pytest.mark.parametrize("padded", [None, "end", "start"])
def test_it_merges_the_most_alike(t, padded):
    g = torch.Generator().manual_seed(t)
    x = torch.randn(5, t, 6, generator=g)
    sizes = torch.randint(1, 4, (5, t), generator=g).float()
    if padded:
        sizes[1:, slice(t - t // 3, None) if padded == "end" else slice(0, t // 3)] = 0
    for merged in range(1, t // 2):
        found = matched(x, sizes, merged)
        y, left = found.joined(x)
        assert y.shape == (5, t - merged, 6)
        for n in range(5):
            into, values = paired(x[n].double().numpy(), sizes[n].numpy(), merged)
            for i in range(t):
                at = int(found.into[n, i])
                assert int(found.kept[n, at]) == into.get(i, i)
                if sizes[n, i] > 0:
                    np.testing.assert_allclose(y[n, at].numpy(), values[into.get(i, i)], rtol=1e-4, atol=1e-5)
        # padding weighs nothing, and all else is still there
        torch.testing.assert_close((y * left[..., None]).sum(1), (x * sizes[..., None]).sum(1))


def test_without_sizes_each_token_counts_once():
    x = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    plain, counted = matched(x, None, 2), matched(x, torch.ones(3, 9), 2)
    for a, b in zip(plain.joined(x), counted.joined(x), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(plain.kept, counted.kept) and torch.equal(plain.into, counted.into)


def test_nothing_is_merged_into_the_first_token():
    x = torch.ones(1, 9, 4) + 0.01 * torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    x[0, 1] = x[0, 0]  # which would be its likest
    found = matched(x, None, 3)
    assert torch.equal(found.joined(x)[0][0, 0], x[0, 0])


def test_conforms():
    check_transform(MergeTokens(0.4, 0.25), text_task())
    check_transform(MergeTokens(0.5), image_task())


def test_what_padding_holds_does_not_matter():
    """As before the step, the answer hangs on no token that the mask leaves out."""
    task = text_task()
    module = made(task, 0.4, 0.25).module
    ids, mask = rows(task)
    other = torch.where(mask == 1, ids, (ids + 7) % 100)
    assert not torch.equal(ids, other)
    torch.testing.assert_close(module(ids, mask), module(other, mask))


def test_equal_tokens_are_merged_at_no_cost():
    """Tokens that are one are merged, and attention that counts each once changes the least: with
    four layers' inputs all equal nothing changes at all."""
    task = image_task()
    net = task.build()
    net.places.data.fill_(0)
    flat = torch.ones(2, 3, 16, 16)
    merged = made(task, 0.4, 0.5, Package(net)).module
    # the token for all is unlike the patches; the patches' weight in its attention falls
    assert (merged(flat) - net(flat)).abs().max() < 0.2 * net(flat).std()


def test_a_row_is_as_long_behind_it_and_masks_fit_within():
    task = text_task()
    package = made(task, 0.4, 0.5)
    seen = []
    for i, block in enumerate(package.module.blocks):
        block.register_forward_hook(lambda _, args, out, i=i: seen.append((i, args[0].shape[1], out.shape[1])))
    package.module(*rows(task))
    assert package.notes[-1]["merged"] == {"blocks": [2, 5]}
    assert seen == [(0, T, T), (1, T, T), (2, T - 5, T - 5), (3, T - 5, T)]


def test_two_of_them_and_fewer_blocks():
    task = text_task()
    context = toy.context(task)
    twice = MergeTokens(0.2, 0.75).apply(MergeTokens(0.3, 0.25).apply(Package(task.build()), context), context)
    assert [e["block"] for e in twice.edits] == [1, 3] and [e["merged"] for e in twice.edits] == [4, 2]
    few = DropBlocks(2).apply(Package(task.build()), context)
    package = MergeTokens(0.3, 0.5).apply(few, context)
    assert package.edits[-1]["block"] == 1
    # a row whose first merging block is gone merges in the next one; without any, nowhere
    for index, lengths in [((0, 1, 3), [T, T, T - 5]), ((0, 1), [T, T]), ((2,), [T - 5])]:
        net = encoder()
        merge(net, "blocks", 2, 5)
        keep_blocks(net, "blocks", index)
        seen = []
        for block in net.blocks:
            block.register_forward_hook(lambda _, args, out, seen=seen: seen.append(args[0].shape[1]))
        assert net(*rows(task)).shape == (16, 4) and seen == lengths


def test_a_pass_that_ended_early_leaves_nothing():
    task = text_task()
    module = made(task).module
    want = module(*rows(task))
    handle = module.blocks[3].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        module.train()(*rows(task))
    handle.remove()
    again = copy.deepcopy(module).eval()
    assert torch.equal(again(*rows(task)), want) and torch.equal(module.eval()(*rows(task)), want)


STEPS = {
    "alone": [],
    "pruned": [Prune(ratio=0.5)],
    "trained": [Distill(epochs=1, batch_size=32)],
    "shortened": [Truncate(0.5)],
    "int8": [Quantize(samples=16)],
    "int8 trained": [Qat(epochs=1, batch_size=32, samples=16)],
    "int8 dynamic": [Quantize(scheme="int8-dynamic")],
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("steps", some(STEPS, ("alone", "int8")))
def test_other_steps_follow_it(steps, runtime, tmp_path):
    task = text_task()
    base = Package(task.build())
    context = toy.context(task, teacher=predict(base.module, task.splits().train), model=base)
    package = MergeTokens(0.4, 0.25).apply(base, context)
    for step in STEPS[steps]:
        package = step.apply(package, context)
    if runtime == "torch" and package.plan is not None:
        package = package.edited(plan=None, scales={})
    package.save(tmp_path, task.build)
    again = Package.load(tmp_path, task.build)
    assert torch.equal(again.module(*rows(task)), package.module(*rows(task)))
    folder = tmp_path / runtime
    folder.mkdir()
    write_artifact(task, again, Target(runtime), Recipe(MergeTokens(0.4, 0.25), *STEPS[steps]), folder)
    parity = json.loads((folder / "manifest.json").read_text())["export"]["parity"]
    assert parity["agreement"] >= (1.0 if package.plan is None else 0.8)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_images_in_files(runtime, tmp_path):
    task = image_task()
    package = made(task)
    assert package.notes[-1]["merged"] == {"layers.layers": [2, 7]}
    write_artifact(task, package, Target(runtime), Recipe(MergeTokens(0.4)), tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["export"]["parity"]["sqnr_db"] > 60


def test_what_is_compared_with_a_teacher_stands_at_the_same_place():
    """Features of layers with all their tokens, no relations of fewer tokens."""
    task = text_task()
    base = Package(task.build())
    context = toy.context(task, teacher=predict(base.module, task.splits().train), model=base)
    merged = MergeTokens(0.4, 0.25).apply(base, context)
    note = Distill(epochs=1, features=1.0).apply(merged, context).notes[-1]
    assert note["layers"] == [["blocks.0", "blocks.0"], ["blocks.3", "blocks.3"]]
    for package in (merged, Truncate(0.5).apply(base, context)):
        with pytest.raises(InputError, match="the relations of as many tokens"):
            Distill(epochs=1, attention=1.0).apply(package, context)
    with pytest.raises(InputError, match="all layers that could be compared have merged tokens"):
        Distill(epochs=1, features=1.0, layers=("blocks.1",)).apply(merged, context)


class Odd(nn.Module):
    """Layers that are told where a token stands."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.embed = how, nn.Embedding(100, 32)
        make = {"conv": lambda: nn.Sequential(nn.Conv1d(T, T, 1), nn.Tanh()), "near": Near, "causal": Causal}
        self.blocks = nn.ModuleList(make.get(how, Angles)() for _ in range(3))
        self.out = nn.Linear(32, 4)

    def forward(self, input_ids, attention_mask):
        h = self.embed(input_ids)
        for block in self.blocks:
            h = h + (block(h, (h, h)) if self.how == "angles" else block(h))
        return self.out(h.mean(1))


class Near(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(32, 32, 3, padding=1)

    def forward(self, h):
        return self.conv(h.transpose(1, 2)).transpose(1, 2)


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, h):
        n = h.shape[1]
        return self.mix(h, h, h, attn_mask=torch.ones(n, n, dtype=torch.bool).triu(1), need_weights=False)[0]


class Angles(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(32, 32)

    def forward(self, h, at):
        return self.mix(h) * at[0]


class Told(nn.Module):
    """Blocks whose attention is told of padding in another way than transformers does it."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.embed = how, nn.Embedding(100, 32)
        self.blocks = nn.ModuleList(Scores() for _ in range(3))
        self.bias, self.out = nn.Parameter(torch.randn(1, 4, T, T)), nn.Linear(32, 4)

    def forward(self, input_ids, attention_mask):
        h = self.embed(input_ids)
        for block in self.blocks:
            if self.how == "ones":
                h = block(h, attention_mask.float())
            else:
                h = block(h, self.bias.expand(h.shape[0], -1, -1, -1), attention_mask[:, None, None, :] > 0)
        m = attention_mask[..., None].float()
        return self.out((h * m).sum(1) / m.sum(1))


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, h, first, second=None):
        q, k, v = (f(h).unflatten(2, (4, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3)
        if second is None:
            scores = scores + (1 - first[:, None, None, :]) * -50
        else:
            scores = (scores + first).masked_fill(~second, -1e9)
        return h + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_padding_is_told_by_all_masks_or_not_clear():
    with pytest.raises(InputError, match="ones and zeros as floats"):
        made(text_task(lambda: Told("ones")))
    task = text_task(lambda: Told("a bias and a mask"))
    module = made(task, 0.4, 0.25).module
    ids, mask = rows(task)
    other = torch.where(mask == 1, ids, (ids + 7) % 100)
    torch.testing.assert_close(module(ids, mask), module(other, mask))


def test_blocks_are_dropped_before_tokens_are_merged():
    task = text_task()
    with pytest.raises(InputError, match="cannot lose|can lose") as e:
        DropBlocks(1).apply(made(task), toy.context(task))
    assert "drop blocks before that" in str(e.value)


class Masked(nn.Module):
    """A mask [t, t] for all samples, as nn.TransformerEncoder takes it, of as many tokens as there
    are samples that the step looks at; it hides nothing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        return self.out(self.body(x, mask=torch.zeros(16, 16)).mean(1))


def test_a_mask_of_places_is_not_taken_for_one_of_samples():
    x = np.random.default_rng(0).normal(size=(N, 16, 16)).astype("float32")
    task = Task("masked", Masked, lambda: split(ArraySplit({"x": x}, np.arange(N) % 4)))
    with pytest.raises(InputError, match="which is no mask"):
        made(task)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("conv", "layers fail on tokens|another order"),
        ("near", "something else if tokens stand in another order"),
        ("causal", "something else if tokens stand in another order"),
        ("angles", "tensors in a tuple"),
    ],
)
def test_layers_that_know_places_are_refused(how, words):
    with pytest.raises(InputError, match=words) as e:
        made(text_task(lambda: Odd(how)))
    assert "Truncate" in e.value.fix


def test_models_without_tokens_are_refused():
    with pytest.raises(InputError, match="no tokens to merge"):
        made(
            Task(
                "images",
                toy.plain,
                lambda: split(ArraySplit({"x": np.random.rand(32, 1, 8, 8).astype("float32")}, np.arange(32) % 4)),
            )
        )
    with pytest.raises(InputError, match=r"do not take and give tokens \[n, t, d\]"):
        made(image_task(lambda: Vit(turned=True)))


def test_idle_and_illegal():
    task = text_task()
    base = Package(task.build())
    assert MergeTokens(0.0).apply(base, toy.context(task)).edits == () and MergeTokens(0.0).idle
    with pytest.raises(InputError):
        MergeTokens(0.6)
    rows_found, _ = rows_of(base.module, rows(task))
    assert [(r.path, r.tokens) for r in rows_found] == [("blocks", (T,) * 4)]
