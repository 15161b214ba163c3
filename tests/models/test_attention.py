"""nn.MultiheadAttention with its projections apart: held to torch's own, called in every way."""

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.engine.export import write_artifact
from featherweight.errors import StoreError
from featherweight.models.attention import Attention, apart
from featherweight.models.package import Package
from featherweight.models.surgery import edit
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.transforms.cut_randomly import CutRandomly
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from tests import toy

N, T = 96, 12
PADDED = torch.zeros(3, 7, dtype=torch.bool)
PADDED[1, 5:] = True
HIDDEN = torch.zeros(5, 7, dtype=torch.bool)
HIDDEN[:, 0] = True
NOISE = torch.randn(12, 5, 7, generator=torch.Generator().manual_seed(0))
MASKS = {
    "none": (None, None),
    "padding": (PADDED, None),
    "padding and hidden": (PADDED, HIDDEN),
    "added padding": (torch.where(PADDED, -1e4, 0.0), None),
    "hidden": (None, HIDDEN),
    "added": (None, NOISE[0]),
    "one a head": (None, NOISE),
    "all added": (torch.where(PADDED, -1e4, 0.0), NOISE[0]),
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", [True, False])
def test_as_torchs_own(masks, first, other):
    """first: the batch is; other: keys and values of other widths, and no biases."""
    torch.manual_seed(0)
    wide = {"kdim": 12, "vdim": 10, "bias": False} if other else {}
    packed = nn.MultiheadAttention(16, 4, batch_first=first, **wide).eval()
    if not other:
        nn.init.normal_(packed.in_proj_bias)
        nn.init.normal_(packed.out_proj.bias)
    attention = Attention(packed)
    assert not attention.training and sum(p.numel() for p in attention.parameters()) == sum(
        p.numel() for p in packed.parameters()
    )
    q, k, v = torch.randn(3, 5, 16), torch.randn(3, 7, 12 if other else 16), torch.randn(3, 7, 10 if other else 16)
    q, k, v = (x if first else x.transpose(0, 1) for x in (q, k, v))
    padding, mask = MASKS[masks]
    for ways in ({"need_weights": False}, {}, {"average_attn_weights": False}):
        want = packed(q, k, v, key_padding_mask=padding, attn_mask=mask, **ways)
        got = attention(q, k, v, key_padding_mask=padding, attn_mask=mask, **ways)
        torch.testing.assert_close(got[0], want[0])
        assert (got[1] is None) == (want[1] is None)
        if want[1] is not None:
            torch.testing.assert_close(got[1], want[1])


def test_one_sample_and_gradients():
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(16, 4)
    attention = Attention(packed)
    x = torch.randn(5, 16)
    torch.testing.assert_close(attention(x, x, x), packed(x, x, x))
    packed(x, x, x)[0].square().sum().backward()
    attention(x, x, x)[0].square().sum().backward()
    grads = torch.cat([attention.get_parameter(f"{n}_proj.weight").grad for n in "qkv"])
    torch.testing.assert_close(grads, packed.in_proj_weight.grad)


def test_frozen_weights_stay_frozen():
    packed = nn.MultiheadAttention(16, 4)
    packed.in_proj_weight.requires_grad_(False)
    learns = {name: p.requires_grad for name, p in Attention(packed).named_parameters()}
    assert [n for n, yes in learns.items() if not yes] == ["q_proj.weight", "k_proj.weight", "v_proj.weight"]


class Net(nn.Module):
    def __init__(self, first=True):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.embed, self.places = first, nn.Embedding(100, 32), nn.Parameter(torch.randn(T, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=first)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=first)
        self.out = nn.Linear(32, 4)

    def forward(self, input_ids, attention_mask):
        h = self.embed(input_ids) + self.places
        h = self.body(h if self.first else h.transpose(0, 1), src_key_padding_mask=attention_mask == 0)
        m = attention_mask[..., None].float()
        return self.out(((h if self.first else h.transpose(0, 1)) * m).sum(1) / m.sum(1))


def task(model=Net):
    rng, y = np.random.default_rng(0), np.arange(N) % 4
    mask = (np.arange(T) < rng.integers(4, T + 1, N)[:, None]).astype("int64")
    ids = rng.integers(0, 25, (N, T)) + 25 * y[:, None]
    return Task("net", model, lambda: split(ArraySplit({"input_ids": ids, "attention_mask": mask}, y)))


def rows(t, n=16):
    return tuple(torch.as_tensor(v) for v in t.splits().train.batch(np.arange(n))[0].values())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("first", [True, False])
def test_a_model_of_torchs_layers(first):
    t = task(lambda: Net(first))
    base = Package(t.build())
    package = apart(base, lambda: rows(t))
    assert [e["edit"] for e in package.edits] == ["put_apart"] * 3
    with torch.inference_mode():  # where torch would fuse its layers
        torch.testing.assert_close(package.module(*rows(t)), base.module(*rows(t)), rtol=1e-4, atol=1e-5)
    assert apart(package, lambda: rows(t)) is package


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("after", [[], [Quantize(samples=16)]], ids=["float", "int8"])
def test_heads_are_cut_and_files_run(runtime, after, tmp_path):
    if runtime == "torch" and after:
        pytest.skip("no int8 there")
    t = task()
    steps = [Prune(ratio=0.5, granularity="head"), *after]
    package = Package(t.build())
    for step in steps:
        package = step.apply(package, toy.context(t))
    assert [m.num_heads for m in package.module.modules() if isinstance(m, Attention)] == [2, 2, 2]
    package.save(tmp_path, t.build)
    again = Package.load(tmp_path, t.build)
    assert torch.equal(again.module(*rows(t)), package.module(*rows(t)))
    (tmp_path / "out").mkdir()
    write_artifact(t, again, Target(runtime), Recipe(*steps), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_heads_without_weight_are_cut_exactly():
    t = task()
    base = Package(t.build())
    for m in base.module.modules():
        if isinstance(m, nn.MultiheadAttention):
            with torch.no_grad():
                m.out_proj.weight[:, 8:16] = 0  # what the second head of four gives is not read
                m.in_proj_weight[72:80] = 0
                m.in_proj_bias[72:80] = 0
    cut = Prune(ratio=0.25, granularity="head", allocation="uniform").apply(base, toy.context(t))
    assert {tuple(w) for w in cut.notes[-1]["widths"].values()} == {(32, 24)}
    torch.testing.assert_close(cut.module(*rows(t)), base.module(*rows(t)), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_other_steps_that_need_it_do_it():
    t = task()
    base = Package(t.build())
    ranks = Factorize(ratio=0.5).apply(base, toy.context(t)).notes[-1]["layers"]
    assert "body.layers.0.self_attn.q_proj" in ranks
    random = CutRandomly(tolerance=10.0, proposals=4).apply(base, toy.context(t))
    assert random.edits[0]["edit"] == "put_apart"
    assert Prune(ratio=0.0).apply(base, toy.context(t)).edits == ()
    assert Quantize(samples=16).apply(base, toy.context(t)).edits == ()


class Selves(nn.Module):
    """Attention of a sequence to itself, one after the other."""

    def __init__(self, *attention, reads=None):
        super().__init__()
        self.a, self.reads = nn.ModuleList(attention), reads

    def forward(self, x):
        for i, a in enumerate(self.a):
            x = x + a(x, x, x)[0]
            if i == self.reads:
                x = x * a.in_proj_weight.mean()
        return x


def normed(parametrized):
    packed = nn.MultiheadAttention(16, 4)
    norm = nn.utils.parametrizations.weight_norm if parametrized else nn.utils.weight_norm
    norm(packed.out_proj)
    return packed


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_what_stays_packed():
    x = (torch.randn(5, 2, 16),)
    nets = {
        "rows added": Selves(nn.MultiheadAttention(16, 4, add_bias_kv=True)),
        "zero row": Selves(nn.MultiheadAttention(16, 4, add_zero_attn=True)),
        "a class of their own": Selves(type("Mine", (nn.MultiheadAttention,), {})(16, 4)),
        "weights that are computed": Selves(normed(True)),
        "weights that a hook makes": Selves(normed(False)),
        "code that reads them": Selves(nn.MultiheadAttention(16, 4), reads=0),
    }
    for name, net in nets.items():
        package = Package(net.eval())
        assert apart(package, lambda: x) is package, name
    shared = nn.MultiheadAttention(16, 4)
    one = apart(Package(Selves(shared, shared).eval()), lambda: x).module
    assert isinstance(one.a[0], Attention) and one.a[0] is one.a[1]
    some = apart(Package(Selves(nn.MultiheadAttention(16, 4), nn.MultiheadAttention(16, 4), reads=0).eval()), lambda: x)
    assert [e["path"] for e in some.edits] == ["a.1"]
    packed = Selves(nn.MultiheadAttention(16, 4)).eval()
    assert apart(Package(packed, sparse=("a.0.in_proj_weight",)), lambda: x).edits == ()
    with pytest.raises(StoreError, match="no packed attention"):
        edit(nn.ModuleList([nn.Linear(4, 4)]), {"edit": "put_apart", "path": "0"})
