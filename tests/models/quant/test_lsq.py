"""LSQ's gradients are the paper's, and what is trained with them is on the grid,
and better than rounding."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.quant.activations import InputGrid, chunks, input_grids, same_inputs
from featherweight.models.quant.fake import quantizable
from featherweight.models.quant.grid import SMALLEST, Grid, codes, nearest
from featherweight.models.quant.grid import fit as fit_grid
from featherweight.models.quant.lsq import (
    WeightStep,
    absorb_norms,
    attach,
    detach,
    first_step,
    gradient_scale,
    quantize,
    trained_name,
)
from featherweight.train.loop import Settings, fit, predict
from tests import toy


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n, p", [(4, 3), (3, 3), (0, 7), (127, 127), (20, 235)])
def test_values_and_gradients_are_those_of_the_paper(n, p):
    v, s = draw(500).requires_grad_(), torch.tensor([0.3 / math.sqrt(p)], dtype=torch.float64, requires_grad=True)
    upstream = draw(500, seed=1)
    out = quantize(v, s, n, p, 0.5)
    assert torch.equal(out, (v / s).clamp(-n, p).round() * s)  # eq. 1, 2
    out.backward(upstream)
    ds, dv = 0.0, []
    for x, step, u in zip(v.tolist(), [s.item()] * 500, upstream.tolist(), strict=True):  # eq. 3 and 5, case by case
        if x / step <= -n:
            ds, passes = ds + u * -n, 0
        elif x / step >= p:
            ds, passes = ds + u * p, 0
        else:
            ds, passes = ds + u * (-x / step + round(x / step)), 1
        dv.append(u * passes)
    assert s.grad.item() == pytest.approx(0.5 * ds, rel=1e-9)
    assert v.grad.tolist() == dv


def test_gradients_are_those_of_the_straight_through_program_of_the_papers_appendix():
    def program(v, s, g, n, p):
        s = (s - s * g).detach() + s * g  # gradscale
        x = (v / s).clamp(-n, p)
        return ((x.round() - x).detach() + x) * s  # roundpass

    v, s = draw(6, 11), draw(6, 1, seed=1).abs() * 0.2
    one, two = (
        (v.clone().requires_grad_(), s.clone().requires_grad_()),
        (v.clone().requires_grad_(), s.clone().requires_grad_()),
    )
    a, b = quantize(*one, 4, 3, 0.1), program(*two, 0.1, 4, 3)
    for out in (a, b):
        (out**3).sum().backward()
    assert (
        torch.allclose(a, b) and torch.allclose(one[0].grad, two[0].grad) and torch.allclose(one[1].grad, two[1].grad)
    )


def test_the_steps_gradient_is_the_derivative_of_the_surrogate():
    """The surrogate freezes what rounding adds: v^(s) = (clip(v/s) + round(c) - c)
    s, c = clip(v/s0)."""
    v, s0, h = draw(200), 0.21, 1e-6
    c = (v / s0).clamp(-4, 3)

    def surrogate(s):
        return (((v / s).clamp(-4, 3) + c.round() - c) * s).sum()

    s = torch.tensor([s0], dtype=torch.float64, requires_grad=True)
    quantize(v, s, 4, 3).sum().backward()
    assert s.grad.item() == pytest.approx(float(surrogate(s0 + h) - surrogate(s0 - h)) / (2 * h), rel=1e-5)


def test_gradient_scale_and_first_step_are_the_formulas():
    assert gradient_scale(1000, 127) == pytest.approx(1 / math.sqrt(1000 * 127)) and gradient_scale(0, 0) == 1
    w = draw(4, 3, 2, 2)
    grid = Grid(bits=3, mirrored=True)
    assert torch.allclose(first_step(w, grid, "lsq").double(), 2 * w.abs().mean((1, 2, 3)) / math.sqrt(3))
    whole = Grid(bits=3, granularity="tensor", mirrored=True)
    assert torch.allclose(first_step(w, whole, "lsq").double(), (2 * w.abs().mean() / math.sqrt(3)).reshape(1))
    assert torch.allclose(first_step(w, grid, "minmax").double(), w.abs().amax((1, 2, 3)) / 3)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_sgd_moves_the_step_as_lsq_does(granularity):
    """The parameter is s / s0; with g / s0^2 for g, SGD takes s where LSQ takes it."""
    w, grid = draw(5, 40).float(), Grid(3, granularity, mirrored=True)
    step = WeightStep(w, grid, "lsq")
    s = step.value().detach().clone().requires_grad_()
    target = draw(5, 40, seed=3).float()
    optimizers = torch.optim.SGD(step.parameters(), 2e-3, momentum=0.9), torch.optim.SGD([s], 2e-3, momentum=0.9)
    g = gradient_scale(w.numel() // s.numel(), 3)
    for _ in range(5):
        losses = ((step(w) - target) ** 2).sum(), ((quantize(w, s.reshape(-1, 1), 3, 3, g) - target) ** 2).sum()
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert torch.allclose(step.value(), s, rtol=1e-4) and not torch.allclose(s, first_step(w, grid, "lsq"), rtol=1e-2)


def test_a_channel_of_zeros_and_a_faint_one_have_finite_gradients():
    w = draw(3, 8).float()
    w[1], w[2] = 0, w[2] * 1e-25
    step = WeightStep(w, Grid(8, mirrored=True), "minmax")
    w.requires_grad_()
    (step(w) * 1e3).sum().backward()
    assert torch.isfinite(step.ratio.grad).all() and torch.isfinite(w.grad).all() and (step(w)[1:] == 0).all()
    all_zero = WeightStep(torch.zeros(2, 3), Grid(8, mirrored=True), "lsq")
    all_zero(torch.zeros(2, 3, requires_grad=True)).sum().backward()
    assert torch.isfinite(all_zero.ratio.grad).all() and (all_zero.value() > SMALLEST).all()


def attached(net, bits, start="minmax", granularity="channel", samples=None):
    x = torch.from_numpy(toy.images(64).batch(np.arange(64))[0]["image"]) if samples is None else samples
    batches = chunks({"image": x})
    paths = list(quantizable(net))
    inputs = input_grids(net.eval(), paths, batches, "u8", "minmax")
    attach(net, same_inputs(net, paths, batches[0]), Grid(bits, granularity, mirrored=True), inputs, start)
    return paths


def test_attach_and_detach_leave_an_ordinary_model_on_its_grid():
    net = toy.residual().eval()
    plain = {name: str(type(m)) for name, m in net.named_modules()}
    names = list(net.state_dict())
    paths = attached(net, 8)
    assert net.get_parameter(trained_name("3.conv1")).shape == net.get_submodule("3.conv1").weight.shape
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        rounded = {p: net.get_submodule(p).weight.clone() for p in paths}
        before = net(x)
    scales = detach(net, paths)
    assert {name: str(type(m)) for name, m in net.named_modules()} == plain
    assert list(net.state_dict()) == names
    assert sorted(scales) == sorted(
        f"{p}.{what}" for p in paths for what in ("weight.scale", "input.scale", "input.zero")
    )
    for p in paths:
        w, s = net.get_submodule(p).weight, scales[f"{p}.weight.scale"]
        assert (
            torch.equal(w, rounded[p])
            and torch.equal(w, nearest(w, s, torch.zeros_like(s), Grid(8, mirrored=True)))
            and w.requires_grad
        )
        net.get_submodule(p).register_forward_pre_hook(
            lambda m, args, p=p: InputGrid(
                float(scales[f"{p}.input.scale"]), int(scales[f"{p}.input.zero"]), 0, 255
            ).nearest(args[0])
        )
    with torch.no_grad():
        # weights and scales say all that the training computed
        assert torch.allclose(net(x), before, atol=1e-5)


def test_layers_that_read_one_tensor_share_one_step():
    net = toy.residual().eval()
    paths = attached(net, 8)
    steps = [net.get_submodule(p)._modules["lsq_input"] for p in ("5.conv1", "5.short.0", "5.conv2")]
    assert steps[0] is steps[1] and steps[0] is not steps[2]
    scales = detach(net, paths)
    assert torch.equal(scales["5.conv1.input.scale"], scales["5.short.0.input.scale"])


def randomized(net):
    for i, m in enumerate(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        g = torch.Generator().manual_seed(i)
        for t, low in ((m.weight, -1.0), (m.bias, -1.0), (m.running_mean, -1.0), (m.running_var, 0.2)):
            t.data = torch.rand(t.shape, generator=g) * 2 + low
    return net.eval()


def test_norms_are_absorbed_and_the_function_stays():
    net = randomized(toy.residual())
    x = torch.randn(8, 1, 8, 8)
    with torch.no_grad():
        before = net(x)
        norms = absorb_norms(net, list(quantizable(net)), (x,))
        assert torch.allclose(net(x), before, atol=1e-4 * float(before.abs().max()))
    assert norms == sorted(name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d))
    for name in norms:
        norm = net.get_submodule(name)
        assert torch.allclose(norm.weight / (norm.running_var + norm.eps).sqrt(), torch.ones(()), atol=1e-6)


def test_a_norm_whose_layer_is_read_elsewhere_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    with pytest.raises(InputError, match="granularity='channel'"):
        absorb_norms(randomized(Net()), ["conv"], (torch.randn(4, 1, 5, 5),))


@pytest.mark.parametrize("start", ["lsq", "minmax"])
def test_two_bits_need_training_and_training_mends_them(start):
    task = toy.task(n=400)
    splits, net = task.splits(), task.build()

    def objective(out, y, _):
        return task.loss_fn(out, y)

    def accuracy(module):
        return float(
            (predict(module, splits.valid).argmax(1) == splits.valid.batch(np.arange(len(splits.valid)))[1]).mean()
        )

    fit(net, splits.train, objective, Settings(4, 3e-3, 16), seed=0)
    assert accuracy(net) >= 0.95
    rounded = copy.deepcopy(net)
    for m in quantizable(rounded).values():
        grid = Grid(2, "tensor", mirrored=True)
        m.weight.data = nearest(m.weight, *fit_grid(m.weight, grid), grid)
    trained = copy.deepcopy(net)
    paths = attached(trained, 2, start, "tensor")
    fit(trained, splits.train, objective, Settings(4, 2e-3, 16), seed=0)
    scales = detach(trained, paths)
    for p in paths:
        s = scales[f"{p}.weight.scale"]
        assert set(
            codes(trained.get_submodule(p).weight, s, torch.zeros_like(s), Grid(2, "tensor", mirrored=True))
            .unique()
            .tolist()
        ) <= {-1.0, 0.0, 1.0}
    assert accuracy(rounded) <= 0.85 and accuracy(trained) >= 0.95
