"""OpenVINO itself: imported without telemetry, and a compiled model that is asked."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TargetError
from ...graphs.session import Inputs, Session
from ..base import Target

FILE, WEIGHTS = "model.xml", "model.bin"
DYNAMIC = 32  # activations that share a scale in int8-dynamic
# rt_info of the file: how `load` must run it
GROUP = ["featherweight", "dynamic_quantization_group_size"]
PRECISION = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_FREE_LAYERS = {
    "Input",
    "Output",
    "Const",
    "Convert",
    "Reorder",
    "Reshape",
    "FakeQuantize",
    "Transpose",
    "Concatenation",
    "Split",
    "ShapeOf",
    "Gather",
    "Broadcast",
}  # they move or convert data, or are fused
_INTEGERS = ("i8", "u8", "i4", "u4")


class OpenvinoSession(Session):
    """A compiled model with all shapes fixed, and one request."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._output = compiled.output(0)
        self._shapes = {port.get_any_name(): tuple(port.shape) for port in compiled.inputs}

    def run(self, inputs: Inputs) -> np.ndarray:
        got = {k: v.shape for k, v in inputs.items()}
        if got != self._shapes:  # OpenVINO would take some wrong shapes and read past what is meant
            raise TargetError("OpenVINO was compiled for other inputs", got=got, allowed=self._shapes)
        try:
            return np.asarray(self._request.infer(inputs, share_inputs=True)[self._output])
        except (RuntimeError, TypeError, ValueError) as e:
            raise TargetError(
                "OpenVINO refused these inputs", got=f"{ {k: str(v.dtype) for k, v in inputs.items()} }: {e}"
            ) from e

    def coverage(self) -> dict[str, Any]:
        """{"quantized": {layer type: count}, "float": {...}} of the layers as they are run
        here, after fusion."""
        quantized: Counter[str] = Counter()
        plain: Counter[str] = Counter()
        for kind, precision, _ in self._layers():
            (quantized if precision in _INTEGERS else plain)[kind] += 1
        return {"quantized": dict(sorted(quantized.items())), "float": dict(sorted(plain.items()))}

    def computed(self, node: str) -> str:
        """How the layer that stems from an ONNX node is run."""
        found = [
            precision
            for _, precision, names in self._layers()
            if any(n == node or n.startswith(f"{node}/") for n in names)
        ]
        return (
            "int8"
            if any(p in _INTEGERS for p in found)
            else "float (OpenVINO runs it so: " + (found[0] if found else "fused into another") + ")"
        )

    def _layers(self) -> Iterator[tuple[str, str, list[str]]]:
        """(type, precision, names of the operators that it stems from) of every computing layer."""
        for op in self._compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            kind, precision = str(info["layerType"].value), str(info["runtimePrecision"].value).lower()
            if kind not in _FREE_LAYERS:
                yield kind, precision, str(info["originalLayersNames"].value).split(",")


def openvino_module() -> Any:
    """The openvino module, imported so that it cannot report usage.

    openvino and nncf send telemetry through the package openvino_telemetry, on unless a file in the
    home directory says no, and go without it if it cannot be imported. Making it unimportable in
    this process writes no file and opens no connection.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as e:
        raise TargetError("openvino cannot be imported", got=str(e), fix="pip install 'featherweight[openvino]'") from e
    return openvino


def nncf_module() -> Any:
    """The nncf module, quiet and without telemetry (see `openvino_module`)."""
    openvino_module()
    if "nncf" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf


def capabilities() -> list[str]:
    return [str(c) for c in openvino_module().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")]


def from_onnx(file: Path) -> Any:
    """An ONNX file as a model of OpenVINO's. TargetError if it has no form for it."""
    ov = openvino_module()
    try:
        return ov.convert_model(str(file))
    except Exception as e:  # of types that OpenVINO's frontends make up
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        raise TargetError(
            "OpenVINO cannot convert this model",
            got="; ".join(lines[-3:])[:400],
            fix="use the onnxruntime target, or other operators in the model",
        ) from e


def load(folder: Path, target: Target, batch: int) -> OpenvinoSession:
    for name in (FILE, WEIGHTS):
        if not (folder / name).is_file():
            raise TargetError("this is no OpenVINO artifact", got=f"no {name} in {folder}")
    ov = openvino_module()
    core = ov.Core()
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISION[target.dtype],
        "INFERENCE_NUM_THREADS": target.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of two processes would meet on the same core while another idles.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = core.read_model(str(folder / FILE))
        model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
        # Always set: left alone, the runtime would quantize the activations of a compressed
        # model as it likes.
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = (
            int(model.get_rt_info(GROUP).astype(int)) if model.has_rt_info(GROUP) else 0
        )
        return OpenvinoSession(core.compile_model(model, "CPU", config))
    except RuntimeError as e:
        raise TargetError("OpenVINO cannot load this artifact", got=f"{folder}: {e}") from e
