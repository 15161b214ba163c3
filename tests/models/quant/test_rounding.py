"""Scales by least error, GPTQ against brute-force optimal brain quantization, bias correction, and
the inputs that they look at."""

import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.quant.bias import correction
from featherweight.models.quant.gptq import gptq
from featherweight.models.quant.grid import Grid, codes, fit, nearest
from featherweight.models.quant.inputs import batched, collect, features
from featherweight.models.quant.ranges import search
from featherweight.models.quant.rounding import Rounding, round_weights
from featherweight.models.quant.trace import trace


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def correlated(n, samples=400, seed=0):
    """Inputs [samples, n] that depend on each other."""
    return torch.randn(samples, n, generator=rng(seed)) @ torch.randn(n, n, generator=rng(seed + 1)) / n**0.5


def test_the_searched_scale_is_the_best_of_the_ratios():
    """Brute force: every ratio for every row."""
    w = torch.randn(5, 40, generator=rng()) ** 3
    grid = Grid(4, "channel")
    s, z = search(w, grid)
    widest, _ = fit(w, grid)
    assert bool((s < widest).any())
    for row in range(5):
        errors = {}
        for i in range(80):
            step = float(widest[row]) * (1 - 0.01 * i)
            errors[i] = float((w[row] - (w[row] / step).round().clamp(-8, 7) * step).square().sum())
        best = min(errors.values())
        assert float((w[row] - nearest(w, s, z, grid)[row]).square().sum()) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("granularity", "group"), [("tensor", 0), ("channel", 0), ("group", 16)])
def test_searched_scales_never_err_more_than_min_max(granularity, group, symmetric):
    w = torch.randn(6, 40, generator=rng(3)) ** 3
    grid = Grid(4, granularity, group, symmetric)
    s, z = search(w, grid)
    assert s.shape == fit(w, grid)[0].shape and bool((s <= fit(w, grid)[0]).all())
    assert (w - nearest(w, s, z, grid)).square().sum() < (w - nearest(w, *fit(w, grid), grid)).square().sum()


def test_the_scale_of_two_equal_values_clips_nothing():
    w = torch.tensor([[1.0, -1.0]])
    assert torch.allclose(nearest(w, *search(w, Grid(4)), Grid(4)), w)


def obq(w, hessian, grid, damp, zeros=None):
    """Frantar et al. 2022 (arXiv:2208.11580, eq. 3) in fixed order: quantize one weight, move the
    rest optimally, invert anew. float64."""
    s, z = fit(w, grid)
    n = w.shape[1]
    H = hessian.double() + damp * hessian.diagonal().mean().double() * torch.eye(n, dtype=torch.float64)
    out = torch.zeros_like(w, dtype=torch.float64)
    for r in range(len(w)):
        row = w[r].double().clone()
        for j in range(n):
            left = list(range(j, n))
            inverse = torch.linalg.inv(H[left][:, left])
            scale, zero = (float(t[r] if grid.granularity == "channel" else t[0]) for t in (s, z))
            q = (min(max(round(float(row[j]) / scale + zero), grid.low), grid.high) - zero) * scale
            if zeros is not None and zeros[r, j]:
                q = 0.0
            delta = -(row[j] - q) / inverse[0, 0] * inverse[:, 0]
            row[left] += delta
            out[r, j] = q
    return out


@pytest.mark.parametrize("block", [1, 3, 128])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_gptq_is_optimal_brain_quantization_in_column_order(granularity, symmetric, block):
    x = correlated(10)
    w = torch.randn(6, 10, generator=rng(5))
    hessian = x.T @ x / len(x)
    grid = Grid(4, granularity, 0, symmetric)
    q, s, z = gptq(w, hessian, grid, block=block)
    torch.testing.assert_close(q.double(), obq(w, hessian, grid, 0.01), rtol=1e-5, atol=1e-6)
    assert torch.equal(nearest(q, s, z, grid), q)


def test_gptq_with_fixed_zeros_is_optimal_brain_quantization_with_them():
    x = correlated(10)
    w = torch.randn(6, 10, generator=rng(6))
    w[torch.rand(6, 10, generator=rng(7)) < 0.5] = 0
    hessian, grid = x.T @ x / len(x), Grid(4)
    q, _, _ = gptq(w, hessian, grid, zeros=w == 0)
    assert bool((q[w == 0] == 0).all())
    torch.testing.assert_close(q.double(), obq(w, hessian, grid, 0.01, zeros=w == 0), rtol=1e-5, atol=1e-6)


def test_gptq_with_independent_inputs_is_round_to_nearest():
    w = torch.randn(6, 10, generator=rng(8))
    for hessian in (torch.diag(torch.arange(1.0, 11)), torch.zeros(10, 10)):
        q, s, z = gptq(w, hessian, Grid(4))
        torch.testing.assert_close(q, nearest(w, s, z, Grid(4)))


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("find", [fit, search])
@pytest.mark.parametrize(("granularity", "group"), [("tensor", 0), ("channel", 0), ("group", 8)])
def test_gptq_errs_less_on_outputs_than_rounding_to_nearest(granularity, group, find, order):
    x = correlated(28)
    w = torch.randn(12, 28, generator=rng(9))
    grid = Grid(4, granularity, group)
    q, s, z = gptq(w, x.T @ x / len(x), grid, find=find, order=order)
    plain = nearest(w, *find(w, grid), grid)
    assert ((w - q) @ x.T).square().sum() < 0.8 * ((w - plain) @ x.T).square().sum()
    torch.testing.assert_close(nearest(q, s, z, grid), q)
    assert s.shape == fit(w, grid)[0].shape


def test_gptq_by_group_fits_each_group_to_the_updated_weights():
    """Two groups: the second grid is that of the weights after the first group's errors were
    spread, which the closed form gives."""
    x = correlated(8)
    w = torch.randn(3, 8, generator=rng(10))
    grid = Grid(4, "group", 4)
    H = (x.T @ x / len(x)).double()
    q, s, _ = gptq(w, H.float(), grid)
    H += 0.01 * H.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    spread = w[:, 4:].double() + (w[:, :4] - q[:, :4]).double() @ H[:4, 4:] @ torch.linalg.inv(H[4:, 4:])
    torch.testing.assert_close(
        s[:, 1].double(), torch.maximum(spread.amax(1) / 7, -spread.amin(1) / 8), rtol=1e-4, atol=1e-6
    )


def test_gptq_of_one_weight_and_of_wrong_inputs():
    q, s, z = gptq(torch.tensor([[0.7]]), torch.tensor([[2.0]]), Grid(4))
    assert torch.allclose(q, torch.tensor([[0.7]]))
    with pytest.raises(InputError, match="not finite"):
        gptq(torch.ones(1, 2), torch.full((2, 2), torch.nan), Grid(4))


CONVS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 8, (3, 2), stride=2, padding=1, dilation=2, groups=2),
    nn.Conv2d(4, 4, 3, padding="same", groups=4, padding_mode="reflect"),
    nn.Conv1d(4, 6, 3, stride=2),
]


@pytest.mark.parametrize("layer", CONVS)
def test_the_features_of_a_convolution_times_its_weights_are_its_outputs(layer):
    x = (
        torch.randn(3, 4, 9, 8, generator=rng())
        if isinstance(layer, nn.Conv2d)
        else torch.randn(3, 4, 9, generator=rng())
    )
    with torch.no_grad():
        expected = layer(x) - layer.bias.reshape(-1, *(1,) * (x.ndim - 2))
        rows = torch.cat(list(features(layer, x)), 1)  # [G, R, n]
        w = layer.weight.flatten(1).reshape(layer.groups, -1, rows.shape[2])
        got = torch.einsum("grn,gon->rgo", rows, w).flatten(1)  # [R, O]
    torch.testing.assert_close(got, expected.movedim(1, -1).reshape(-1, layer.out_channels), rtol=1e-4, atol=1e-5)


def test_collected_statistics_are_those_of_all_inputs():
    x = torch.randn(50, 7, 6, generator=rng())
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    seen = collect(net, ["0", "2"], {"mean", "hessian", "absmean", "absmax"}, batched([x], 16))
    with torch.no_grad():
        for path, rows in (("0", x.reshape(-1, 6)), ("2", net[:2](x).reshape(-1, 5))):
            torch.testing.assert_close(seen[path].hessian[0], rows.T @ rows / len(rows))
            torch.testing.assert_close(seen[path].mean[0], rows.mean(0))
            torch.testing.assert_close(seen[path].absmean, rows.abs().mean(0))
            torch.testing.assert_close(seen[path].absmax, rows.abs().amax(0))
    early = collect(net, ["0"], {"hessian"}, batched([x], 16), once=True)
    assert torch.equal(early["0"].hessian, seen["0"].hessian) and early["0"].mean.numel() == 0
    with pytest.raises(InputError, match="never ran"):
        collect(nn.ModuleDict({"a": nn.Linear(2, 2), "b": net}), ["a"], {"mean"}, lambda: [])


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), *CONVS[:3]])
def test_bias_correction_restores_the_mean_output(layer):
    shape = (40, 6) if isinstance(layer, nn.Linear) else (20, 4, 8, 8)
    x = torch.randn(shape, generator=rng()) + 1
    net = nn.Sequential(layer)
    grid = Grid(3)
    mean = collect(net, ["0"], {"mean"}, batched([x]))["0"].mean
    rounded = nearest(layer.weight.detach(), *fit(layer.weight, grid), grid)
    functional = nn.Linear(6, 4) if isinstance(layer, nn.Linear) else layer.__class__(**arguments(layer))
    functional.load_state_dict(
        {"weight": rounded, "bias": layer.bias.detach() + correction(layer.weight, rounded, mean)}
    )
    dims = tuple(d for d in range(x.ndim) if d != (1 if x.ndim > 2 else -1 % x.ndim))
    with torch.no_grad():
        torch.testing.assert_close(functional(x).mean(dims), layer(x).mean(dims), rtol=1e-4, atol=1e-5)


def arguments(conv):
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(conv, name) for name in names}


def test_rounding_goes_forward_with_the_inputs_of_rounded_layers():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)).eval()
    x = correlated(8)
    weights = [net[i].weight.detach().clone() for i in (0, 2)]
    grid = Grid(3)
    scales, left = round_weights(net, {"0": grid, "2": grid}, trace(net, (x[:2],)), batched([x]), Rounding("gptq"))
    first, _, _ = gptq(weights[0], x.T @ x / len(x), grid)
    torch.testing.assert_close(net[0].weight.detach(), first)
    with torch.no_grad():
        h = torch.relu(net[0](x))
    second, s, _ = gptq(weights[1], h.T @ h / len(h), grid)
    torch.testing.assert_close(net[2].weight.detach(), second)
    assert (
        torch.equal(scales["2.weight.scale"], s) and set(scales) == {"0.weight.scale", "2.weight.scale"} and left == {}
    )


def test_layers_that_cannot_be_corrected_or_are_tied_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.a, self.out = nn.Embedding(9, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 9, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids):
            return self.out(self.a(self.table(ids)))

    net, ids = Net().eval(), torch.arange(8).reshape(4, 2)
    table = net.table.weight.detach().clone()
    grids = {"a": Grid(4), "out": Grid(4)}
    scales, left = round_weights(net, grids, trace(net, (ids,)), batched([ids]), Rounding(correct_bias=True))
    assert (
        torch.equal(net.table.weight, table)
        and "used elsewhere" in left["out"]
        and "no bias" in left["a"]
        and set(scales) == {"a.weight.scale"}
    )


def test_codes_of_rounded_weights_survive_the_target():
    w = torch.randn(4, 9, generator=rng(2))
    grid = Grid(4, "group", 4, False)
    q, s, z = gptq(w, torch.eye(9), grid)
    torch.testing.assert_close(
        (codes(q, s, z, grid).reshape(4, 9) - z.repeat_interleave(4, 1)[:, :9]) * s.repeat_interleave(4, 1)[:, :9], q
    )
