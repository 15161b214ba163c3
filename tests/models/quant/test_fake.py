"""The simulation computes what its plan says, on a copy; and what ONNX Runtime computes
from the same plan."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.package import Package
from featherweight.models.quant import activations, fake
from featherweight.models.quant.activations import InputGrid, chunks, grid_of, input_grids, same_inputs
from featherweight.models.quant.fake import FLOAT, Simulated, quantizable, simulate
from featherweight.models.quant.grid import Grid, fit, nearest
from featherweight.plan import LayerPlan, Plan
from featherweight.targets.base import Target
from featherweight.targets.onnxruntime import Onnxruntime
from featherweight.train.loop import Settings, predict
from tests import toy


def plan(module, scheme="int8-static", bits=8):
    ranges = {"activations": "u8", "calibrate": "minmax", "samples": 64, "seed": 0}
    layers = {path: LayerPlan(bits) for path in quantizable(module)}
    return Plan(scheme, bits, "channel", group=0, symmetric=True, embeddings=32, **ranges, layers=layers)


@pytest.mark.parametrize(
    "activations_, ends",
    [("u8", (-1.0, 3.0)), ("u8", (0.0, 2.5)), ("u8", (0.5, 2.5)), ("s8", (-1.0, 3.0)), ("u8", (-2.0, -1.0))],
)
def test_an_input_grid_is_that_of_onnx(activations_, ends):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    grid = grid_of(*ends, activations_)
    x = np.linspace(ends[0] - 1, ends[1] + 1, 4001, dtype=np.float32)
    kind = np.uint8 if activations_ == "u8" else np.int8
    h = onnx.helper
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.asarray(grid.scale, np.float32), "s"),
        onnx.numpy_helper.from_array(np.asarray(grid.zero, kind), "z"),
    ]
    io = [[h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None])] for name in "xy"]
    model = h.make_model(h.make_graph(nodes, "g", *io, constants), opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]
    got = grid.nearest(torch.from_numpy(x)).numpy()
    if activations_ == "s8":  # ONNX has -128 too; a symmetric grid does not
        expected = np.maximum(expected, np.float32(-127 * grid.scale))
    assert np.abs(got - expected).max() < 1e-6
    inside = torch.linspace(*ends, 999)
    assert (grid.nearest(inside) - inside).abs().max() <= 0.5001 * grid.scale + 0.5001 * grid.scale * (
        grid.zero in (0, 255)
    )
    assert grid.nearest(torch.zeros(1)) == 0


def test_an_input_that_is_always_zero_has_a_grid():
    assert grid_of(0.0, 0.0, "u8") == InputGrid(1.0, 0, 0, 255)


def test_ranges_are_those_of_the_inputs():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    found = input_grids(net, ["0", "2"], chunks({"x": x}, 7), "u8", "minmax")
    hidden = torch.relu(net[0](x)).detach()
    assert found["0"] == grid_of(float(x.min()), float(x.max()), "u8")
    assert found["2"] == grid_of(float(hidden.min()), float(hidden.max()), "u8") and found["2"].zero == 0


@pytest.mark.parametrize("kind", ["u8", "s8"])
def test_percentile_and_mse_cut_an_outlier_off(kind):
    x = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(0)).abs()
    x[0, 0] = 200.0
    net = nn.Sequential(nn.Linear(4, 1))

    def error(how):
        grid = input_grids(net, ["0"], chunks({"x": x}, 50_000), kind, how)["0"]
        return float(((grid.nearest(x) - x) ** 2).sum()), float(((grid.nearest(x[1:]) - x[1:]) ** 2).sum())

    assert error("percentile")[1] < 0.1 * error("minmax")[1]  # all but the outlier
    assert error("mse")[0] <= error("minmax")[0]
    x[0, 0] = 8.0
    assert error("mse")[0] < 0.98 * error("minmax")[0]


def test_mse_is_the_best_of_its_shrinkings():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(1)) ** 3
    lo, hi = float(x.min()), float(x.max())
    got = activations.least_squares(torch.histc(x, activations.BINS, lo, hi).double(), lo, hi, "u8")
    errors = {a: float(((grid_of(a * lo, a * hi, "u8").nearest(x) - x) ** 2).mean()) for a in np.arange(1, 101) / 100}
    chosen = float(((grid_of(*got, "u8").nearest(x) - x) ** 2).mean())
    assert chosen <= 1.05 * min(errors.values()) and chosen < errors[1.0]


def test_unknown_calibration_and_infinite_inputs_are_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(InputError, match="entropy"):
        input_grids(net, ["0"], [(torch.zeros(1, 2),)], "u8", "entropy")
    with pytest.raises(InputError, match="not finite"):
        input_grids(net, ["0"], [(torch.full((1, 2), torch.inf),)], "u8", "minmax")


def test_layers_that_read_one_tensor_are_found():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.unused = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            y = self.a(x) + self.b(x)
            return self.c(nn.functional.relu_(x) + y)

    assert same_inputs(Net(), ["a", "b", "c", "unused"], (torch.randn(2, 4),)) == [["a", "b"], ["c"], ["unused"]]
    residual = toy.residual()
    groups = same_inputs(residual, [p for p, m in quantizable(residual).items()], (torch.randn(2, 1, 8, 8),))
    assert ["5.conv1", "5.short.0"] in groups and len(groups) == 8

    class InPlace(Net):
        def forward(self, x):
            y = self.a(x)
            return y + self.b(x.relu_())  # the same memory with other contents

    assert same_inputs(InPlace(), ["a", "b"], (torch.randn(2, 4),)) == [["a"], ["b"]]


def test_each_width_rounds_the_weight_as_the_plan_says_and_is_put_back():
    net = toy.plain()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    simulated = Simulated(net, "weight-only")
    w = net[3].weight
    for bits in (4, 8):
        simulated.set("3", LayerPlan(bits))
        grid = Grid(bits)
        assert torch.equal(simulated.module[3].weight, nearest(w, *fit(w, grid), grid))
    simulated.set("3", LayerPlan(4, "group", 16, False))
    grid = Grid(4, "group", 16, False)
    assert torch.equal(simulated.module[3].weight, nearest(w, *fit(w, grid), grid))
    simulated.set("3", LayerPlan(16))
    assert torch.equal(simulated.module[3].weight, w.half().float())
    simulated.set("3", FLOAT)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(simulated.module(x), net(x))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(InputError, match="has not"):
        simulated.set("nowhere", LayerPlan(8))


class Tied(nn.Module):
    """An output layer that shares the table's weight."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(self.table(x))


def test_what_shares_a_weight_is_one_entry_and_rounded_together():
    net = Tied()
    simulated = Simulated(net, "weight-only")
    simulated.set("table", LayerPlan(4))
    assert list(quantizable(net)) == ["table"] and simulated.module.table.weight is simulated.module.out.weight
    assert not torch.equal(simulated.module.out.weight, net.out.weight)
    with pytest.raises(InputError, match="has not"):
        simulated.set("out", LayerPlan(4))


def test_the_input_of_an_output_layer_tied_with_a_table_is_rounded_too():
    torch.manual_seed(0)
    net, x, weights = Tied(), torch.arange(7), Grid(8, mirrored=True)
    table = net.table.weight.detach()
    w = nearest(table, *fit(table, weights), weights)
    inputs = grid_of(float(table.min()), float(table.max()), "u8")
    assert torch.equal(simulate(Package(net, plan=plan(net)), {"x": x})(x), inputs.nearest(w) @ w.T)


def test_static_inputs_are_rounded_on_their_grids():
    net = nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    package = Package(net, plan=plan(net))
    grid, weights = grid_of(float(x.min()), float(x.max()), "u8"), Grid(8, mirrored=True)
    expected = nn.functional.linear(
        grid.nearest(x), nearest(net[0].weight, *fit(net[0].weight, weights), weights), net[0].bias
    )
    assert torch.equal(simulate(package, {"x": x})(x), expected)
    seven = Grid(7, mirrored=True)
    expected = nn.functional.linear(
        grid.nearest(x), nearest(net[0].weight, *fit(net[0].weight, seven), seven), net[0].bias
    )
    assert torch.equal(simulate(package, {"x": x}, saturates=True)(x), expected)


def test_scales_that_the_package_brings_are_kept():
    net = nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    scales = {
        "0.weight.scale": torch.ones(3),
        "0.input.scale": torch.tensor([0.25]),
        "0.input.zero": torch.tensor([100.0]),
    }
    # the weight counts as on its grid: no rounding, no calibration
    got = simulate(Package(net, plan=plan(net), scales=scales), {})(x)
    assert torch.equal(got, net(InputGrid(0.25, 100, 0, 255).nearest(x)))


def test_dynamic_inputs_have_a_grid_a_sample_and_convolutions_none():
    net = toy.plain()
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    module = simulate(Package(net, plan=plan(net, "int8-dynamic")), {})
    assert torch.equal(module[0].weight, net[0].weight) and not torch.equal(module[6].weight, net[6].weight)
    many = module(torch.cat([x, 100 * x]))[:6]
    assert torch.allclose(many, module(x), atol=1e-6)  # what else is in the batch does not matter
    rows = torch.tensor([[-1.0, 0.3, 2.0], [0.0, 0.0, 0.0], [5.0, 6.0, 7.0]])
    assert torch.allclose(fake.by_sample(rows), rows, atol=7 / 255 / 2) and torch.equal(
        fake.by_sample(rows)[1], rows[1]
    )


def test_no_plan_is_an_exact_copy_and_a_plan_without_layers_is_refused():
    net = toy.plain().eval()
    x = torch.randn(3, 1, 8, 8)
    copy = simulate(Package(net), {})
    assert copy is not net and torch.equal(copy(x), net(x))
    with pytest.raises(InputError, match="no layers"):
        simulate(Package(net, plan=replace(plan(net), layers=None)), {})


@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic"])
def test_the_simulation_agrees_with_onnx_runtime(scheme, tmp_path):
    from featherweight.machine import saturates
    from featherweight.train.loop import fit

    task = toy.task(toy.plain, n=800)
    splits, net = task.splits(), task.build()
    fit(net, splits.train, lambda out, y, _: task.loss_fn(out, y), Settings(3, 3e-3, 16), seed=0)
    images = torch.from_numpy(np.concatenate([splits.train.batch(np.arange(len(splits.train)))[0]["image"]]))
    package = Package(net, plan=plan(net, scheme))
    target, calibration = Target("onnxruntime"), {"image": images[:64]}
    Onnxruntime().export(package, {"image": images[:1]}, calibration, target, tmp_path)
    session = Onnxruntime().load(tmp_path, target, 1)
    real = np.concatenate([session.run({"image": images[i : i + 1].numpy()}) for i in range(200)])
    ours = simulate(package, calibration, saturates())
    with torch.no_grad():
        simulated = ours(images[:200]).numpy()
    # ONNX Runtime rounds, and cuts, the last sums too, which the simulation leaves out
    if scheme == "int8-static":
        stored = {
            i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(str(tmp_path / "model.onnx")).graph.initializer
        }
        s, z = stored["output_scale"], stored["output_zero_point"].astype("float32")
        simulated = (np.clip(np.round(simulated / s) + z, 0, 255) - z) * s
        assert np.abs(simulated - real).max() < 2.5 * s and (np.abs(simulated - real) < 0.5 * s).mean() > 0.95
    exact = predict(net, splits.train)[:200]
    assert (simulated.argmax(1) == real.argmax(1)).mean() >= 0.97

    def noise_db(a):
        return 10 * np.log10((exact**2).sum() / ((a - exact) ** 2).sum())

    assert noise_db(simulated) == pytest.approx(noise_db(real), abs=1) and noise_db(simulated) > 25
