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
from featherweight.models.coupling import couple
from featherweight.task.accept import task_of
from featherweight.task.accept._onnx import onnx_of
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


class Words(nn.Module):
    """A transformer of series, whose Linear layers exporters write as products with matrices."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 16), nn.Linear(16, 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


@pytest.mark.parametrize("dynamo", [False, True])
def test_linear_layers_are_those_of_a_transformer_again(tmp_path, dynamo):
    """Operator set 20, by both exporters."""
    torch.manual_seed(0)
    net, x = Words().eval(), torch.randn(5, 7, 3)
    axes = {"dynamic_shapes": ({0: "n"},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    path = tmp_path / "words.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters' own
        torch.onnx.export(
            net, (x,), str(path), dynamo=dynamo, input_names=["x"], opset_version=20, verbose=False, **axes
        )
    module = onnx_of(path).module
    linears = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    own = [net.embed, net.head, net.layer.linear1, net.layer.linear2, net.layer.self_attn.out_proj]
    # the projection of queries, keys and values has no module of its own in PyTorch
    sizes = [m.weight.numel() for m in own] + [net.layer.self_attn.in_proj_weight.numel()]
    assert sorted(m.weight.numel() for m in linears.values()) == sorted(sizes)
    assert sum(m.bias is not None for m in linears.values()) >= len(sizes) - 1  # one of them is all zero
    for rows in (x, x[:1], torch.randn(9, 7, 3)):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the converter's own modules
            torch.testing.assert_close(module(rows), net(rows), atol=1e-5, rtol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the module's own code
        groups = couple(module, (x,)).groups
    assert [g.channels for g in groups] == [32], "what is between the two layers can be cut"


@pytest.mark.parametrize("name", ["mean", "split", "gelu", "shape"])
def test_newer_operators_compute_what_they_did(tmp_path, name):
    class Net(nn.Module):
        def forward(self, x):
            if name == "mean":
                return x.mean((2, 3)) + x.amax((2, 3))
            if name == "split":
                a, b = x.flatten(1).chunk(2, 1)
                return a * b
            return nn.functional.gelu(x, approximate="tanh").flatten(1) if name == "gelu" else x.reshape(len(x), -1)

    net, path, x = Net(), tmp_path / "net.onnx", torch.randn(3, 2, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        torch.onnx.export(
            net, (x,), str(path), input_names=["x"], opset_version=20, dynamic_shapes=({0: "n"},), verbose=False
        )
    torch.testing.assert_close(onnx_of(path).module(x), net(x), atol=1e-5, rtol=1e-4)


def made(path, nodes, weights, x=("x", "float32", ["n", 6]), y=["n", 3]):  # noqa: B006
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    kind = h.np_dtype_to_tensor_dtype(np.dtype(x[1]))
    graph = h.make_graph(
        [h.make_node(op, i, [o]) for op, i, o in nodes],
        "g",
        [h.make_tensor_value_info(x[0], kind, x[2])],
        [h.make_tensor_value_info("y", kind, y)],
        [onnx.numpy_helper.from_array(v, n) for n, v in weights.items()],
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return path


ROWS6 = np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32)
V = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)


def test_a_file_of_the_default_exporter_that_flattens(tmp_path):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Net().eval(), (torch.from_numpy(X[:1]),), str(tmp_path / "d.onnx"), verbose=False)
    task = task_of(str(tmp_path / "d.onnx"), (X, np.arange(60) % 4))
    torch.manual_seed(0)
    with torch.no_grad():
        want = Net().eval()(torch.from_numpy(X))
        assert torch.allclose(task.build()(torch.from_numpy(X)), want, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True], ids=["of a parameter", "and of an input, with one shape"])
def test_only_reshapes_of_an_input_are_freed(tmp_path, shared):
    b = np.arange(6, dtype=np.float32)
    nodes = [("Reshape", ["b", "to"], "row"), ("Add", ["x", "row"], "a")]
    nodes += [("Reshape", ["a", "to"], "c")] if shared else [("Identity", ["a"], "c")]
    path = made(
        tmp_path / "m.onnx",
        [*nodes, ("MatMul", ["c", "V"], "y")],
        {"b": b, "to": np.array([1, 6]), "V": V},
        ("x", "float32", [1, 6]),
        [1, 3],
    )
    module = task_of(str(path), (ROWS6, np.arange(60) % 3)).build()
    with torch.no_grad():
        assert np.allclose(module(torch.from_numpy(ROWS6)).numpy(), (ROWS6 + b) @ V, atol=1e-4)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_file_in_float16_becomes_one_in_float32(tmp_path, kind):
    path = made(
        tmp_path / "h.onnx", [("MatMul", ["x", "V"], "y")], {"V": V.astype(np.float16)}, ("x", "float16", ["n", 6])
    )
    module = task_of(str(path), (ROWS6.astype(kind), np.arange(60) % 3)).build()
    with torch.no_grad():
        found = module(torch.from_numpy(ROWS6))
    assert found.dtype == torch.float32 and np.allclose(found.numpy(), ROWS6 @ V, atol=0.02)
