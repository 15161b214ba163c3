"""ONNX files as models."""

import importlib.util
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from featherweight.cli import app
from featherweight.engine.carried import carried, loaded
from featherweight.errors import TaskError
from featherweight.task.accept import task_of
from featherweight.task.kinds import make_task
from featherweight.task.load import load_task

# looked for, not imported: that takes a torchvision, or what we do without one
pytestmark = pytest.mark.skipif(importlib.util.find_spec("onnx2torch") is None, reason="onnx2torch is not installed")
X = np.random.default_rng(0).normal(size=(60, 1, 8, 8)).astype(np.float32)


class Net(nn.Module):
    """Two outputs, and a reshape that an exporter writes with the batch that it saw."""

    def __init__(self, both=False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2))
        self.out, self.both = nn.Linear(128, 4), both

    def forward(self, image):
        hidden = self.features(image).reshape(image.shape[0], -1)
        return (self.out(hidden), hidden) if self.both else self.out(hidden)


def written(path, net=None, rows=1, free=False, outputs=("logits",), inputs=("image",)):
    torch.manual_seed(0)
    net = (net or Net()).eval()
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            tuple(torch.from_numpy(X[:rows]) for _ in inputs),
            str(path),
            dynamo=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=17,
        )
    return net, path


@pytest.mark.parametrize("free", [False, True], ids=["for one sample", "free batch"])
def test_the_module_computes_what_the_file_does(tmp_path, free):
    net, path = written(tmp_path / "net.onnx", free=free)
    task = task_of(path, X)
    built = task.build()
    with torch.no_grad():
        expected = net(torch.from_numpy(X))
        assert torch.allclose(built(torch.from_numpy(X)), expected, atol=1e-5)
    assert list(task.example()) == ["image"] and task.metric == "agreement" and task.name == "net"
    kinds = {type(m) for m in built.modules()}
    assert {nn.Conv2d, nn.Linear} <= kinds  # what can be cut and quantized
    assert all(part.isidentifier() for name, _ in built.named_modules() if name for part in name.split("."))


def test_an_output_is_named(tmp_path):
    net, path = written(tmp_path / "net.onnx", Net(both=True), free=True, outputs=("logits", "hidden"))
    with pytest.raises(TaskError, match="several tensors"):
        task_of(path, X)
    for output, width in (("hidden", 128), ("logits", 4), (1, 128)):
        assert task_of(path, X, output=output).build()(torch.from_numpy(X[:2])).shape == (2, width)


def test_labels_go_with_it(tmp_path):
    _, path = written(tmp_path / "net.onnx")
    task = task_of(path, (X, np.arange(60) % 4))
    assert (task.loss, task.metric) == ("cross_entropy", "accuracy")


def test_it_travels_by_its_path(tmp_path):
    _, path = written(tmp_path / "net.onnx")
    task = task_of(path, X)
    with carried(task) as reference:
        from pathlib import Path

        again = loaded(Path(reference["carried"]))
        sent = [p.read_bytes() for p in Path(reference["carried"]).rglob("*") if p.is_file()]
    # which a worker could not load before it has converted the file itself
    assert sent and not any(b"onnx2torch" in one for one in sent)
    assert again.fingerprint == task.fingerprint
    before = task.fingerprint
    written(tmp_path / "net.onnx", nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    assert task_of(path, X).fingerprint != before


def test_no_torchvision_is_left_behind(tmp_path):
    task_of(written(tmp_path / "net.onnx")[1], X)
    assert "torchvision" not in sys.modules or getattr(sys.modules["torchvision"], "__file__", None)


def test_a_file_that_is_converted_wrongly_is_refused(tmp_path, monkeypatch):
    from featherweight.task.accept import _onnx

    _, path = written(tmp_path / "net.onnx")
    convert = _onnx._converter()

    def wrong(model):
        module = convert(model)
        with torch.no_grad():
            next(m for m in module.modules() if isinstance(m, nn.Linear)).bias += 1
        return module

    monkeypatch.setattr(_onnx, "_converter", lambda: wrong)
    with pytest.raises(TaskError, match="computes something else than the file"):
        task_of(path, X)


def test_files_that_cannot_be_models(tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    with pytest.raises(TaskError, match="cannot be read"):
        task_of(tmp_path / "bad.onnx", X)
    with pytest.raises(TaskError, match="no such file"):
        task_of(tmp_path / "gone.onnx", X)
    _, path = written(
        tmp_path / "net.onnx", nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    )
    quantize_dynamic(path, tmp_path / "int8.onnx")
    with pytest.raises(TaskError, match="PyTorch has no form"):
        task_of(tmp_path / "int8.onnx", X)
    with pytest.raises(TaskError, match="does not take these inputs"):
        task_of(path, X[:, :, :4])


def test_on_the_command_line(tmp_path):
    _, path = written(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", image=X, labels=np.arange(60) % 4)

    def call(*words):
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["optimize", *map(str, words), "--dry-run"])

    run = call(path, "--data", tmp_path / "d.npz", "--minutes", 5)
    assert run.exit_code == 0 and "Predicted" in run.stdout, run.stderr
    assert "needs data" in call(path).stderr
    assert call(path, "--data", tmp_path / "gone.npz").exit_code == 2
    task = make_task("model-file", model=path, data=tmp_path / "d.npz", epochs=2)
    assert load_task(task.ref).fingerprint == task.fingerprint and task.baseline.steps[0].epochs == 2
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))\n"
    )
    task = make_task("model-file", model=f"{tmp_path / 'nets.py'}:net", data=tmp_path / "d.npz", epochs=1)
    assert load_task(task.ref).fingerprint == task.fingerprint
    with pytest.raises(TaskError, match="no model file"):
        make_task("model-file", model=tmp_path / "d.npz", data=tmp_path / "d.npz")


HOSTILE = 'x")) or open("RAN", "w") or (("'


@pytest.mark.parametrize("what", ["node", "value", "input", "output", "weight"])
def test_no_name_in_a_file_becomes_code(tmp_path, monkeypatch, what):
    import onnx

    monkeypatch.chdir(tmp_path)
    net, path = written(tmp_path / "net.onnx", free=True)
    model = onnx.load(path)
    graph = model.graph
    old = {
        "node": "",
        "value": graph.node[1].output[0],
        "input": "image",
        "output": "logits",
        "weight": next(t.name for t in graph.initializer if "out" in t.name),
    }[what]
    for i, node in enumerate(graph.node):
        if what == "node":
            node.name = f"{HOSTILE}{i}"
        for part in (node.input, node.output):
            part[:] = [HOSTILE if name == old and old else name for name in part]
    for v in (*graph.input, *graph.output, *graph.initializer):
        v.name = HOSTILE if v.name == old else v.name
    onnx.save(model, path)
    built = task_of(path, X).build()
    with torch.no_grad():
        assert torch.allclose(built(torch.from_numpy(X)), net(torch.from_numpy(X)), atol=1e-5)
    assert not (tmp_path / "RAN").exists()
    assert all(part.isidentifier() for name, _ in built.named_modules() if name for part in name.split("."))
