"""Zero-cost proxies against their formulas, written out on tiny nets;
and what holds for all of them."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight import registry
from featherweight.errors import InputError
from featherweight.models.proxies.grad_norm import GradNorm
from featherweight.models.proxies.naswot import Naswot
from featherweight.models.proxies.snip import Snip
from featherweight.models.proxies.synflow import Synflow
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.encoder import Encoder
from featherweight.nets.mlp import Mlp

KINDS = registry.names("models.proxies")


def images(n=6, channels=1):
    made = torch.Generator().manual_seed(1)
    return [torch.randn(n, channels, 8, 8, generator=made)], torch.arange(n) % 3


def tokens(n=6):
    made = torch.Generator().manual_seed(2)
    mask = torch.ones(n, 5, dtype=torch.int64)
    mask[0, 3:] = 0
    return [torch.randint(0, 20, (n, 5), generator=made), mask], torch.arange(n) % 3


NETS = {
    "residual": (ConvNet(in_channels=1, classes=3, stem=4, depths=(1, 1), widths=(4, 8)), images),
    "inverted": (
        ConvNet(in_channels=1, classes=3, stem=4, depths=(1,), widths=(4,), block="inverted", activation="hardswish"),
        images,
    ),
    "mlp": (Mlp(features=64, classes=3, hidden=(8, 6), norm="batch", dropout=0.3, activation="silu"), images),
    "encoder": (Encoder(vocab=20, length=5, classes=3, depth=1, heads=2, width=8, dropout=0.2), tokens),
}


def linear(*weights, bias=False):
    layers = []
    for w in weights:
        layer = nn.Linear(w.shape[1], w.shape[0], bias=bias)
        layer.weight.data = w.clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_proxy_is_there():
    assert set(KINDS) == {"grad_norm", "naswot", "snip", "synflow"}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", KINDS)
def test_pure_finite_and_repeatable(kind, net):
    description, batch = NETS[net]
    inputs, targets = batch()
    module = description.build(3).train()
    module[0].eval() if isinstance(module, nn.Sequential) else module.norm.eval()
    for p in list(module.parameters())[:1]:
        p.requires_grad_(False)
    for p in list(module.parameters())[1:2]:
        p.grad = torch.ones_like(p)
    before, modes = copy.deepcopy(module.state_dict()), [m.training for m in module.modules()]
    rng = torch.get_rng_state()
    first = registry.find("models.proxies", kind)().score(module, inputs, targets, F.cross_entropy)
    with torch.no_grad():
        again = registry.find("models.proxies", kind)().score(module, inputs, targets, F.cross_entropy)
    assert math.isfinite(first) and first == again
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert [m.training for m in module.modules()] == modes
    parameters = list(module.parameters())
    assert not parameters[0].requires_grad and torch.equal(parameters[1].grad, torch.ones_like(parameters[1]))
    assert all(p.grad is None for p in parameters[2:]) and not any(m._forward_hooks for m in module.modules())
    other = registry.find("models.proxies", kind)().score(description.build(4), inputs, targets, F.cross_entropy)
    assert other != first


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_what_is_no_batch(kind):
    inputs, targets = images()
    proxy, module = registry.find("models.proxies", kind)(), NETS["mlp"][0].build()
    for wrong in ([inputs[0][:1]], [inputs[0][:0]], [], [inputs[0], inputs[0][:2]]):
        with pytest.raises(InputError, match="batch"):
            proxy.score(module, wrong, targets[: len(wrong[0]) if wrong else 0], F.cross_entropy)


def test_grad_norm_against_finite_differences():
    a, b = drawn(4, 3, seed=1).double(), drawn(2, 4, seed=2).double()
    x, y = drawn(5, 3, seed=3).double(), torch.tensor([0, 1, 1, 0, 1])

    def loss(a, b):
        return float(F.cross_entropy(torch.relu(x @ a.T) @ b.T, y))

    norms = []
    for weight in (a, b):
        g, h = torch.zeros_like(weight), 1e-6
        for i in range(weight.numel()):
            kept = weight.view(-1)[i].item()
            weight.view(-1)[i] = kept + h
            up = loss(a, b)
            weight.view(-1)[i] = kept - h
            g.view(-1)[i] = (up - loss(a, b)) / (2 * h)
            weight.view(-1)[i] = kept
        norms.append(float(g.norm()))
    assert GradNorm().score(linear(a, b), [x], y, F.cross_entropy) == pytest.approx(sum(norms), rel=1e-6)


def test_grad_norm_leaves_biases_and_norms_out():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x, y = drawn(6, 3), torch.arange(6) % 2
    F.cross_entropy(copy.deepcopy(net)(x), y)  # the copy's statistics move, not the net's
    live = copy.deepcopy(net)
    F.cross_entropy(live(x), y).backward()
    expected = float(live[0].weight.grad.norm() + live[2].weight.grad.norm())
    assert GradNorm().score(net, [x], y, F.cross_entropy) == pytest.approx(expected, rel=1e-5)


def test_snip_of_one_layer_by_hand():
    w, x, y = drawn(1, 3), drawn(4, 3, seed=1), drawn(4, 1, seed=2)
    g = 2 * (x @ w.T - y).T @ x / 4  # d/dw mean((x w - y)^2)
    assert Snip().score(linear(w), [x], y, F.mse_loss) == pytest.approx(float((g * w).abs().sum()), rel=1e-5)


@pytest.mark.parametrize("proxy", [GradNorm(), Snip()])
def test_a_net_that_ignores_its_input_has_no_gradients(proxy):
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(3, 2)

        def forward(self, x):
            return torch.zeros(len(x), 2)

    x, y = drawn(4, 3), torch.tensor([0, 1, 0, 1])
    assert proxy.score(Dead(), [x], y, F.cross_entropy) == 0.0
    assert Synflow().score(Dead(), [x], y, F.cross_entropy) == -math.inf


def test_synflow_of_a_linear_net_is_its_layers_times_its_paths():
    a, b, c = drawn(4, 3, seed=1), drawn(5, 4, seed=2), drawn(2, 5, seed=3)
    paths = (
        torch.ones(1, 2).double() @ c.double().abs() @ b.double().abs() @ a.double().abs() @ torch.ones(3, 1).double()
    )  # eq. 3
    score = Synflow().score(linear(a, b, c), [drawn(4, 3)], torch.zeros(4), F.mse_loss)
    # each layer conserves the flow (their theorem 1)
    assert score == pytest.approx(math.log(3 * float(paths)), rel=1e-12)
    # neither signs nor data count
    assert Synflow().score(linear(-a, b, -c), [drawn(4, 3, seed=9)], torch.zeros(4), F.mse_loss) == score


def test_synflow_against_autograd_by_hand():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    net[1].weight.data.uniform_(-2, 2, generator=torch.Generator().manual_seed(0))
    w = net[0].weight.detach().double().abs().requires_grad_()
    v = net[4].weight.detach().double().abs().requires_grad_()
    # batch norm left out
    hidden = torch.relu(F.conv2d(torch.ones(1, 2, 4, 4).double(), w, net[0].bias.detach().double().abs(), padding=1))
    flow = (hidden.flatten(1) @ v.T + net[4].bias.detach().double().abs()).sum()
    flow.backward()
    expected = math.log(float((w.detach() * w.grad).sum() + (v.detach() * v.grad).sum()))
    assert Synflow().score(net, [drawn(4, 2, 4, 4)], torch.zeros(4), F.mse_loss) == pytest.approx(expected, rel=1e-12)


def test_synflow_behind_an_embedding():
    net = nn.Sequential(nn.Embedding(7, 3), nn.LayerNorm(3), nn.Linear(3, 2, bias=False))
    ids = torch.tensor([[1, 2], [3, 4]])
    # two tokens of ones, and the head's weights
    expected = math.log(2 * float(net[2].weight.detach().double().abs().sum()))
    assert Synflow().score(net, [ids], torch.zeros(2), F.mse_loss) == pytest.approx(expected, rel=1e-12)


def test_synflow_overflow_is_an_error():
    with pytest.raises(InputError, match="not a number"):
        Synflow().score(linear(*[torch.full((2, 2), 1e38)] * 10), [drawn(4, 2)], torch.zeros(4), F.mse_loss)


def codes_of(net, x):
    rows = []
    for layer in net:
        x, pre = layer(x), x
        if isinstance(layer, nn.ReLU):
            rows.append(pre > 0)
    return torch.cat(rows, 1)


def brute(codes):
    n = len(codes)
    kernel = [
        [sum(bool(a) == bool(b) for a, b in zip(codes[i], codes[j], strict=True)) for j in range(n)] for i in range(n)
    ]  # A - Hamming distance
    return math.log(np.linalg.det(np.array(kernel, dtype=float)))


def test_naswot_by_brute_force():
    net, x = linear(drawn(6, 3, seed=1), drawn(5, 6, seed=2), drawn(2, 5, seed=3)), drawn(4, 3, seed=4)
    assert Naswot().score(net, [x], torch.zeros(4), F.mse_loss) == pytest.approx(brute(codes_of(net, x)), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Hardswish", "Mish"]
)
def test_naswot_counts_the_sign_of_what_enters(name):
    w, x = drawn(8, 3, seed=1), drawn(4, 3, seed=4)
    layer = nn.Linear(3, 8, bias=False)
    layer.weight.data = w
    score = Naswot().score(nn.Sequential(layer, getattr(nn, name)()), [x], torch.zeros(4), F.mse_loss)
    assert score == pytest.approx(brute(x @ w.T > 0), rel=1e-9)


def test_naswot_counts_functions_in_place_and_in_a_fused_layer():
    class Net(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.how, self.layer = how, nn.Linear(3, 8, bias=False)
            self.layer.weight.data = drawn(8, 3, seed=1)

        def forward(self, x):
            return self.how(self.layer(x))

    x = drawn(4, 3, seed=4)
    expected = brute(x @ drawn(8, 3, seed=1).T > 0)
    for how in (F.relu, torch.relu, lambda y: y.relu_(), lambda y: F.relu(y, inplace=True), nn.ReLU(inplace=True)):
        assert Naswot().score(Net(how), [x], torch.zeros(4), F.mse_loss) == pytest.approx(expected, rel=1e-9)
    fused = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert math.isfinite(Naswot().score(fused, [drawn(4, 3, 8)], torch.zeros(4), F.mse_loss))


def test_naswot_edges():
    net, x = linear(drawn(6, 3, seed=1), drawn(2, 6, seed=2)), drawn(4, 3, seed=4)
    # twice the same code
    assert Naswot().score(net, [torch.cat([x, 2 * x[:1]])], torch.zeros(5), F.mse_loss) == -math.inf
    with pytest.raises(InputError, match="none"):
        Naswot().score(nn.Linear(3, 2), [x], torch.zeros(4), F.mse_loss)
    with pytest.raises(InputError, match="samples"):
        Naswot().score(
            nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (3, 4)), nn.ReLU()), [x], torch.zeros(4), F.mse_loss
        )


def test_wider_nets_flow_more():
    inputs, targets = images()
    scores = [
        Synflow().score(
            ConvNet(in_channels=1, classes=3, stem=w, depths=(1,), widths=(w,)).build(), inputs, targets, F.mse_loss
        )
        for w in (4, 8, 16)
    ]
    assert scores == sorted(scores) and scores[0] < scores[-1]
