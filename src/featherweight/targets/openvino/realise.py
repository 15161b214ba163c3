"""How a plan becomes an OpenVINO model: by NNCF, or from the codes that the plan's
weights already have."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import machine
from ...errors import TargetError
from ...graphs.entrance import entrance
from ...graphs.export import skipped
from ...graphs.merging import merging
from ...graphs.parity import as_numpy, check_rows, compare, meant, reference, run_rows
from ...graphs.session import Inputs
from ...graphs.sites import Site, resolve_identities, sites, unshare, wanted
from ...graphs.small import HALF, raised, shrink, shrink_graph
from ...graphs.static import quantize_static
from ...plan import LayerPlan, Plan, needs_calibration, nothing_quantized, required
from ..base import Target
from ._recurrent import recurrent, shrink_recurrent
from .session import DYNAMIC, FILE, GROUP, from_onnx, load, nncf_module, openvino_module

if TYPE_CHECKING:
    import torch

    from ...models.package import Package


def fix_shapes(model: Any, example: dict[str, torch.Tensor]) -> None:
    """All axes but the batch as in the example, which NNCF and the compiler use;
    the batch stays open until `load`."""
    model.reshape({name: [-1, *v.shape[1:]] for name, v in example.items()})


def _operators(model: Any, nodes: set[str]) -> list[str]:
    """Operators of the OpenVINO model that stem from these ONNX nodes:
    their names begin with the node's."""
    kinds = {"Constant", "Convert", "Result", "Parameter"}
    found = [(op.get_friendly_name(), op.get_type_name()) for op in model.get_ops()]
    names = [name for name, kind in found if kind not in kinds and (name in nodes or name.rpartition("/")[0] in nodes)]
    if nodes and not names:
        raise TargetError(
            "these layers to leave in floating point are not in the converted graph", got=sorted(nodes)[:20]
        )
    return names


def _recurrent(model: Any) -> list[str]:
    """Recurrent operators, which no plan lists: they compute in floating point, as on ONNX Runtime.
    With 8-bit weights and inputs their errors add up over the steps (2.8 points of accuracy lost in
    a two-layer LSTM over 12 tokens)."""
    return list(recurrent(model))


def _is_transformer(model: Any) -> bool:
    """Is there attention: a softmax (or a fused attention operator) whose result is
    multiplied as a matrix?"""
    for op in model.get_ops():
        if op.get_type_name() == "ScaledDotProductAttention":
            return True
        if op.get_type_name() == "Softmax":
            readers = {t.get_node().get_type_name() for t in op.output(0).get_target_inputs()}
            if readers & {"MatMul", "Multiply", "Select"}:  # masks may stand between
                return True
    return False


def realise(
    plain: Path,
    package: Package,
    example: dict[str, torch.Tensor],
    calibration: dict[str, torch.Tensor] | None,
    tmp: Path,
) -> tuple[Any, dict[str, Any], list[Site], dict[str, str]]:
    """(the model, the report, the sites of the layers in the ONNX graph, how each weight that is
    only stored small is held, by node)."""
    import onnx

    plan = required(package.plan)
    graph = onnx.load(plain)
    settings = [*wanted(package).values(), plan.whole]
    if plan.scheme != "int8-static":
        graph = raised(graph, settings)
        found, held = shrink_graph(graph, package, "onnx")
        model = _converted(graph, example, tmp)
        small = shrink_recurrent(model, package)
        dynamic = plan.scheme == "int8-dynamic"
        if dynamic:
            model.set_rt_info(DYNAMIC, GROUP)
            held = {
                node: f"{how} (activations int8 in groups of {DYNAMIC} where the processor can)"
                for node, how in held.items()
            }
        report = {"scheme": plan.scheme, "weight_bits": plan.bits, "small_weights": len(held) + len(small)}
        return model, report | ({"group_size": DYNAMIC} if dynamic else {}), found, held | small
    if calibration is None:
        raise needs_calibration()
    n = min(plan.ranges().samples, len(next(iter(calibration.values()))))
    rows = as_numpy({k: v[:n] for k, v in calibration.items()})
    if any(name.endswith((".weight.scale", ".input.scale")) for name in package.scales):
        return _with_grids(plain, package, example, rows, settings, tmp)
    resolve_identities(graph.graph)
    graph = raised(graph, settings)
    every, skip = sites(graph.graph, package), skipped(graph.graph, list(plan.skipped))
    found = unshare(graph, every, {s.node: s.setting for s in every})
    held = shrink(graph, _small(found), package.scales, "onnx")
    model = _converted(graph, example, tmp)
    ignored = {s.node for s in found if s.setting.bits != 8 and s.op != "Gather"} | set(skip)
    ignored |= {*entrance(graph.graph, package), *merging(graph.graph, package)}
    model, report = _quantize(model, plan, _operators(model, ignored) + _recurrent(model), rows)
    return model, report, found, held


def _with_grids(
    plain: Path, package: Package, example: dict[str, torch.Tensor], rows: Inputs, settings: list[LayerPlan], tmp: Path
) -> tuple[Any, dict[str, Any], list[Site], dict[str, str]]:
    """A static plan that brings its own grids: the QDQ graph made for ONNX Runtime, converted.

    OpenVINO has integer convolutions for signed codes only. Where those can overflow
    (`machine.saturates`) both forms are run on the first rows, and the signed one is taken unless
    it is more than 1 dB noisier than the other, which computes exactly, if in floating point.
    """
    import onnx

    ov = openvino_module()
    expected = reference(
        meant(package, {k: _tensor(v) for k, v in rows.items()}),
        parity := check_rows(example, {k: _tensor(v) for k, v in rows.items()}),
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
        try:
            db = compare(expected, run_rows(load(tmp, Target("openvino"), 1), as_numpy(parity), 1))["sqnr_db"]
            noisy = -np.inf if db is None else -float(db)
        except TargetError:  # it computes something else: the other form may not
            noisy = np.inf
        tried.append((noisy, (model, report, found, held)))
    (noise, form), (least, exact) = tried
    return form if noise <= least + 1.0 else exact


def _tensor(v: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(v)


def _small(found: list[Site]) -> list[Site]:
    """Sites that a static plan only stores small."""
    return [s for s in found if s.setting.bits in (4, 16) or (s.setting.bits == 8 and s.op == "Gather")]


def _converted(graph: Any, example: dict[str, torch.Tensor], tmp: Path) -> Any:
    """The OpenVINO model of an ONNX graph. Its half precision values are stored as such: a constant
    of 16 bits and a conversion back."""
    import onnx

    onnx.save(graph, tmp / "edited.onnx")
    model = from_onnx(tmp / "edited.onnx")
    fix_shapes(model, example)
    from openvino import opset13 as ops

    for op in model.get_ordered_ops():
        if op.get_type_name() == "Constant" and op.get_friendly_name().endswith(HALF):
            half = ops.convert(ops.constant(op.get_data().astype(np.float16)), "f32")
            for reader in op.output(0).get_target_inputs():
                reader.replace_source_output(half.output(0))
    return model


def _quantize(model: Any, plan: Plan, skip: list[str], rows: Inputs) -> tuple[Any, dict[str, Any]]:
    nncf = nncf_module()
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Ranges

    asked = plan.ranges()
    ranges = {
        "minmax": Ranges.MINMAX,
        "percentile": Ranges.MEAN_QUANTILE,
        "mse": Ranges.HISTOGRAM,
        "entropy": Ranges.HISTOGRAM,
    }[asked.calibrate]
    unsigned, transformer = asked.activations == "u8", _is_transformer(model)
    n = min(asked.samples, len(next(iter(rows.values()))))
    reduce = machine.saturates()
    advanced = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if reduce else OverflowFix.DISABLE,
        activations_range_estimator_params=ranges,
        weights_quantization_params=QuantizationParameters(per_channel=plan.granularity == "channel"),
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
        raise nothing_quantized(plan.scheme, "no FakeQuantize in the graph")
    # NNCF has no entropy calibration; its histogram search minimises the quantization error over
    # the same histograms.
    calibrate = {"minmax": "minmax", "percentile": "mean of quantiles"}.get(asked.calibrate, "histogram, least error")
    return model, {
        "scheme": plan.scheme,
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
