"""Both runtimes: what they export is what was asked for, computes what the module computes,
and refuses what is wrong."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from featherweight import machine
from featherweight.errors import InputError, TargetError
from featherweight.models.package import Package
from featherweight.targets import openvino
from featherweight.targets.base import Target
from tests.targets.nets import NETS, attention, cnn, plan
from tests.waiting import GENEROUS_S

HAS_OPENVINO = all(importlib.util.find_spec(p) for p in ("openvino", "nncf"))
RUNTIMES = [
    "onnxruntime",
    pytest.param("openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="needs openvino and nncf")),
]
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="needs openvino and nncf")


def export(text, net, folder, the_plan=None, calibrated=True):
    module, example, rows = net
    target = Target.parse(text)
    notes = target.load_runtime().export(
        Package(module, plan=the_plan), example, rows if calibrated else None, target, folder
    )
    return notes, target


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float_artifact_equals_the_module(runtime, name, tmp_path):
    net = NETS[name]()
    notes, target = export(runtime, net, tmp_path, calibrated=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(notes["files"])
    assert (
        notes["bytes"] == sum(p.stat().st_size for p in tmp_path.iterdir()) and notes["parity"]["max_abs_error"] < 1e-3
    )
    assert notes["parity"]["agreement"] == 1.0
    for batch in (1, 3):
        part = {k: v[:batch] for k, v in net[2].items()}
        with torch.no_grad():
            expected = net[0](*part.values()).numpy()
        session = target.load_runtime().load(tmp_path, target, batch)
        got = session.run({k: v.numpy() for k, v in part.items()})
        np.testing.assert_allclose(got, expected, atol=1e-4)
        kept = got.copy()
        session.run({k: np.zeros_like(v.numpy()) for k, v in part.items()})
        # an output is the caller's: the next run does not write into it
        np.testing.assert_array_equal(got, kept)


STATIC = [{}, {"granularity": "tensor", "calibrate": "percentile"}, {"activations": "s8"}, {"calibrate": "entropy"}]
STATIC_CASES = [("onnxruntime", c) for c in STATIC] + [
    pytest.param("openvino", c, marks=[needs_openvino, *([pytest.mark.slow] if "calibrate" in c else [])])
    for c in STATIC
]


@pytest.mark.parametrize(("runtime", "changes"), STATIC_CASES)
def test_static_int8_of_a_cnn(runtime, changes, tmp_path):
    (tmp_path / "float").mkdir()
    (tmp_path / "int8").mkdir()
    float_notes, _ = export(runtime, cnn(), tmp_path / "float")
    notes, _ = export(runtime, cnn(), tmp_path / "int8", plan(**changes))
    quantized = notes["coverage"]["quantized"]
    assert notes["bytes"] < float_notes["bytes"] and notes["quantization"]["calibration_samples"] == 32
    assert (
        notes["parity"]["sqnr_db"] > 25 and notes["parity"]["agreement"] > 0.9 and notes["parity"]["max_abs_error"] > 0
    )
    if changes.get("activations") != "s8":
        assert sum(n for op, n in quantized.items() if "Conv" in op) == 6


@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_of_attention(runtime, scheme, tmp_path):
    # 20 dB: a weight that a quantizer transposes under another reader leaves 7 dB
    notes, _ = export(runtime, attention(), tmp_path, plan(scheme))
    assert notes["parity"]["sqnr_db"] > 20 and notes["parity"]["agreement"] > 0.9
    assert sum(notes["coverage"]["quantized"].values()) >= 5


def weights_of(file):
    """{name of the quantized weight: (dequantized, scale)} of a QDQ file."""
    graph = onnx.load(file).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    out = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors and tensors[node.input[0]].dtype == np.int8:
            q, scale = tensors[node.input[0]].astype(np.float64), tensors[node.input[1]].astype(np.float64)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [-1 if i == axis else 1 for i in range(q.ndim)] if scale.ndim else [1] * q.ndim
            out[node.input[0]] = (q, scale, q * scale.reshape(shape))
    return out


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_weights_in_the_file_are_the_modules_rounded_to_the_grid(granularity, tmp_path):
    """Oracle: symmetric rounding, |w - q s| <= s / 2, q within 7 bits where the
    processor saturates."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 6)).eval()
    export(
        "onnxruntime",
        (module, {"x": torch.randn(1, 8)}, {"x": torch.randn(32, 8)}),
        tmp_path,
        plan(granularity=granularity),
    )
    ((q, scale, restored),) = weights_of(tmp_path / "model.onnx").values()
    w = module[0].weight.detach().numpy()
    restored = restored if restored.shape == w.shape else restored.T
    assert scale.size == (6 if granularity == "channel" else 1)
    assert np.abs(restored - w).max() <= scale.max() / 2 * 1.001
    assert np.abs(q).max() <= (64 if machine.saturates() else 127) and len(np.unique(q)) > 20


@pytest.mark.parametrize(
    ("runtime", "scheme"),
    [
        ("onnxruntime", "int8-static"),
        ("onnxruntime", "int8-dynamic"),
        pytest.param("openvino", "int8-dynamic", marks=needs_openvino),
        pytest.param("openvino", "int8-static", marks=[needs_openvino, pytest.mark.slow]),
    ],
)
def test_skipped_layers_stay_float(runtime, scheme, tmp_path):
    counts = []
    for skip in ((), ("encoder.layers.1", "head")):
        folder = tmp_path / str(len(skip))
        folder.mkdir()
        torch.manual_seed(1)
        module, example, rows = attention()
        for p in module.parameters():
            nn.init.normal_(p, std=0.1)
        counts.append(
            export(runtime, (module, example, rows), folder, plan(scheme, skip=skip))[0]["coverage"]["quantized"]
        )
    assert 0 < sum(counts[1].values()) < sum(counts[0].values())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_cannot_be_quantized_is_refused(runtime, tmp_path):
    with pytest.raises(TargetError, match="no_such_layer"):
        export(runtime, cnn(), tmp_path, plan(skip=("no_such_layer",)))
    with pytest.raises(TargetError, match="needs calibration"):
        export(runtime, cnn(), tmp_path, plan(), calibrated=False)
    bare = (nn.Flatten(), {"x": torch.randn(1, 2, 2)}, {"x": torch.randn(8, 2, 2)})
    with pytest.raises(TargetError, match="quantized nothing"):
        export(runtime, bare, tmp_path, plan("int8-dynamic"))


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "int4"},
        {"granularity": "row"},
        {"samples": 0},
        {"samples": True},
        {"calibrate": None},
        {"skip": "head"},
        {"activations": "u4"},
    ],
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_malformed_plan_is_a_problem(runtime, changes):
    target = Target(runtime=runtime)
    problem = target.load_runtime().problem(target, plan(**changes))
    assert problem is not None and next(iter(changes)) in problem
    assert target.load_runtime().problem(target, plan()) is None
    # as a plug-in might make it
    assert "featherweight.plan.Plan" in target.load_runtime().problem(target, plan().to_json())


def test_onnxruntime_refuses_what_it_does_not_have(tmp_path):
    runtime = Target().load_runtime()
    assert "bf16 is not supported on the CPU" in runtime.problem(Target(dtype="bf16"), None)
    assert "fp16 is not supported on the CPU" in runtime.problem(Target(dtype="fp16"), None)
    assert "tpu" in runtime.problem(Target(device="tpu"), None)
    with pytest.raises(TargetError, match="bf16"):
        Target.parse("onnxruntime:bf16").load_runtime()
    with pytest.raises(InputError):
        Target(dtype="int3")


@needs_openvino
def test_openvino_has_16_bit_only_where_the_processor_has_it(tmp_path, monkeypatch):
    runtime = openvino.Openvino()
    monkeypatch.setattr(openvino, "capabilities", lambda: ["FP32", "INT8"])
    assert "bf16" in runtime.problem(Target("openvino", dtype="bf16"), None) and "fp16" in runtime.problem(
        Target("openvino", dtype="fp16"), None
    )
    monkeypatch.setattr(openvino, "capabilities", lambda: ["FP32", "BF16"])
    assert runtime.problem(Target("openvino", dtype="bf16"), None) is None
    assert "cuda" in runtime.problem(Target("openvino", device="cuda"), None)
    assert "channel" in runtime.problem(Target("openvino"), plan("int8-dynamic", granularity="tensor"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    problem = openvino.Openvino().problem(Target("openvino"), None)
    assert problem == "openvino is not installed: pip install 'featherweight[openvino]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "openvino" else None)
    assert openvino.Openvino().problem(Target("openvino"), None) is None and "nncf" in openvino.Openvino().problem(
        Target("openvino"), plan()
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_wrong_inputs_and_files_are_refused(runtime, tmp_path):
    _, target = export(runtime, cnn(), tmp_path, calibrated=False)
    session = target.load_runtime().load(tmp_path, target, 1)
    x = np.zeros((1, 3, 16, 16), np.float32)
    for bad in ({"picture": x}, {"image": x[:, :2]}, {}, {"image": x[0]}):
        with pytest.raises(TargetError):
            session.run(bad)
    assert session.run({"image": x}).shape == (1, 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TargetError, match="artifact"):
        target.load_runtime().load(tmp_path / "empty", target, 1)
    for file in tmp_path.glob("model.*"):
        file.write_bytes(b"not a model")
    with pytest.raises(TargetError, match="cannot load"):
        target.load_runtime().load(tmp_path, target, 1)


def in_fresh_process(code, home):
    env = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=GENEROUS_S)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_loading_needs_no_torch_and_reports_nothing_home(runtime, tmp_path):
    _, target = export(runtime, cnn(), tmp_path, calibrated=False)
    home = tmp_path / "home"
    home.mkdir()
    done = in_fresh_process(
        f"""
import sys, numpy as np
from pathlib import Path
from featherweight.targets.base import Target
t = Target.parse({runtime!r})
t.load_runtime().load(Path({str(tmp_path)!r}), t, 2).run({{"image": np.zeros((2, 3, 16, 16), np.float32)}})
assert "torch" not in sys.modules, "torch was imported"
""",
        home,
    )
    assert done.returncode == 0, done.stderr
    # the telemetry of either runtime leaves a client id here as soon as it is on
    assert list(home.rglob("*")) == []


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_saturation_follows_the_flags(monkeypatch):
    assert "fpu" in machine.flags() or "asimd" in machine.flags()
    for flags, expected in (
        ({"avx", "avx2"}, True),
        ({"avx", "avx512_vnni"}, False),
        ({"avx2", "avx", "avx_vnni"}, False),
        ({"asimd"}, False),
    ):
        monkeypatch.setattr(machine, "flags", lambda flags=flags: frozenset(flags))
        assert machine.saturates() is expected
