"""What is observed of layers is what the layers' own arithmetic says."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from featherweight.errors import InputError
from featherweight.models import observe as module_under_test
from featherweight.models.observe import FIELDS, input_rows, observe
from tests import toy

NETS = {"residual": toy.residual, "plain": toy.plain, "depthwise": toy.depthwise}
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=3, size=5):
    data = [([torch.randn(size, 1, 8, 8, generator=rng(i))], torch.arange(size) % 4) for i in range(n)]
    return lambda: iter(data)


def built(build, seed=0):
    torch.manual_seed(seed)
    net = build()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight)
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    return net.eval()


def paths_of(net):
    return [path for path, m in net.named_modules() if isinstance(m, LAYERS)]


def inputs_of(net, path, batches):
    """All that goes into a layer, kept whole: what `observe` never does."""
    kept = []
    hook = net.get_submodule(path).register_forward_pre_hook(lambda _, args: kept.append(args[0].detach()))
    with torch.no_grad():
        for x, _ in batches():
            net(*x)
    hook.remove()
    return torch.cat(kept)


CONVOLUTIONS = {
    "1d": nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2),
    "2d": nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=1),
    "3d": nn.Conv3d(4, 6, 2, padding=1),
    "groups": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "same": nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(2, 1)),
    "reflect": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"),
    "1x1": nn.Conv2d(4, 6, 1),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("layer", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_weights_times_rows_are_the_layers_outputs(layer, monkeypatch):
    x = torch.randn(3, 4, *[9] * (layer.weight.ndim - 2), generator=rng())
    (rows,) = input_rows(layer, x)
    groups = layer.groups
    w = layer.weight.reshape(groups, -1, rows.shape[2])  # [G, O / G, n]
    with torch.no_grad():
        out = layer(x) - layer.bias.reshape(-1, *[1] * (x.ndim - 2))
        made = torch.einsum("gon,grn->gor", w, rows).reshape(len(layer.weight), 3, -1).transpose(0, 1)
    torch.testing.assert_close(made.reshape(out.shape), out, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(module_under_test, "_UNFOLDED", 1)
    parts = list(input_rows(layer, x))
    assert len(parts) == 3, "with no room, one sample at a time"
    torch.testing.assert_close(torch.cat(parts, 1), rows, rtol=0, atol=0)


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_norms_and_hessians_are_those_of_all_inputs(build):
    net = built(build)
    seen = dict(observe(net, paths_of(net), {"input_norm", "hessian"}, images()))
    alone = dict(observe(net, paths_of(net), {"input_norm"}, images()))
    assert list(seen) == paths_of(net)
    for path, s in seen.items():
        layer, x = net.get_submodule(path), inputs_of(net, path, images())
        if isinstance(layer, nn.Conv2d):
            rows = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # [N, C * k, L]
            rows = rows.transpose(1, 2).reshape(-1, layer.groups, layer.weight[0].numel()).transpose(0, 1)
        else:
            rows = x.reshape(1, -1, x.shape[-1])
        torch.testing.assert_close(s.hessian, rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(s.input_norm, rows.norm(dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone[path].input_norm, s.input_norm, rtol=1e-4, atol=1e-5)
        assert torch.equal(s.weight, layer.weight)
        assert s.name == path
        assert (s.gradient, s.norm, s.outputs) == (None, None, None)


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_gradients_are_those_of_each_batch(build):
    net = built(build)
    for p in net.parameters():
        p.requires_grad_(False)  # a frozen model can be scored too
    seen = dict(observe(net, paths_of(net), {"gradient"}, images(), F.cross_entropy))
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_(True)
    for b, (x, y) in enumerate(images()()):
        net.zero_grad()
        F.cross_entropy(net(*x), y).backward()
        for path, s in seen.items():
            assert len(s.gradient) == 3
            torch.testing.assert_close(s.gradient[b], net.get_submodule(path).weight.grad)


def test_the_norm_is_that_of_the_batch_norm_behind_the_layer():
    net = built(toy.residual)
    seen = dict(observe(net, paths_of(net), {"norm"}, images()))
    follows = {"0": "1", "5.short.0": "5.short.1"} | {f"{i}.conv{j}": f"{i}.norm{j}" for i in (3, 4, 5) for j in (1, 2)}
    assert set(follows) | {"8"} == set(seen)
    for path, norm in follows.items():
        torch.testing.assert_close(seen[path].norm, net.get_submodule(norm).weight.detach().abs())
    assert seen["8"].norm is None
    assert {p: s.norm is None for p, s in observe(built(toy.depthwise), ["0", "2", "4"], {"norm"}, images())} == {
        "0": True,
        "2": False,
        "4": True,
    }
    assert all(s.norm is None for _, s in observe(built(toy.plain), ["0", "3"], {"norm"}, images()))


def test_a_batch_norm_that_does_not_follow_directly_or_does_not_scale_does_not_count():
    def norm(*between, affine=True):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 1), *between, nn.BatchNorm2d(4, affine=affine), nn.Flatten(), nn.Linear(256, 4)
        ).eval()
        return dict(observe(net, ["0"], {"norm"}, images()))["0"].norm

    assert norm() is not None
    assert norm(nn.Identity()) is not None
    assert norm(nn.ReLU(inplace=True)) is None
    assert norm(nn.ReLU()) is None
    assert norm(nn.MaxPool2d(1)) is None
    assert norm(affine=False) is None


def test_outputs_are_followed_through_norm_and_activation():
    net = built(toy.residual)
    seen = dict(observe(net, paths_of(net), {"outputs"}, images()))
    x = torch.cat([x[0] for x, _ in images()()])
    with torch.no_grad():
        stem = net[2](net[1](net[0](x)))
        block = net[3]
        inner = torch.relu(block.norm1(block.conv1(stem)))
        last = block.norm2(block.conv2(inner))  # a sum follows, no activation
    torch.testing.assert_close(seen["0"].outputs, stem.mean((2, 3)))
    torch.testing.assert_close(seen["3.conv1"].outputs, inner.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["3.conv2"].outputs, last.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["8"].outputs, net(x).detach(), rtol=1e-4, atol=1e-5)


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.GELU(),
    nn.SiLU(inplace=True),
    nn.Hardswish(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.PReLU(),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations_that_are_modules_are_found(activation):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), activation, nn.Flatten(), nn.Linear(144, 4)).eval()
    ((_, seen),) = observe(net, ["0"], {"outputs"}, images(1))
    torch.testing.assert_close(seen.outputs, net[:3](next(iter(images(1)()))[0][0]).mean((2, 3)).detach())


def test_only_the_first_path_from_a_layer_is_followed():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y).relu() + y.sigmoid()

    net = Split().eval()
    nn.init.constant_(net.norm.weight, 3.0)
    ((_, seen),) = observe(net, ["conv"], {"outputs"}, images(1))
    torch.testing.assert_close(
        seen.outputs, net.norm(net.conv(next(iter(images(1)()))[0][0])).relu().mean((2, 3)).detach()
    )


@pytest.mark.parametrize("needs", [{"hessian"}, {"gradient", "norm"}, {"outputs", "input_norm"}, FIELDS])
def test_as_many_passes_as_memory_allows_give_the_same(needs):
    net, passes = built(toy.residual), 0

    def counted():
        nonlocal passes
        passes += 1
        return images()()

    def run(max_bytes):
        nonlocal passes
        passes = 0
        return dict(observe(net, paths_of(net), needs, counted, F.cross_entropy, max_bytes=max_bytes))

    at_once = run(2**40)
    counting = 1 if needs & {"gradient", "outputs"} else 0
    assert passes == 1 + counting
    one_by_one = run(1)
    assert passes == len(paths_of(net)) + counting
    run(4 * 3 * 145**2)
    assert needs != {"hessian"} or 1 < passes < len(paths_of(net))
    for path, s in at_once.items():
        for field in FIELDS:
            a, b = getattr(s, field), getattr(one_by_one[path], field)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)


def test_a_later_pass_sees_what_was_done_to_the_model_meanwhile():
    net = built(toy.plain)
    norms = {}
    for path, seen in observe(net, ["0", "3"], {"input_norm"}, images(), max_bytes=1):
        norms[path] = seen.input_norm
        net[0].weight.data.zero_()
        net[0].bias.data.zero_()
    assert norms["0"].sum() > 0
    assert norms["3"].sum() == 0


def test_the_model_is_left_as_it_was():
    net = built(toy.residual).train()
    net[3].eval()
    net[0].weight.requires_grad_(False)
    before = copy.deepcopy(net)
    list(observe(net, paths_of(net), FIELDS, images(), F.cross_entropy))
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in before.parameters()]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), before.state_dict().values(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_without_needs_the_model_does_not_run():
    net = built(toy.plain)
    ((path, seen),) = observe(net, ["3"], (), lambda: pytest.fail("the batches were asked for"))
    assert path == "3"
    assert torch.equal(seen.weight, net[3].weight)


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle, self.attention = (
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
        )

    def forward(self, x):
        h = self.used(x[:, 0])
        return self.attention(h, h, h, need_weights=False)[0].mean(1)


def test_a_layer_that_never_runs_has_zero_statistics_and_one_that_is_bypassed_is_refused():
    net = Idle().eval()
    seen = dict(observe(net, ["used", "idle"], FIELDS, images(), F.cross_entropy))
    assert seen["used"].hessian.sum() > 0
    x = torch.cat([x[0] for x, _ in images()()]).reshape(-1, 8)
    torch.testing.assert_close(seen["used"].hessian[0], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    idle = seen["idle"]
    assert idle.outputs.shape == (0, 8)
    assert not any(v.any() for v in (idle.gradient, idle.input_norm, idle.hessian))
    with pytest.raises(InputError, match="attention.out_proj"):
        list(observe(net, ["used", "attention.out_proj"], {"hessian"}, images()))
    gradient = dict(observe(net, ["attention.out_proj"], {"gradient"}, images(), F.cross_entropy))[
        "attention.out_proj"
    ].gradient
    assert gradient.any(), "gradients need no call"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ["nowhere"]}, "no such layer"),
        ({"paths": ["1"]}, "cannot be observed"),
        ({"needs": {"weather"}}, "no such thing"),
        ({"needs": {"gradient"}}, "loss"),
        ({"batches": lambda: []}, "nothing to observe"),
        ({"batches": lambda: [([torch.full((2, 1, 8, 8), torch.nan)], torch.zeros(2).long())]}, "not finite"),
    ],
)
def test_what_cannot_be_observed_is_an_error(change, message):
    settings = {"paths": ["0"], "needs": {"hessian"}, "batches": images(), **change}
    with pytest.raises(InputError, match=message):
        list(observe(built(toy.plain), **settings))


def test_a_bert_classifier():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = transformers.BertForSequenceClassification(config)

        def forward(self, ids, mask):
            return self.bert(input_ids=ids, attention_mask=mask).logits

    torch.manual_seed(0)
    net = Classifier().eval()
    data = [
        ([torch.randint(0, 50, (4, 6), generator=rng(i)), torch.ones(4, 6, dtype=torch.long)], torch.arange(4) % 3)
        for i in range(2)
    ]
    seen = dict(observe(net, paths_of(net), FIELDS, lambda: data, F.cross_entropy))
    assert len(seen) == 2 * 6 + 2
    for path in paths_of(net):
        x = inputs_of(net, path, lambda: data)
        x = x.reshape(-1, x.shape[-1])
        torch.testing.assert_close(seen[path].hessian[0], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
        assert seen[path].norm is None
        assert seen[path].gradient.any()
    inner = "bert.bert.encoder.layer.0.intermediate.dense"
    x = inputs_of(net, inner, lambda: data)
    with torch.no_grad():
        expected = F.gelu(net.get_submodule(inner)(x)).mean(1)
    torch.testing.assert_close(seen[inner].outputs, expected, rtol=1e-4, atol=1e-5)
