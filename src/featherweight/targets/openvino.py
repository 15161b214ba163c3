"""OpenVINO: model.xml + model.bin, converted from the ONNX file.

Plans: int8-static is NNCF's post-training quantization (u8: asymmetric activations, preset MIXED; s8: symmetric, preset PERFORMANCE), or, where the
plan brings grids of its own, the QDQ graph that is made for ONNX Runtime. weight-only puts the codes into the ONNX graph (`_ort_weights`), which
OpenVINO keeps compressed; int8-dynamic does so with 8 bits per channel and lets the runtime quantize activations in groups where the processor can.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TargetError
from . import _cpu
from ._onnx import export_onnx, skipped
from ._ort_coverage import layer_report
from ._ort_graph import Setting, Site, resolve_identities, sites, unshare, wanted
from ._ort_static import quantize_static
from ._ort_weights import HALF, raised, shrink, shrink_graph
from ._parity import as_numpy, check_float, check_rows, compare, meant, reference, run_rows
from ._plan import check_plan, integer_problem, needs_calibration, nothing_quantized
from .base import Inputs, Runtime, Session, Target

if TYPE_CHECKING:
    import torch

    from ..models.package import Package

FILE, WEIGHTS = "model.xml", "model.bin"
_DYNAMIC = 32  # activations that share a scale in int8-dynamic
_GROUP = ["featherweight", "dynamic_quantization_group_size"]  # rt_info of the file: how `load` must run it
_PRECISION = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
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


class Openvino(Runtime):
    """The `openvino` target on the CPU: fp32, bf16 and fp16 where the processor has them, int8 plans."""

    def problem(self, target: Target, plan: dict[str, Any] | None) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed: pip install 'featherweight[openvino]'"
        if target.device != "cpu":
            return f"the openvino target runs on cpu, not on {target.device!r}"
        needed = {"fp32": None, "bf16": "BF16", "fp16": "FP16"}[target.dtype]
        if needed is not None and needed not in (can := _capabilities()):
            return f"this processor has no {target.dtype} arithmetic for OpenVINO (it lists {', '.join(can)}): use fp32 or an int8 plan"
        if plan is None:
            return None
        if importlib.util.find_spec("nncf") is None:
            return "nncf, which int8 plans need, is not installed: pip install 'featherweight[openvino]'"
        if plan.get("scheme") == "int8-dynamic" and plan.get("granularity") != "channel":
            return "int8-dynamic on openvino scales weights per channel: use granularity 'channel'"
        return check_plan(plan) or integer_problem(plan, "openvino")

    def export(
        self, package: Package, example: dict[str, torch.Tensor], calibration: dict[str, torch.Tensor] | None, target: Target, folder: Path
    ) -> dict[str, Any]:
        plan = package.plan
        if (problem := self.problem(target, plan)) is not None:
            raise TargetError(f"the target {target} cannot be used here", got=problem)
        ov = _openvino()
        with tempfile.TemporaryDirectory(prefix="featherweight-") as tmp:
            plain = Path(tmp) / "float.onnx"
            notes: dict[str, Any] = {"files": [FILE, WEIGHTS], **export_onnx(package.module, example, calibration, plain)}
            if plan is None:
                model = ov.convert_model(str(plain))
                _fix_shapes(model, example)
            else:
                model, notes["quantization"], found, held = _realise(plain, package, example, calibration, Path(tmp))
            # 16-bit arithmetic gains nothing from 32-bit files; fp32 must keep every bit.
            ov.save_model(model, str(folder / FILE), compress_to_fp16=target.dtype != "fp32")
        session = _load(folder, target, target.batch)
        if plan is not None:
            notes["coverage"] = session.coverage() | {"layers": layer_report(package, found, lambda s: held.get(s.node) or session.computed(s.node))}
        rows = check_rows(example, calibration)
        expected = reference(meant(package, calibration), rows)
        got = run_rows(session, as_numpy(rows), target.batch)
        strict = plan is None and target.dtype == "fp32"
        notes["parity"] = check_float(expected, got, "the OpenVINO artifact") if strict else compare(expected, got)
        return notes | {"bytes": sum((folder / f).stat().st_size for f in (FILE, WEIGHTS))}

    def load(self, folder: Path, target: Target, batch: int) -> Session:
        return _load(folder, target, batch)


class _OvSession(Session):
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
            raise TargetError("OpenVINO refused these inputs", got=f"{ {k: str(v.dtype) for k, v in inputs.items()} }: {e}") from e

    def coverage(self) -> dict[str, Any]:
        """{"quantized": {layer type: count}, "float": {...}} of the layers as they are run here, after fusion."""
        quantized: Counter[str] = Counter()
        plain: Counter[str] = Counter()
        for kind, precision, _ in self._layers():
            (quantized if precision in _INTEGERS else plain)[kind] += 1
        return {"quantized": dict(sorted(quantized.items())), "float": dict(sorted(plain.items()))}

    def computed(self, node: str) -> str:
        """How the layer that stems from an ONNX node is run."""
        found = [precision for _, precision, names in self._layers() if any(n == node or n.startswith(f"{node}/") for n in names)]
        return "int8" if any(p in _INTEGERS for p in found) else "float (OpenVINO runs it so: " + (found[0] if found else "fused into another") + ")"

    def _layers(self) -> Iterator[tuple[str, str, list[str]]]:
        """(type, precision, names of the operators that it stems from) of every computing layer."""
        for op in self._compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            kind, precision = str(info["layerType"].value), str(info["runtimePrecision"].value).lower()
            if kind not in _FREE_LAYERS:
                yield kind, precision, str(info["originalLayersNames"].value).split(",")


def _openvino() -> Any:
    """The openvino module, imported so that it cannot report usage.

    openvino and nncf send telemetry through the package openvino_telemetry, on unless a file in the home directory says no, and go
    without it if it cannot be imported. Making it unimportable in this process writes no file and opens no connection.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as e:
        raise TargetError("openvino cannot be imported", got=str(e), fix="pip install 'featherweight[openvino]'") from e
    return openvino


def _nncf() -> Any:
    """The nncf module, quiet and without telemetry (see `_openvino`)."""
    _openvino()
    if "nncf" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import logging

    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf


def _capabilities() -> list[str]:
    return [str(c) for c in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")]


def _load(folder: Path, target: Target, batch: int) -> _OvSession:
    for name in (FILE, WEIGHTS):
        if not (folder / name).is_file():
            raise TargetError("this is no OpenVINO artifact", got=f"no {name} in {folder}")
    ov = _openvino()
    core = ov.Core()
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _PRECISION[target.dtype],
        "INFERENCE_NUM_THREADS": target.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned threads of two processes would meet on the same core while another idles.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = core.read_model(str(folder / FILE))
        model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
        # Always set: left alone, the runtime would quantize the activations of a compressed model as it likes.
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = int(model.get_rt_info(_GROUP).astype(int)) if model.has_rt_info(_GROUP) else 0
        return _OvSession(core.compile_model(model, "CPU", config))
    except RuntimeError as e:
        raise TargetError("OpenVINO cannot load this artifact", got=f"{folder}: {e}") from e


def _fix_shapes(model: Any, example: dict[str, torch.Tensor]) -> None:
    """All axes but the batch as in the example, which NNCF and the compiler use; the batch stays open until `load`."""
    model.reshape({name: [-1, *v.shape[1:]] for name, v in example.items()})


def _operators(model: Any, nodes: set[str]) -> list[str]:
    """Operators of the OpenVINO model that stem from these ONNX nodes: their names begin with the node's."""
    kinds = {"Constant", "Convert", "Result", "Parameter"}
    found = [(op.get_friendly_name(), op.get_type_name()) for op in model.get_ops()]
    names = [name for name, kind in found if kind not in kinds and (name in nodes or name.rpartition("/")[0] in nodes)]
    if nodes and not names:
        raise TargetError("these layers to leave in floating point are not in the converted graph", got=sorted(nodes)[:20])
    return names


def _is_transformer(model: Any) -> bool:
    """Is there attention: a softmax (or a fused attention operator) whose result is multiplied as a matrix?"""
    for op in model.get_ops():
        if op.get_type_name() == "ScaledDotProductAttention":
            return True
        if op.get_type_name() == "Softmax":
            readers = {t.get_node().get_type_name() for t in op.output(0).get_target_inputs()}
            if readers & {"MatMul", "Multiply", "Select"}:  # masks may stand between
                return True
    return False


def _realise(
    plain: Path, package: Package, example: dict[str, torch.Tensor], calibration: dict[str, torch.Tensor] | None, tmp: Path
) -> tuple[Any, dict[str, Any], list[Site], dict[str, str]]:
    """(the model, the report, the sites of the layers in the ONNX graph, how each weight that is only stored small is held, by node)."""
    import onnx

    plan: dict[str, Any] = package.plan or {}
    graph = onnx.load(plain)
    settings = [*wanted(package).values(), Setting(plan["bits"], plan["granularity"], plan["group"] or 0, plan["symmetric"])]
    if plan["scheme"] != "int8-static":
        graph = raised(graph, settings)
        found, held = shrink_graph(graph, package, "onnx")
        model = _converted(graph, example, tmp)
        dynamic = plan["scheme"] == "int8-dynamic"
        if dynamic:
            model.set_rt_info(_DYNAMIC, _GROUP)
            held = {node: f"{how} (activations int8 in groups of {_DYNAMIC} where the processor can)" for node, how in held.items()}
        report = {"scheme": plan["scheme"], "weight_bits": plan["bits"], "small_weights": len(held)}
        return model, report | ({"group_size": _DYNAMIC} if dynamic else {}), found, held
    if calibration is None:
        raise needs_calibration()
    n = min(int(plan["samples"]), len(next(iter(calibration.values()))))
    rows = as_numpy({k: v[:n] for k, v in calibration.items()})
    if any(name.endswith((".weight.scale", ".input.scale")) for name in package.scales):
        return _with_grids(plain, package, example, rows, settings, tmp)
    resolve_identities(graph.graph)
    graph = raised(graph, settings)
    every, skip = sites(graph.graph, package), skipped(graph.graph, list(plan.get("skip", ())))
    found = unshare(graph, every, {s.node: s.setting for s in every})
    held = shrink(graph, _small(found), package.scales, "onnx")
    model = _converted(graph, example, tmp)
    ignored = {s.node for s in found if s.setting.bits != 8 and s.op != "Gather"} | set(skip)
    model, report = _quantize(model, plan, _operators(model, ignored), rows)
    return model, report, found, held


def _with_grids(
    plain: Path, package: Package, example: dict[str, torch.Tensor], rows: Inputs, settings: list[Setting], tmp: Path
) -> tuple[Any, dict[str, Any], list[Site], dict[str, str]]:
    """A static plan that brings its own grids: the QDQ graph made for ONNX Runtime, converted.

    OpenVINO has integer convolutions for signed codes only. Where those can overflow (`_cpu.saturates`) both forms are run on the first rows, and
    the signed one is taken unless it is more than 1 dB noisier than the other, which computes exactly, if in floating point.
    """
    import onnx

    ov = _openvino()
    expected = reference(
        meant(package, {k: _tensor(v) for k, v in rows.items()}), parity := check_rows(example, {k: _tensor(v) for k, v in rows.items()})
    )
    tried: list[tuple[float, tuple[Any, dict[str, Any], list[Site], dict[str, str]]]] = []
    for signed in (True, False):
        report, found = quantize_static(plain, tmp / "qdq.onnx", package, rows, tmp, signed)
        graph = raised(onnx.load(tmp / "qdq.onnx"), settings)
        held = shrink(graph, _small(found), package.scales, "onnx")
        model = _converted(graph, example, tmp)
        report |= {"from": "the QDQ graph made for ONNX Runtime, whose grids are kept"}
        if "layers_beyond_7_bits" not in report:
            return model, report, found, held
        report["codes"] = "signed" if signed else "unsigned: signed ones overflow on the calibration rows"
        ov.save_model(model.clone(), str(tmp / FILE), compress_to_fp16=False)
        db = compare(expected, run_rows(_load(tmp, Target("openvino"), 1), as_numpy(parity), 1))["sqnr_db"]
        tried.append((-np.inf if db is None else -float(db), (model, report, found, held)))
    (noise, form), (least, exact) = tried
    return form if noise <= least + 1.0 else exact


def _tensor(v: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(v)


def _small(found: list[Site]) -> list[Site]:
    """Sites that a static plan only stores small."""
    return [s for s in found if s.setting.bits in (4, 16) or (s.setting.bits == 8 and s.op == "Gather")]


def _converted(graph: Any, example: dict[str, torch.Tensor], tmp: Path) -> Any:
    """The OpenVINO model of an ONNX graph. Its half precision values are stored as such: a constant of 16 bits and a conversion back."""
    import onnx

    ov = _openvino()
    from openvino import opset13 as ops

    onnx.save(graph, tmp / "edited.onnx")
    model = ov.convert_model(str(tmp / "edited.onnx"))
    _fix_shapes(model, example)
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Constant" and op.get_friendly_name().endswith(HALF):
            half = ops.convert(ops.constant(op.get_data().astype(np.float16)), "f32")
            for reader in op.output(0).get_target_inputs():
                reader.replace_source_output(half.output(0))
    return model


def _quantize(model: Any, plan: dict[str, Any], skip: list[str], rows: Inputs) -> tuple[Any, dict[str, Any]]:
    nncf = _nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix, QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    ranges = {"minmax": Ranges.MINMAX, "percentile": Ranges.MEAN_QUANTILE, "mse": Ranges.HISTOGRAM, "entropy": Ranges.HISTOGRAM}[plan["calibrate"]]
    unsigned, transformer = plan["activations"] == "u8", _is_transformer(model)
    n = min(int(plan["samples"]), len(next(iter(rows.values()))))
    reduce = _cpu.saturates()
    advanced = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if reduce else OverflowFix.DISABLE,
        activations_range_estimator_params=ranges,
        weights_quantization_params=QuantizationParameters(per_channel=plan["granularity"] == "channel"),
    )
    data = nncf.Dataset(range(n), lambda i: {k: v[i : i + 1] for k, v in rows.items()})
    with _quiet():
        model = nncf.quantize(
            model,
            data,
            preset=nncf.QuantizationPreset.MIXED if unsigned else nncf.QuantizationPreset.PERFORMANCE,
            subset_size=n,
            fast_bias_correction=True,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(names=skip, validate=False) if skip else None,
            advanced_parameters=advanced,
        )
    found = sum(op.get_type_name() == "FakeQuantize" for op in model.get_ops())
    if found == 0:
        raise nothing_quantized(plan["scheme"], "no FakeQuantize in the graph")
    # NNCF has no entropy calibration; its histogram search minimises the quantization error over the same histograms.
    calibrate = {"minmax": "minmax", "percentile": "mean of quantiles"}.get(plan["calibrate"], "histogram, least error")
    return model, {
        "scheme": plan["scheme"],
        "weight_bits": 7 if reduce else 8,
        "activations": "asymmetric" if unsigned else "symmetric",
        "calibration_samples": n,
        "calibrate": calibrate,
        "fake_quantize": found,
        "transformer": transformer,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws progress bars on stdout; exceptions pass."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
