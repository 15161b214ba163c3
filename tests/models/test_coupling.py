"""What is coupled, and that cutting it is exact: the pruned model computes what the whole one does
with the cut units' weights zeroed."""

import copy

import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.coupling import couple
from featherweight.models.cutting import add_scores, cut, silenced
from featherweight.models.package import Package
from tests import toy


class Inverted(nn.Module):
    """Expansion 1x1 -> depthwise -> linear 1x1, with a residual (Sandler et al. 2018,
    arXiv:1801.04381, figure 3)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.expand, self.norm1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project, self.norm3 = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = torch.nn.functional.relu6(self.norm2(self.depth(torch.nn.functional.relu6(self.norm1(self.expand(x))))))
        return self.out((x + self.norm3(self.project(y))).mean((2, 3)))


class Grouped(nn.Module):
    """A group-wise convolution between plain ones, and two with different numbers of groups
    behind one another."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.norm, self.c = nn.BatchNorm2d(24), nn.Conv2d(24, 12, 3, padding=1, groups=2)
        self.out = nn.Linear(12, 4)

    def forward(self, x):
        return self.out(torch.relu(self.c(torch.relu(self.norm(self.b(torch.relu(self.a(x))))))).mean((2, 3)))


class Bert(nn.Module):
    def __init__(self):
        from transformers import BertConfig, BertModel

        super().__init__()
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 24,
            "max_position_embeddings": 12,
        }
        self.encoder, self.out = BertModel(BertConfig(vocab_size=30, **sizes)), nn.Linear(16, 3)

    def forward(self, ids):
        return self.out(self.encoder(ids).pooler_output)


class Llama(nn.Module):
    """Grouped-query attention: 8 query heads read 4 key-value heads; a gated feed-forward block."""

    def __init__(self):
        from transformers import LlamaConfig, LlamaModel

        super().__init__()
        sizes = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 24,
        }
        self.decoder, self.out = (
            LlamaModel(LlamaConfig(vocab_size=30, max_position_embeddings=12, **sizes)),
            nn.Linear(32, 3),
        )

    def forward(self, ids):
        return self.out(self.decoder(ids, use_cache=False).last_hidden_state[:, -1])


IMAGES = {
    "residual": toy.residual,
    "plain": toy.plain,
    "depthwise": toy.depthwise,
    "concat": toy.Concat,
    "inverted": Inverted,
    "grouped": Grouped,
}
NETS = IMAGES | {"bert": Bert, "llama": Llama}


def made(name, seed=1):
    """(a net whose normalisation and biases are not at their trivial initial values, inputs)."""
    torch.manual_seed(seed)
    net = NETS[name]().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.normal_()
        if getattr(m, "bias", None) is not None and not isinstance(m, nn.LayerNorm):
            m.bias.data.normal_(0, 0.5)
    return net, (torch.randn(3, 1, 8, 8) if name in IMAGES else torch.randint(1, 30, (3, 6)),)


def mask(net, groups, drops):
    """Zero the rows, biases and normalisation of the dropped units wherever their
    channels are made."""
    for group, drop in zip(groups, drops, strict=True):
        gone = {c for u in drop for c in group.units[u]}
        for m in group.members:
            if m.axis == 0:
                layer = net.get_submodule(m.path)
                rows = [p for p, c in zip(m.position, m.channel, strict=True) if c in gone]
                for p in (layer.weight, layer.bias):
                    if p is not None:
                        p.data[rows] = 0


@pytest.mark.parametrize("part", ["third", "all but one", "none"])
@pytest.mark.parametrize("name", NETS)
def test_the_cut_model_equals_the_masked_one(name, part):
    net, x = made(name)
    groups = couple(net, x, "all").groups
    take = {"third": lambda n: range(0, n, 3), "all but one": lambda n: range(n - 1), "none": lambda n: []}[part]
    drops = [list(take(len(g.units))) for g in groups]
    masked, small = copy.deepcopy(net), copy.deepcopy(net)
    mask(masked, groups, drops)
    cut(small, groups, drops)
    with torch.no_grad():
        torch.testing.assert_close(small(*x), masked(*x), rtol=1e-5, atol=1e-5)
        changed = float((small(*x) - net(*x)).abs().max())
    assert (changed == 0) == (part == "none"), "a test that cannot fail"
    sizes = [sum(p.numel() for p in m.parameters()) for m in (small, net)]
    assert sizes[0] == sizes[1] if part == "none" else sizes[0] < sizes[1]


@pytest.mark.parametrize("name", NETS)
def test_a_cut_model_reloads(name, tmp_path):
    net, x = made(name)
    groups = couple(net, x, "all").groups
    cut(net, groups, [list(range(len(g.units) // 2)) for g in groups])
    Package(net).save(tmp_path, NETS[name])
    with torch.no_grad():
        assert torch.equal(Package.load(tmp_path, NETS[name]).module(*x), net(*x))


@pytest.mark.parametrize("name", NETS)
def test_silencing_is_exact_and_leaves_no_trace(name):
    net, x = made(name)
    before = copy.deepcopy(net.state_dict())
    for group in couple(net, x, "all").groups:
        drop = list(range(0, len(group.units), 2))
        small = copy.deepcopy(net)
        cut(small, [group], [drop])
        with torch.no_grad(), silenced(net, group, drop):
            torch.testing.assert_close(net(*x), small(*x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_units_of_grouped_convolutions_keep_their_groups_equally_wide():
    net, x = made("grouped")
    units = {g.name: g.units for g in couple(net, x).groups}
    assert units["a"] == tuple((j, j + 4, j + 8, j + 12) for j in range(4))  # read by 4 groups of 4
    # made by 4 groups of 6, read by 2 of 12
    assert units["b"] == tuple((j, j + 6, j + 12, j + 18) for j in range(6))
    assert units["c"] == tuple((j, j + 6) for j in range(6))


def test_heads_are_units_and_their_counts_follow():
    net, x = made("bert")
    coupling = couple(net, x, "head")
    assert [g.name for g in coupling.groups] == [
        f"encoder.encoder.layer.{i}.attention.self" for i in (0, 1)
    ] and coupling.whole == {}
    group = coupling.groups[0]
    assert group.units == tuple(tuple(range(4 * h, 4 * h + 4)) for h in range(4))
    assert group.members[-1].path == "encoder.encoder.layer.0.attention.output.dense" and group.members[-1].axis == 1
    cut(net, [group], [[0, 2, 3]])
    attention = net.get_submodule(group.name)
    assert (attention.num_attention_heads, attention.all_head_size, attention.attention_head_size) == (1, 4, 4)
    assert attention.query.weight.shape == (4, 16)


def test_query_heads_go_with_the_key_value_head_that_they_read():
    net, x = made("llama")
    group = couple(net, x, "head").groups[0]
    assert len(group.units) == 4 and group.size == 2 * 4
    cut(net, [group], [[1]])
    attention = net.get_submodule(group.name)
    assert (attention.q_proj.out_features, attention.k_proj.out_features, attention.o_proj.in_features) == (24, 12, 24)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_mlp_is_the_inner_width_of_feed_forward_blocks_alone(name):
    net, x = made(name)
    groups = couple(net, x, "mlp").groups
    assert [g.channels for g in groups] == [24, 24] and {g.kind for g in groups} == {"mlp"}
    assert couple(*made("residual"), "mlp").groups == ()


def test_attention_that_cannot_be_cut_is_named():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.attention(x, x, x)[0].mean(1))

    coupling = couple(Packed().eval(), (torch.randn(2, 5, 8),), "head")
    assert coupling.groups == () and "packed" in coupling.whole["attention"]


def test_weights_for_each_head_forbid_the_cut():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads, self.bias = 4, nn.Embedding(6, 4)
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            q, k, v = (f(x).unflatten(-1, (4, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
            scores = q @ k.transpose(-1, -2) + self.bias.weight[: x.shape[1]].T[None, :, None]
            return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)

    coupling = couple(Biased().eval(), (torch.randn(2, 5, 8),), "head")
    assert coupling.groups == () and "other weights for each head" in coupling.whole[""]


def test_shared_weights_are_left_whole():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.c, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
            self.c.weight = self.b.weight

        def forward(self, x):
            return self.out(self.c(torch.relu(self.b(torch.relu(self.a(x))))).mean((2, 3)))

    coupling = couple(Odd().eval(), (torch.randn(2, 1, 8, 8),))
    assert coupling.groups == () and all("shares its weights" in coupling.whole[name] for name in "abc")


def test_a_model_that_cannot_be_traced_is_refused():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(1, 4, 3)

        def forward(self, x):
            raise RuntimeError("no")

    with pytest.raises(InputError, match="cannot be traced"):
        couple(Broken(), (torch.randn(1, 1, 8, 8),))


@pytest.mark.parametrize("name", ["residual", "grouped", "depthwise", "bert"])
def test_scores_sum_the_weights_that_a_unit_owns(name):
    """With |w| for a score, a unit's score is what its cut takes from the sum of all |w|, where no
    two groups share a weight."""
    net, x = made(name)
    scored = (nn.Linear, nn.Conv2d)

    def total(m):
        return sum(float(layer.weight.detach().abs().sum()) for layer in m.modules() if isinstance(layer, scored))

    for group in couple(net, x, "all").groups:
        scores = torch.zeros(len(group.units))
        for path in dict.fromkeys(m.path for m in group.members):
            layer = net.get_submodule(path)
            if isinstance(layer, scored):
                add_scores(scores, group, path, getattr(layer, "groups", 1), layer.weight.detach().abs())
        paths = [m.path for m in group.members]
        if any(isinstance(net.get_submodule(p), scored) and paths.count(p) > 1 for p in paths):
            # a layer that makes and reads the group: its corner belongs to rows and to columns
            continue
        for unit in (0, len(group.units) - 1):
            small = copy.deepcopy(net)
            cut(small, [group], [[unit]])
            assert float(scores[unit]) == pytest.approx(total(net) - total(small), rel=1e-3, abs=1e-3)


def test_a_score_for_each_channel_counts_where_channels_are_made():
    net, x = made("plain")
    group = next(g for g in couple(net, x).groups if g.name == "0")
    scores = torch.zeros(16)
    add_scores(scores, group, "0", 1, torch.arange(16.0))
    add_scores(scores, group, "3", 1, torch.ones(32))  # reads the group: says nothing of it
    assert torch.equal(scores, torch.arange(16.0))


@pytest.mark.parametrize(
    "activation", [nn.Hardswish(), nn.Hardsigmoid(), nn.Mish(), nn.PReLU(), nn.Softsign()], ids=str
)
def test_activations_mix_no_channels(activation):
    net = nn.Sequential(nn.Conv2d(1, 8, 3), activation, nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval()
    found = couple(net, (torch.randn(2, 1, 8, 8),), "channel")
    assert [g.channels for g in found.groups] == [8, 4]
