"""Recurrent layers under int8-dynamic: an LSTM computes with integers, what cannot is named."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.engine.export import write_artifact
from featherweight.graphs.recurrent import coded
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.task.accept import task_of
from featherweight.transforms.base import Context

TARGET = Target.parse("onnxruntime")


class Forecast(nn.Module):
    def __init__(self, cell, layers=1, both=False):
        super().__init__()
        self.rnn = cell(4, 48, num_layers=layers, batch_first=True, bidirectional=both)
        self.out = nn.Linear(48 * (1 + both), 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def exported(tmp_path, net, *steps, target=TARGET):
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(120, 16, 4)).astype(np.float32)
    task = task_of(net, (x, x[:, :, 0].mean(1)))
    package = Package(task.build())
    context = Context(
        task, task.splits(), 0, teacher=lambda r: package, teacher_outputs=lambda r: None, report=lambda _: None
    )
    for step in steps:
        package = step.apply(package, context)
    tmp_path.mkdir(exist_ok=True)
    write_artifact(task, package, target, fw.Recipe(*steps), tmp_path)
    with torch.no_grad():
        expected = task.build()(torch.from_numpy(x[:20])).numpy()
    session = target.load_runtime().load(tmp_path, target, 1)
    got = np.concatenate([session.run({"x": x[i : i + 1]}) for i in range(20)])
    error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    weights = tmp_path / ("model.bin" if target.runtime == "openvino" else "model.onnx")
    return weights.stat().st_size, error, onnx.load(weights) if weights.suffix == ".onnx" else None, tmp_path


def ops(model):
    return {n.op_type for n in model.graph.node}


@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
def test_an_lstm_is_a_third_as_large_and_computes_the_same(tmp_path, layers, both):
    net = Forecast(nn.LSTM, layers, both)
    whole, error, _, _ = exported(tmp_path / "float", net)
    assert error < 1e-4
    small, error, model, folder = exported(tmp_path / "int8", net, fw.Quantize(scheme="int8-dynamic"))
    assert "DynamicQuantizeLSTM" in ops(model) and "LSTM" not in ops(model)
    assert small < 0.45 * whole and error < 0.05
    from featherweight.plain import read_json

    coverage = read_json(folder / "manifest.json")["export"]["coverage"]
    assert coverage["layers"]["rnn"].startswith("int8") and "DynamicQuantizeLSTM" in coverage["quantized"]


def layers(folder):
    from featherweight.plain import read_json

    return read_json(folder / "manifest.json")["export"]["coverage"]["layers"]


@pytest.mark.parametrize("cell", [nn.GRU, nn.RNN])
def test_what_has_no_integer_form_is_stored_small(tmp_path, cell):
    net = Forecast(cell, 2, True)
    whole, _, _, _ = exported(tmp_path / "float", net)
    small, error, model, folder = exported(tmp_path / "int8", net, fw.Quantize(scheme="int8-dynamic"))
    assert ops(model) & {"GRU", "RNN"} and small < 0.45 * whole and error < 0.1
    said = layers(folder)
    assert said["rnn"] == "int8, stored (unpacked when loaded), float arithmetic" and "float" not in said["out"]


@pytest.mark.parametrize(("bits", "share", "most"), [(8, 0.45, 0.05), (16, 0.65, 0.01), (4, 0.45, 0.2)])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_weights_alone_are_stored_small(tmp_path, cell, runtime, bits, share, most):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    net, target = Forecast(cell, 2, True), Target.parse(runtime)
    whole = exported(tmp_path / "float", net, target=target)[0]
    step = fw.Quantize(scheme="weight-only", bits=bits)
    small, error, _, folder = exported(tmp_path / "small", net, step, target=target)
    assert small < share * whole and error < most
    kind = "float16" if bits == 16 else "int8"
    assert layers(folder)["rnn"] == f"{kind}, stored (unpacked when loaded), float arithmetic"


def test_static_plans_store_them_small_too(tmp_path):
    whole = exported(tmp_path / "float", Forecast(nn.LSTM))[0]
    small, error, _, folder = exported(tmp_path / "small", Forecast(nn.LSTM), fw.Quantize())
    assert small < 0.5 * whole and error < 0.1
    assert layers(folder)["rnn"].startswith("int8, stored")


def test_static_plans_on_openvino_name_them(tmp_path):
    pytest.importorskip("nncf")
    target = Target.parse("openvino")
    _, error, _, folder = exported(tmp_path / "small", Forecast(nn.LSTM), fw.Quantize(), target=target)
    assert layers(folder)["rnn"] == "float (OpenVINO has no integer form of it): 99% of the weights" and error < 0.1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_is_left_out_is_named_with_its_share(tmp_path, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    net = Forecast(nn.GRU)
    step = fw.Quantize(scheme="weight-only", skip=("rnn",))
    _, error, _, folder = exported(tmp_path / "small", net, step, target=Target.parse(runtime))
    assert layers(folder)["rnn"].endswith("has no integer form of it): 99% of the weights") and error < 0.05


def test_codes_are_the_nearest_of_each_row():
    w = np.array([[[1.27, -0.635, 0.0], [0.0, 0.0, 0.0]]], np.float32)
    codes, scale = coded(w, 8)
    assert codes.tolist() == [[[127, -64, 0], [0, 0, 0]]] and scale.dtype == np.float32
    assert np.abs(codes * scale - w).max() <= scale.max() / 2 + 1e-7
    half, none = coded(w * 1e6, 16)
    assert half.dtype == np.float16 and none is None and np.isfinite(half).all()


def test_what_is_skipped_stays(tmp_path):
    step = fw.Quantize(scheme="int8-dynamic", skip=("rnn",))
    _, _, model, _ = exported(tmp_path / "int8", Forecast(nn.LSTM), step)
    assert "LSTM" in ops(model) and "DynamicQuantizeLSTM" not in ops(model)


def test_mixed_precision_leaves_what_it_has_not_weighed(tmp_path):
    step = fw.MixedPrecision(scheme="int8-dynamic", save=0.5)
    _, _, model, _ = exported(tmp_path / "int8", Forecast(nn.LSTM), step)
    assert "LSTM" in ops(model)
