"""int8-static on ONNX Runtime against its own tool called directly,
and the least-error ranges against brute force."""

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from featherweight import machine
from featherweight.graphs.export import export_onnx, onnxruntime
from featherweight.graphs.ranges import least_error_range
from featherweight.models.package import Package
from featherweight.plan import LayerPlan
from featherweight.targets.base import Target
from tests import toy
from tests.targets.nets import cnn, plan


class Rows(CalibrationDataReader):
    def __init__(self, x):
        self.left = iter(np.split(x, len(x) // 8))

    def get_next(self):
        x = next(self.left, None)
        return None if x is None else {"image": x}


def trained():
    torch.manual_seed(0)
    net, data = toy.residual(), toy.images(160)
    x, y = torch.from_numpy(data.inputs["image"]), torch.from_numpy(np.asarray(data.targets))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(40):
        part = slice(32 * (step % 5), 32 * (step % 5) + 32)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[part]), y[part]).backward()
        optimizer.step()
    return net.eval(), {"image": x[:1]}, {"image": x}


def test_static_agrees_with_the_tool_called_directly(tmp_path):
    """The same settings: argmax equal on 99.8 % of 1,000 samples that neither saw."""
    net, example, rows = trained()
    (tmp_path / "ours").mkdir()
    layers = {path: LayerPlan(8) for path, m in net.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
    notes = (
        Target()
        .load_runtime()
        .export(Package(net, plan=plan(samples=64, layers=layers)), example, rows, Target(), tmp_path / "ours")
    )
    assert set(notes["coverage"]["layers"].values()) == {"int8"}
    export_onnx(net, example, rows, tmp_path / "float.onnx")
    quant_pre_process(str(tmp_path / "float.onnx"), str(tmp_path / "prepared.onnx"))
    quantize_static(
        tmp_path / "prepared.onnx",
        tmp_path / "direct.onnx",
        Rows(rows["image"][:64].numpy()),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=machine.saturates(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": False},
    )
    x = toy.images(1000, seed=1).inputs["image"]
    run = onnxruntime().InferenceSession(str(tmp_path / "direct.onnx"), providers=["CPUExecutionProvider"]).run
    direct = run(None, {"image": x})[0].argmax(1)
    ours = Target().load_runtime().load(tmp_path / "ours", Target(), 1000).run({"image": x}).argmax(1)
    assert (ours == direct).mean() >= 0.998 and len(set(direct)) == 4


def error(x, a, b, levels):
    s = (b - a) / (levels - 1)
    z = np.rint(-a / s)
    return float(((x - (np.clip(np.rint(x / s) + z, 0, levels - 1) - z) * s) ** 2).sum())


@pytest.mark.parametrize("levels", [16, 256])
@pytest.mark.parametrize(("kind", "symmetric"), [("normal", True), ("normal", False), ("relu", False), ("tail", False)])
def test_least_error_range_is_the_brute_force_one(kind, symmetric, levels):
    rng = np.random.default_rng(0)
    x = {
        "normal": rng.normal(0, 1, 20000),
        "relu": np.maximum(rng.normal(0, 1, 20000), 0),
        "tail": rng.standard_t(3, 20000),
    }[kind]
    counts, edges = np.histogram(x, 2048)
    a, b = least_error_range(counts, edges[0], edges[-1], symmetric, levels)
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    shares = np.linspace(0.05, 1, 60)
    if symmetric:
        end = max(-low, high)
        best = min(error(x, -end * p, end * p, levels - 1) for p in shares)
        assert a == -b
    else:
        best = min(error(x, low * p, high * q, levels) for p in (shares if low < 0 else [1.0]) for q in shares)
    n = levels - 1 if symmetric else levels
    assert low - 1e-9 <= a or symmetric
    assert error(x, a, b, n) <= 1.03 * best
    if kind == "tail" and levels == 16:
        # min-max spends its levels on the outliers
        assert error(x, a, b, n) < 0.5 * error(x, low, high, n)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 0.0), (2.0, 3.0)])
def test_least_error_range_holds_zero(low, high):
    counts = np.zeros(2048, np.int64)
    counts[1000] = 5
    a, b = least_error_range(counts, low, high, False)
    assert a <= 0 <= b and low <= b and a <= high


@pytest.mark.parametrize("activations", ["u8", "s8"])
def test_mse_calibration_clips_what_minmax_keeps(activations, tmp_path):
    """One outlier in the calibration rows: the input's step in the file is that of the least-error
    range of its 32 rows."""
    module, example, rows = cnn()
    rows["image"][0, 0, 0, 0] = 60.0
    steps, notes = {}, {}
    for how in ("minmax", "mse"):
        (tmp_path / how).mkdir()
        notes[how] = (
            Target()
            .load_runtime()
            .export(
                Package(module, plan=plan(calibrate=how, activations=activations)),
                example,
                rows,
                Target(),
                tmp_path / how,
            )
        )
        graph = onnx.load(tmp_path / how / "model.onnx").graph
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        steps[how] = next(
            float(tensors[n.input[1]]) for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "image"
        )
    x = rows["image"][:32].numpy()
    a, b = least_error_range(np.histogram(x, 2048)[0], float(x.min()), float(x.max()), activations == "s8")
    assert (
        steps["mse"] == pytest.approx((b - a) / (255 if activations == "u8" else 254), rel=0.005)
        and steps["mse"] < 0.97 * steps["minmax"]
    )
    assert notes["mse"]["quantization"]["calibration_samples"] == 32 and notes["mse"]["parity"]["max_abs_error"] > 0
