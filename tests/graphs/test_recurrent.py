"""Recurrent layers under int8-dynamic: an LSTM computes with integers, what cannot is named."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.engine.export import write_artifact
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


def exported(tmp_path, net, *steps):
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
    write_artifact(task, package, TARGET, fw.Recipe(*steps), tmp_path)
    with torch.no_grad():
        expected = task.build()(torch.from_numpy(x[:20])).numpy()
    got = np.concatenate([TARGET.load_runtime().load(tmp_path, TARGET, 1).run({"x": x[i : i + 1]}) for i in range(20)])
    error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    return (tmp_path / "model.onnx").stat().st_size, error, onnx.load(tmp_path / "model.onnx"), tmp_path


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


def test_a_gru_stays_and_is_named(tmp_path):
    from featherweight.plain import read_json

    _, error, model, folder = exported(tmp_path / "int8", Forecast(nn.GRU), fw.Quantize(scheme="int8-dynamic"))
    assert "GRU" in ops(model) and error < 0.05
    said = read_json(folder / "manifest.json")["export"]["coverage"]["layers"]
    assert said["rnn"] == "float (ONNX Runtime has no integer form of it)" and "float" not in said["out"]


def test_what_is_skipped_stays(tmp_path):
    step = fw.Quantize(scheme="int8-dynamic", skip=("rnn",))
    _, _, model, _ = exported(tmp_path / "int8", Forecast(nn.LSTM), step)
    assert "LSTM" in ops(model) and "DynamicQuantizeLSTM" not in ops(model)


def test_mixed_precision_leaves_what_it_has_not_weighed(tmp_path):
    step = fw.MixedPrecision(scheme="int8-dynamic", save=0.5)
    _, _, model, _ = exported(tmp_path / "int8", Forecast(nn.LSTM), step)
    assert "LSTM" in ops(model)
