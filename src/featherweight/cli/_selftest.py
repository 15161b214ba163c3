"""A two-second test of one runtime, in a process of its own:
`python -m featherweight.cli._selftest onnxruntime`.

A tiny model (y = relu(x w)) is made, run, and compared with numpy; the last line printed is JSON.
A runtime that is broken may kill its process, which is why `doctor` never loads one itself.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..seeding import generator

SECONDS = 1.0
SIZE = 64


def main(name: str) -> int:
    """Test the runtime `name` and print {"ok", "version", "median_us", "error"}."""
    rng = generator(0, "selftest")
    w = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    x = rng.standard_normal((1, SIZE)).astype(np.float32)
    try:
        version, run = torch_runtime(w) if name == "torch" else artifact_runtime(name, w)
        error = float(np.abs(run(x) - np.maximum(x @ w, 0)).max())
        times = _times(lambda: run(x))
        result: dict[str, Any] = {
            "ok": error < 1e-2,
            "version": version,
            "median_us": 1e6 * statistics.median(times),
            "error": f"max error {error:.2g}",
        }
    except Exception as e:  # whatever a broken installation raises is the finding
        result = {"ok": False, "version": None, "median_us": None, "error": f"{type(e).__name__}: {e}"}
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    return 0 if result["ok"] else 1


def _times(run: Callable[[], Any]) -> list[float]:
    out, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        out.append(time.perf_counter() - start)
    return out


def torch_runtime(w: np.ndarray) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """(version, function) for PyTorch itself."""
    import torch

    weight = torch.from_numpy(w)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.relu(torch.from_numpy(x) @ weight).numpy()

    return str(torch.__version__), run


def artifact_runtime(name: str, w: np.ndarray) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """(version, function) for a target's runtime, given an ONNX file made here."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "selftest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZE])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory(prefix="featherweight-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        return _openvino(path) if name == "openvino" else _onnxruntime(path)


def _onnxruntime(path: Path) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return str(ort.__version__), lambda x: session.run(None, {"x": x})[0]


def _openvino(path: Path) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(str(path)),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1},
    )
    return str(ov.__version__), lambda x: compiled({"x": x})[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
