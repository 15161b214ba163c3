"""Which channels can be scaled, that scaling them leaves the function, and the scales of
cross-layer equalization, SmoothQuant and AWQ."""

import copy

import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.quant import awq, equalize, smooth
from featherweight.models.quant.fold import fold
from featherweight.models.quant.grid import Grid, fit, nearest
from featherweight.models.quant.inputs import batched, collect
from featherweight.models.quant.pairs import by_channel, check_unchanged, column_range, rescale, row_range
from featherweight.models.quant.trace import trace
from tests import toy


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def lively(net):
    """Batch norms and norms with statistics and scales as after training."""
    g = rng(1)
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.copy_(torch.randn(m.num_features, generator=g))
            m.running_var.copy_(torch.rand(m.num_features, generator=g) + 0.5)
        if isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
            m.weight.data.copy_(torch.rand(m.weight.shape, generator=g) + 0.5)
            m.bias.data.copy_(torch.randn(m.bias.shape, generator=g))
    return net.eval()


class Pre(nn.Module):
    """A pre-norm transformer block with ReLU, and a gated product."""

    def __init__(self, act=torch.relu):
        super().__init__()
        self.act = act
        self.norm1, self.norm2, self.last = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.gate, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = x.squeeze(1) if x.ndim == 4 else x
        x = torch.cat([x, x], -1)
        h = self.norm1(x)
        q, k, v = (f(h).unflatten(-1, (4, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.norm2(x)
        x = x + self.down(self.act(self.up(h)) * torch.sigmoid(self.gate(h)))
        return self.head(self.last(x).mean(1))


def bert(attention="sdpa"):
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        attn_implementation=attention,
    )
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def llama():
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
    )
    return transformers.LlamaModel(config).eval()


class Last(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, ids):
        return (
            self.net(input_ids=ids, use_cache=False).last_hidden_state
            if "Llama" in type(self.net).__name__
            else self.net(ids)[0]
        )


IMAGES = torch.randn(6, 1, 8, 8, generator=rng())
IDS = torch.randint(0, 30, (4, 9), generator=rng())
NETS = {
    "plain": (toy.plain, IMAGES),
    "residual": (toy.residual, IMAGES),
    "depthwise": (toy.depthwise, IMAGES),
    "pre": (Pre, IMAGES),
    "bert": (lambda: Last(bert()), IDS),
    "eager": (lambda: Last(bert("eager")), IDS),
    "llama": (lambda: Last(llama()), IDS),
}
EXPECTED = {
    "plain": {"0": {"3"}, "3": {"6"}, "6": {"8"}},
    "residual": {"3.conv1": {"3.conv2"}, "4.conv1": {"4.conv2"}, "5.conv1": {"5.conv2"}},
    "depthwise": {"0": {"2"}, "2": {"4"}, "4": {"8"}},
    "pre": {"norm1": {"q", "k", "v"}, "v": {"o"}, "norm2": {"up", "gate"}, "up": {"down"}, "last": {"head"}},
    "bert": {
        f"net.encoder.layer.{i}.attention.self.value": {f"net.encoder.layer.{i}.attention.output.dense"}
        for i in range(2)
    },
    "llama": {
        k: v
        for i in range(2)
        for k, v in {
            f"net.layers.{i}.input_layernorm": {f"net.layers.{i}.self_attn.{n}_proj" for n in "qkv"},
            f"net.layers.{i}.self_attn.v_proj": {f"net.layers.{i}.self_attn.o_proj"},
            f"net.layers.{i}.post_attention_layernorm": {
                f"net.layers.{i}.mlp.up_proj",
                f"net.layers.{i}.mlp.gate_proj",
            },
            f"net.layers.{i}.mlp.up_proj": {f"net.layers.{i}.mlp.down_proj"},
        }.items()
    },
}
EXPECTED["eager"] = EXPECTED["bert"]


def prepared(name):
    build, x = NETS[name]
    torch.manual_seed(0)
    net = lively(build())
    return net, x, trace(net, (x[:2],))


@pytest.mark.parametrize("name", NETS)
def test_exactly_the_legal_pairs_are_found(name):
    _, _, flow = prepared(name)
    assert {p.producer: {c.path for c in p.consumers} for p in flow.pairs} == EXPECTED[name]
    assert not {p.producer for p in flow.pairs} & set(flow.left)


@pytest.mark.parametrize("name", NETS)
def test_any_scale_of_any_pair_leaves_the_function(name):
    net, x, flow = prepared(name)
    with torch.no_grad():
        before = net(x)
        fold(net, flow.batch_norms)
        torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
        for i, pair in enumerate(flow.pairs):
            weights = copy.deepcopy(net.state_dict())
            rescale(net, pair, torch.rand(pair.channels, generator=rng(i)) * 4 + 0.25)
            assert any(not torch.equal(v, weights[k]) for k, v in net.state_dict().items())
        assert float((net(x) - before).abs().max()) < 1e-5 * float(before.abs().max()) + 1e-6


def test_reasons_name_what_is_in_the_way():
    _, _, flow = prepared("residual")
    assert "add" in flow.left["3.conv2"] and "output" in flow.left["8"] and flow.batch_norms["3.conv1"] == "3.norm1"
    _, _, flow = prepared("bert")
    assert (
        "gelu" in flow.left["net.encoder.layer.0.intermediate.dense"]
        and "add" in flow.left["net.encoder.layer.0.attention.output.LayerNorm"]
    )
    torch.manual_seed(0)
    flow = trace(lively(Pre(nn.functional.silu)), (IMAGES[:2],))
    assert "silu" in flow.left["up"] and "up" not in {p.producer for p in flow.pairs}


class Odd(nn.Module):
    """One way each of being unsafe."""

    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(8, 8), nn.Linear(8, 8)
        if how == "tied":
            self.b.weight = self.a.weight

    def forward(self, x):
        h = self.a(x[:, 0])
        if self.how == "twice":
            h = self.a(h)
        elif self.how == "square":
            h = h * h
        elif self.how == "mixed":
            h = h + h.mean(-1, keepdim=True)
        elif self.how == "largest":
            return self.b(torch.relu(h).amax(-1, keepdim=True).expand(-1, -1, 8))
        elif self.how == "overwritten":
            h[:, :2] += 1
        elif self.how == "read":
            h = h @ self.b.weight.T
        elif self.how == "shifted":
            h = torch.relu(h + 1)
        elif self.how == "roll":
            h = h.flip(-1)
        return self.b(h)


@pytest.mark.parametrize(
    "how", ["tied", "twice", "square", "mixed", "largest", "overwritten", "read", "shifted", "roll"]
)
def test_what_is_not_proportional_is_left(how):
    flow = trace(Odd(how).eval(), (IMAGES[:2],))
    assert not flow.pairs and flow.left["a"]
    assert len(trace(Odd("").eval(), (IMAGES[:2],)).pairs) == 1


def test_a_changed_function_is_refused():
    with pytest.raises(InputError, match="changed what this model computes"):
        check_unchanged(torch.ones(3), torch.tensor([1, 1, 1.001]), "cle")
    with pytest.raises(InputError, match="cle"):
        check_unchanged(torch.ones(3), torch.tensor([1, 1, torch.nan]), "cle")


def test_folded_batch_norms_add_a_constant_at_most():
    net, x, flow = prepared("residual")
    conv, norm = copy.deepcopy((net[3].conv1, net[3].norm1))
    fold(net, flow.batch_norms)
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(net[3].conv1.weight, conv.weight * factor.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(net[3].norm1.bias, norm.bias - factor * norm.running_mean)
    h = torch.randn(2, 16, 4, 4, generator=rng())
    torch.testing.assert_close(net[3].norm1(h), h + net[3].norm1.bias.reshape(-1, 1, 1))


def test_equalized_ranges_are_equal():
    """After eq. 11 of arXiv:1906.04721: r1 = r2 = sqrt(r1 r2); a dead channel is left."""
    r1, r2 = torch.tensor([4.0, 0.0, 1e-3]), torch.tensor([1.0, 2.0, 10.0])
    s = equalize.scales(r1, r2)
    torch.testing.assert_close(s, torch.tensor([2.0, 1.0, (1e-3 * 10) ** 0.5 / 10]))
    torch.testing.assert_close((r1 / s)[[0, 2]], (r2 * s)[[0, 2]])


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise"])
def test_cle_settles_on_equal_ranges_and_helps_per_tensor_rounding(name):
    net, x, flow = prepared(name)
    fold(net, flow.batch_norms)
    # a net whose channels differ by orders of magnitude, as after folding (section 3 of the paper)
    with torch.no_grad():
        for i, pair in enumerate(flow.pairs):
            rescale(net, pair, 10 ** (2 * torch.rand(pair.channels, generator=rng(i)) - 1))
        before = net(x)
        rough = float((rounded(net)(x) - before).square().mean())
        assert equalize.equalize(net, list(flow.pairs)) == len(flow.pairs)
        assert float((net(x) - before).abs().max()) < 1e-5 * float(before.abs().max())
        fine = float((rounded(net)(x) - before).square().mean())
    for pair in flow.pairs:
        torch.testing.assert_close(row_range(net, pair), column_range(net, pair), rtol=5e-3, atol=0)
    assert fine < rough / 2


def rounded(net, grid=Grid(6, "tensor")):  # noqa: B008
    out = copy.deepcopy(net)
    for m in out.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            m.weight.copy_(nearest(m.weight, *fit(m.weight, grid), grid))
    return out


def test_smoothing_is_the_published_formula_and_moves_the_range():
    x, w = torch.tensor([16.0, 1.0]), torch.tensor([1.0, 4.0])
    torch.testing.assert_close(smooth.scales(x, w, 0.5), torch.tensor([4.0, 0.5]))
    torch.testing.assert_close(smooth.scales(x, w, 1.0), x)
    torch.testing.assert_close(smooth.scales(x, w, 0.0), 1 / w)
    assert smooth.scales(torch.tensor([0.0, 3.0]), torch.tensor([2.0, 0.0]), 0.5).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["pre", "bert", "plain", "llama"])
def test_smoothed_inputs_and_weights_have_equal_ranges(name):
    """alpha = 0.5: max|X_j| / s_j = max|W_j| s_j (section 4 of arXiv:2211.10438), for every
    consumer's input channel taken together."""
    net, x, flow = prepared(name)
    with torch.no_grad():
        before = net(x)
        assert smooth.smooth(net, list(flow.pairs), batched([x]), 0.5) == len(flow.pairs)
        assert float((net(x) - before).abs().max()) < 1e-5 * float(before.abs().max())
    last = flow.pairs[-1]  # no later pair has changed its consumers' rows
    path = last.consumers[0].path
    seen = by_channel(
        collect(net, [path], {"absmax"}, batched([x]))[path].absmax, last.consumers[0].channel, last.channels
    )
    alive = seen > 1e-3
    torch.testing.assert_close(seen[alive], column_range(net, last)[alive], rtol=1e-3, atol=0)


def test_awq_finds_the_best_power_of_its_grid():
    """Brute force over the samples themselves, and never worse than no scales."""
    x = torch.randn(200, 12, generator=rng()) * torch.tensor([30.0] + [1.0] * 11)
    w, grid = torch.randn(6, 12, generator=rng(1)), Grid(3)
    magnitude = x.abs().mean(0)
    s, a = awq.search([(w, x.T @ x / len(x), torch.arange(12), grid)], magnitude)
    errors = {}
    for i in range(20):
        t = magnitude ** (i / 20)
        t = t / (t.max() * t.min()) ** 0.5
        q = nearest(w * t, *fit(w * t, grid), grid)
        errors[i / 20] = float((((x / t) @ q.T) - x @ w.T).square().sum(1).mean())
    assert a == min(errors, key=errors.get) and a > 0 and errors[a] < 0.7 * errors[0.0]
    assert awq.output_error(w, x.T @ x / len(x), s, grid) == pytest.approx(errors[a], rel=1e-3)


@pytest.mark.parametrize("name", ["pre", "bert", "llama"])
def test_awq_leaves_the_function_and_helps_rounding(name):
    net, x, flow = prepared(name)
    with torch.no_grad():
        before = net(x)
        grids = {c.path: Grid(4) for p in flow.pairs for c in p.consumers}
        powers = awq.awq(net, list(flow.pairs), grids, batched([x]))
        assert set(powers) == {p.producer for p in flow.pairs} and all(0 <= a < 1 for a in powers.values())
        assert float((net(x) - before).abs().max()) < 1e-5 * float(before.abs().max())


def test_awq_scales_are_around_one_and_leave_dead_inputs():
    s = awq.scales(torch.tensor([100.0, 0.0, 1.0]), 0.5)
    torch.testing.assert_close(s, torch.tensor([10.0, 1.0, 1.0]) / torch.tensor([10.0**0.5, 1.0, 10.0**0.5]))
    assert awq.scales(torch.zeros(2), 0.5).tolist() == [1.0, 1.0] and awq.scales(
        torch.tensor([5.0, 2.0]), 0.0
    ).tolist() == [1.0, 1.0]


def test_awq_leaves_convolutions():
    net, x, flow = prepared("plain")
    powers = awq.awq(net, list(flow.pairs), {"3": Grid(4), "6": Grid(4), "8": Grid(4)}, batched([x]))
    assert set(powers) == {"3", "6"}
