"""ONNX Runtime: one file, model.onnx; int8 through onnxruntime.quantization."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TargetError
from . import _cpu, _onnx
from ._onnx import OUTPUT, export_onnx, skipped
from ._parity import as_numpy, check_float, check_rows, compare, reference, run_rows
from ._plan import check_plan, needs_calibration, nothing_quantized
from .base import Inputs, Runtime, Session, Target

if TYPE_CHECKING:
    import torch

    from ..models.package import Package

FILE = "model.onnx"
_QUANTIZED_OPS = {"QGemm", "QAttention", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger"}
_FREE_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Reshape",
    "Flatten",
    "Shape",
    "Gather",
    "Unsqueeze",
    "Squeeze",
    "Concat",
    "Transpose",
    "Cast",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Slice",
    "Identity",
    "Range",
    "ReorderInput",
    "ReorderOutput",
}


class Onnxruntime(Runtime):
    """The `onnxruntime` target: fp32 and int8 on the CPU, fp32 with CUDA where the installed build has it."""

    def problem(self, target: Target, plan: dict[str, Any] | None) -> str | None:
        if target.dtype != "fp32":
            return f"{target.dtype} is not supported on the CPU by ONNX Runtime: use fp32 or an int8 plan, or the openvino target"
        if target.device not in ("cpu", "cuda"):
            return f"onnxruntime runs on cpu or cuda, not on {target.device!r}"
        if target.device == "cuda" and "CUDAExecutionProvider" not in _onnx.onnxruntime().get_available_providers():
            return "this onnxruntime has no CUDAExecutionProvider: pip install onnxruntime-gpu on a machine with CUDA"
        if target.device == "cuda" and plan is not None:
            return "int8 plans run on the cpu with onnxruntime, not on cuda"
        return None if plan is None else check_plan(plan)

    def export(
        self, package: Package, example: dict[str, torch.Tensor], calibration: dict[str, torch.Tensor] | None, target: Target, folder: Path
    ) -> dict[str, Any]:
        plan, final = package.plan, folder / FILE
        if (problem := self.problem(target, plan)) is not None:
            raise TargetError(f"the target {target} cannot be used here", got=problem)
        with tempfile.TemporaryDirectory(prefix="featherweight-") as tmp:
            plain = Path(tmp) / "float.onnx"
            notes: dict[str, Any] = {"files": [FILE], **export_onnx(package.module, example, calibration, plain)}
            if plan is None:
                shutil.copyfile(plain, final)
            elif plan["scheme"] == "int8-dynamic":
                notes["quantization"] = _quantize_dynamic(plain, final, plan, Path(tmp))
            else:
                if calibration is None:
                    raise needs_calibration()
                notes["quantization"] = _quantize_static(plain, final, plan, calibration, Path(tmp))
        if plan is not None:
            notes["coverage"] = coverage(final)
        rows = check_rows(example, calibration)
        expected = reference(package.module, rows)
        got = run_rows(self.load(folder, target, target.batch), as_numpy(rows), target.batch)
        notes["parity"] = check_float(expected, got, "the ONNX Runtime artifact") if plan is None else compare(expected, got)
        return notes | {"bytes": final.stat().st_size}

    def load(self, folder: Path, target: Target, batch: int) -> Session:
        file = folder / FILE
        if not file.is_file():
            raise TargetError("this is no ONNX Runtime artifact", got=f"no {FILE} in {folder}")
        return _OrtSession(_session(file, target))


class _OrtSession(Session):
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Inputs) -> np.ndarray:
        try:
            return np.asarray(self._session.run([OUTPUT], inputs)[0])
        except Exception as e:  # ONNX Runtime's exceptions have no common base below Exception
            want = {i.name: f"{i.type} {i.shape}" for i in self._session.get_inputs()}
            got = {k: f"{v.dtype} {v.shape}" for k, v in inputs.items()}
            raise TargetError("ONNX Runtime refused these inputs", got=f"{got}: {e}", allowed=want) from e


def _session(file: Path, target: Target, optimized: Path | None = None) -> Any:
    ort = _onnx.onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads, options.inter_op_num_threads = target.threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads of an idle session would take the processor from the one that is measured beside it, and from whoever shares the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    provider = "CUDAExecutionProvider" if target.device == "cuda" else "CPUExecutionProvider"
    try:
        return ort.InferenceSession(str(file), options, providers=[provider])
    except Exception as e:
        raise TargetError("ONNX Runtime cannot load this artifact", got=f"{file}: {e}") from e


def _quantize_dynamic(plain: Path, final: Path, plan: dict[str, Any], tmp: Path) -> dict[str, Any]:
    """Only MatMul and Gemm: dynamic int8 convolutions make a CNN 3-5 times slower than fp32 on ONNX Runtime."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    reduce, prepared = _cpu.saturates(), tmp / "prepared.onnx"
    note = _prepare(plain, prepared)
    model = onnx.load(prepared)
    _unshare(model)
    onnx.save(model, prepared)
    exclude = skipped(model.graph, list(plan.get("skip", ())))
    with _quiet():
        quantize_dynamic(
            prepared,
            final,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=plan["granularity"] == "channel",
            reduce_range=reduce,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclude,
            extra_options={"MatMulConstBOnly": True},
        )
    ops = {n.op_type for n in onnx.load(final).graph.node}
    if not ops & {"MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLinear"}:
        raise nothing_quantized(plan["scheme"], sorted(ops), "use int8-static for convolutional models")
    return {"scheme": plan["scheme"], "weight_bits": 7 if reduce else 8, "activations": "u8", **note}


def _quantize_static(plain: Path, final: Path, plan: dict[str, Any], calibration: dict[str, torch.Tensor], tmp: Path) -> dict[str, Any]:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    prepared = tmp / "prepared.onnx"
    note = _prepare(plain, prepared)
    exclude = skipped(onnx.load(prepared).graph, list(plan.get("skip", ())))
    unsigned = plan["activations"] == "u8"
    reduce = _cpu.saturates()  # s8 activations too: the kernels shift them to u8
    attention = _has_attention(onnx.load(prepared).graph)
    method = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}[plan["calibrate"]]
    n = min(int(plan["samples"]), len(next(iter(calibration.values()))))
    rows = as_numpy({k: v[:n] for k, v in calibration.items()})
    extra: dict[str, Any] = {"ActivationSymmetric": not unsigned}
    if plan["calibrate"] != "minmax":
        extra["CalibStridedMinMax"] = 1  # histogram after histogram: otherwise every activation of every sample is held at once
    with _quiet():
        quantize_static(
            prepared,
            final,
            _reader(rows, 8),
            quant_format=QuantFormat.QDQ,
            per_channel=plan["granularity"] == "channel",
            reduce_range=reduce,
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclude,
            calibrate_method=method,
            extra_options=extra,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"] if attention else None,
        )
    ops = Counter(node.op_type for node in onnx.load(final).graph.node)
    if not ops["QuantizeLinear"] or not ops["DequantizeLinear"]:
        raise nothing_quantized(plan["scheme"], sorted(ops))
    return {
        "scheme": plan["scheme"],
        "weight_bits": 7 if reduce else 8,
        "activations": plan["activations"],
        "calibration_samples": n,
        "attention": attention,
        **note,
    }


def _has_attention(graph: Any) -> bool:
    """Is there a softmax inside? Masks are added before it, and no 8-bit grid holds both -inf (or -3e38) and the scores beside it, so
    in such a graph only matrix products and convolutions are quantized, no sums."""
    outputs = {o.name for o in graph.output}
    return any(node.op_type == "Softmax" and node.output[0] not in outputs for node in graph.node)


def _prepare(plain: Path, prepared: Path) -> dict[str, Any]:
    """Shape inference and folding before quantization; without symbolic shape inference, and with its reason, where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet():
        try:
            quant_pre_process(str(plain), str(prepared))
        except Exception as e:  # it asserts and raises all kinds on graphs with attention; plain ONNX inference is enough there
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            return {"symbolic_shapes": f"skipped: {type(e).__name__} {e}".strip()[:200]}
    return {"symbolic_shapes": "inferred"}


def _unshare(model: Any) -> None:
    """Give every Gemm that reads a shared weight its own copy. In place.

    quantize_dynamic turns Gemm into MatMul and transposes its weight in place, so every other reader of the same initializer would
    compute with the transposed one: with 1.31.1 a net with two equal layers fell from 38 dB to 7 dB.
    """
    uses = Counter(i for node in model.graph.node for i in node.input)
    weights = {w.name: w for w in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Gemm" and node.input[1] in weights and uses[node.input[1]] > 1:
            copy = type(weights[node.input[1]])()
            copy.CopyFrom(weights[node.input[1]])
            copy.name = f"{copy.name}_of_{number}"
            uses[node.input[1]] -= 1
            node.input[1] = copy.name
            model.graph.initializer.append(copy)


def _reader(rows: Inputs, chunk: int) -> Any:
    """A CalibrationDataReader over `rows`, `chunk` samples at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            n = len(next(iter(rows.values())))
            self.parts = [{k: v[i : i + chunk] for k, v in rows.items()} for i in range(0, n, chunk)]
            self.left = iter(self.parts)

        def __len__(self) -> int:
            return len(self.parts)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(self.parts[start_index:end_index])

        def get_next(self) -> Inputs | None:
            return next(self.left, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime.quantization logs to the root logger and prints progress; exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def coverage(file: Path) -> dict[str, dict[str, int]]:
    """{"quantized": {operator: count}, "float": {...}} of the graph that ONNX Runtime runs here, after its own fusions."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="featherweight-") as tmp:
        optimized = Path(tmp) / "optimized.onnx"
        _session(file, Target(), optimized)
        ops = Counter(n.op_type for n in onnx.load(optimized).graph.node if n.op_type not in _FREE_OPS)
    quantized = {op: n for op, n in sorted(ops.items()) if op.startswith("QLinear") or op in _QUANTIZED_OPS}
    return {"quantized": quantized, "float": {op: n for op, n in sorted(ops.items()) if op not in quantized}}
