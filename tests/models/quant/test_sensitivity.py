"""Sensitivities are their formulas, written out; and what is measured is what a direct
evaluation gives."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.quant import sensitivity
from featherweight.models.quant.activations import chunks, input_grids
from featherweight.models.quant.fake import FLOAT, Simulated, quantizable, rounded
from featherweight.models.quant.sensitivity import by_formula, distance, fisher, mean_gradients, measured, taylor
from featherweight.plan import LayerPlan
from featherweight.train.loop import Settings, fit
from tests import toy

EIGHT, FOUR = LayerPlan(8), LayerPlan(4)


def samples(n, size):
    x, y = toy.images(n).batch(np.arange(n))
    x, y = torch.from_numpy(x["image"]), torch.from_numpy(y)
    return [((x[i : i + size],), y[i : i + size]) for i in range(0, n, size)]


def test_the_formulas_are_sums():
    g = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    d = torch.tensor([[0.1, 0.2], [-0.4, 0.0]])
    assert float(fisher(g**2, d)) == pytest.approx(0.5 * (1 * 0.01 + 4 * 0.04 + 0.25 * 0.16))
    assert float(taylor(g, d)) == pytest.approx(0.01 + 0.16 + 0.04)


def test_fisher_of_a_linear_model_is_what_the_algebra_says():
    """loss 1/2 (w x - y)^2: g_n = (w x_n - y_n) x_n, one weight."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False))
    x, y = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[0.5], [0.0], [1.0]])
    batches = [((x[i : i + 1],), y[i : i + 1]) for i in range(3)]
    w = float(net[0].weight.detach())
    g = [(w * a - b) * a for a, b in zip(x[:, 0].tolist(), y[:, 0].tolist(), strict=True)]

    def loss(out, target):
        return 0.5 * ((out - target) ** 2).mean()

    assert float(mean_gradients(net, ["0"], batches, loss, 2)["0"]) == pytest.approx(
        sum(v * v for v in g) / 3, rel=1e-5
    )
    assert float(mean_gradients(net, ["0"], batches, loss, 1)["0"]) == pytest.approx(sum(g) / 3, rel=1e-5)
    assert net[0].weight.requires_grad and net[0].weight.grad is None


@pytest.mark.parametrize("how", ["fisher", "taylor"])
def test_by_formula_equals_the_loop_over_samples(how, monkeypatch):
    task = toy.task(toy.plain)
    net = task.build()
    batches = samples(12, 1)
    grads = []
    for inputs, y in batches:
        net.zero_grad()
        task.loss_fn(net(*inputs), y).backward()
        grads.append({p: m.weight.grad.clone() for p, m in quantizable(net).items()})
    net.zero_grad(set_to_none=True)
    simulated = Simulated(net, "weight-only")
    options = {path: [FOUR, EIGHT, FLOAT] for path in quantizable(net)}
    got = by_formula(simulated, options, batches, task.loss_fn, how)
    for path, m in quantizable(net).items():
        g = torch.stack([x[path] for x in grads])
        for entry, value in zip(options[path], got[path], strict=True):
            d = rounded(m.weight, entry, False, False) - m.weight.detach()
            expected = 0.5 * ((g**2).mean(0) * d**2).sum() if how == "fisher" else ((g.mean(0) * d) ** 2).sum()
            assert value == pytest.approx(float(expected), rel=1e-4, abs=1e-12)
        assert got[path][0] > got[path][1] > got[path][2] == 0
    monkeypatch.setattr(sensitivity, "AT_ONCE", 200)  # a backward pass for each layer
    again = by_formula(simulated, options, batches, task.loss_fn, how)
    assert all(np.allclose(again[p], got[p], rtol=1e-5) for p in got)


def test_fisher_predicts_the_rise_of_the_loss_of_a_trained_model():
    task = toy.task(toy.plain, n=400)
    net = task.build()
    fit(net, toy.images(400), lambda out, y, _: task.loss_fn(out, y), Settings(3, 3e-3, 16), seed=0)
    options = {path: [FOUR] for path in quantizable(net)}
    batches = samples(60, 1)
    predicted = by_formula(Simulated(net, "weight-only"), options, batches, task.loss_fn, "fisher")
    real = measured(Simulated(net, "weight-only"), options, [b[0] for b in batches], True)
    paths = list(options)
    assert np.corrcoef(np.log([predicted[p][0] for p in paths]), np.log([real[p][0] for p in paths]))[0, 1] > 0.5


@pytest.mark.parametrize("logits", [True, False])
def test_measured_is_one_layer_at_a_time(logits):
    net = toy.plain().eval()
    # far logits: what a rounded layer does to them is a thousand times what float32 does
    net[8].weight.data *= 50.0
    x = torch.cat([b[0][0] for b in samples(24, 8)])
    grids = input_grids(net, list(quantizable(net)), [(x,)], "u8", "minmax")
    simulated = Simulated(net, "int8-static", grids)
    simulated.set("8", EIGHT)  # as it was: to be found so again
    before = simulated.module(x)
    got = measured(simulated, {"3": [EIGHT, FLOAT], "6": [EIGHT]}, chunks({"x": x}, 8), logits)
    assert (
        torch.equal(simulated.module(x), before) and simulated.layers["8"] == EIGHT and simulated.layers["3"] == FLOAT
    )
    alone = copy.deepcopy(net)
    alone[3].weight.data = rounded(net[3].weight, EIGHT, True, False)
    alone[3].register_forward_pre_hook(lambda m, args: grids["3"].nearest(args[0]))
    with torch.no_grad():
        f, q = net(x), alone(x)
    p = f.softmax(-1)
    expected = (p * (p.log() - q.softmax(-1).log())).sum(-1).mean() if logits else ((f - q) ** 2).mean()
    assert got["3"][0] == pytest.approx(float(expected), rel=2e-2, abs=1e-8) and got["3"][1] == 0
    assert got["6"][0] > 0


def test_distances_are_zero_only_for_equals():
    f = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(distance(f, f, True)) == 0 and float(distance(f, f + 5, True)) == pytest.approx(0, abs=1e-6)
    assert float(distance(f, f + 5, False)) == 25
    one = torch.tensor([[0.0], [1.0]])
    # the softmax of one logit is always 1: it says nothing
    assert float(distance(one, one + 1, True)) == 1


def test_what_says_nothing_is_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(InputError, match="samples"):
        mean_gradients(net, ["0"], [], lambda out, y: out.sum(), 2)
    with pytest.raises(InputError, match="not finite"):
        mean_gradients(net, ["0"], [((torch.ones(1, 2),), torch.zeros(1))], lambda out, y: out.sum() * float("inf"), 2)
    with pytest.raises(InputError, match="samples"):
        measured(Simulated(net, "weight-only"), {"0": [EIGHT]}, [], True)


def test_a_weight_that_the_loss_does_not_reach_has_no_sensitivity():
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = net

        def forward(self, x):
            return self.parts["used"](x)

    found = mean_gradients(
        Net(), ["parts.used", "parts.unused"], [((torch.ones(1, 2),), None)], lambda out, y: out.sum(), 1
    )
    assert found["parts.used"].abs().sum() > 0 and found["parts.unused"].abs().sum() == 0
