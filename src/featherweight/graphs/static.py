"""int8-static on ONNX Runtime: its own quantize_static (QDQ), told which grids to keep.

Weights that the plan gives a grid keep their codes exactly; inputs with a learned grid keep it;
everything else is ONNX Runtime's choice.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import machine
from ..errors import FeatherweightError, TargetError
from ..plan import Plan, nothing_quantized, required
from .codes import Coded, coded
from .entrance import entrance
from .export import skipped
from .merging import merging
from .ranges import mse_ranges
from .session import Inputs
from .sites import Site, sites, unshare

if TYPE_CHECKING:
    from ..models.package import Package

_ALIKE = {
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "MaxPool",
    "Slice",
    "Gather",
    "Resize",
}  # ONNX Runtime gives their output the grid of their input
_NO_KERNEL = {"ConvTranspose"}  # quantized by the tool, run in floating point by the runtime
SEVEN = 63  # largest code whose products cannot overflow where `machine.saturates`


def quantize_static(
    plain: Path, final: Path, package: Package, rows: Inputs, tmp: Path, signed: bool = False
) -> tuple[dict[str, Any], list[Site]]:
    """Write `final`; returns the report and the sites of the graph. rows: the calibration inputs,
    as many as the plan's samples at most.

    signed: keep given codes beyond 7 bits signed even where their products can
    overflow (`_override`)."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as run

    plan = required(package.plan)
    activations, calibrate, _ = plan.ranges()
    prepared, unsigned, reduce = tmp / "prepared.onnx", activations == "u8", machine.saturates()
    note = prepare(plain, prepared)
    model = onnx.load(prepared)
    exclude = skipped(model.graph, list(plan.skipped)) + entrance(model.graph, package) + merging(model.graph, package)
    found = unshare(model, every := sites(model.graph, package), _keys(every, package))
    integer = [s for s in found if s.setting.bits == 8 and s.op not in ("Gather", *_NO_KERNEL)]
    exclude += [s.node for s in found if s not in integer]
    weights = {s.node: (s, c) for s in integer if (c := _weight(s, model, package, plan)) is not None}
    inputs = _input_grids(model, [s for s in integer if s.path], package, unsigned)
    onnx.save(model, prepared)
    attention = has_attention(model.graph)
    ops = ["Conv", "Gemm", "MatMul"] if attention else None
    extra: dict[str, Any] = {"ActivationSymmetric": not unsigned}
    overrides: dict[str, Any] = {}
    if calibrate in ("percentile", "entropy"):
        # histogram after histogram: otherwise every activation of every sample is held at once
        extra["CalibStridedMinMax"] = 1
    with quantizing():
        if calibrate == "mse":
            overrides = {
                name: [{"rmin": np.float32(a), "rmax": np.float32(b)}]
                for name, (a, b) in mse_ranges(prepared, rows, ops, not unsigned, tmp).items()
            }
        overrides |= {name: [grid] for name, grid in inputs.items()}
        overrides |= {s.weight: _override(s, c, reduce and not signed) for s, c in weights.values()}
        if overrides:
            extra |= {"TensorQuantOverrides": overrides}
        if weights or inputs:
            extra |= {"QDQDisableWeightAdjustForInt32Bias": True, "QDQKeepRemovableActivations": bool(inputs)}
        method = {"percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}.get(
            calibrate, CalibrationMethod.MinMax
        )
        run(
            prepared,
            final,
            reader(rows, 8),
            quant_format=QuantFormat.QDQ,
            per_channel=plan.granularity == "channel",
            reduce_range=reduce,
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(set(exclude)),
            calibrate_method=method,
            extra_options=extra,
            op_types_to_quantize=ops,
        )
    made = onnx.load(final)
    kinds = {node.op_type for node in made.graph.node}
    if not {"QuantizeLinear", "DequantizeLinear"} <= kinds:
        raise nothing_quantized(plan.scheme, sorted(kinds))
    _verify(made.graph, weights, inputs)
    given = sum(c.given for _, c in weights.values())
    wide = sum(_wide(c) for _, c in weights.values()) if reduce else 0
    note = (
        {"attention": attention, **note}
        | ({"given_weight_grids": given} if given else {})
        | ({"layers_beyond_7_bits": wide} if wide else {})
        | ({"given_input_grids": len(inputs)} if inputs else {})
    )
    report = {
        "scheme": plan.scheme,
        "weight_bits": 7 if reduce and given < len(integer) else 8,
        "activations": activations,
    }
    return report | {"calibration_samples": len(next(iter(rows.values()))), **note}, found


def _keys(found: list[Site], package: Package) -> dict[str, Any]:
    return {s.node: (s.setting, s.path if f"{s.path}.weight.scale" in package.scales else "") for s in found}


def _weight(site: Site, model: Any, package: Package, plan: Plan) -> Coded | None:
    """The codes to be kept, or those of a layer whose granularity is not the plan's, or, where
    products overflow, of any: ONNX Runtime's scale for 7 bits is another one than that of all else
    here (codes to 64, for 63.5 steps); None: left to it."""
    from onnx import numpy_helper

    if site.setting.granularity == "group" or not site.setting.symmetric:
        raise TargetError(
            "ONNX Runtime computes int8-static products with one symmetric weight scale a tensor or a channel",
            got=f"{site.path or site.node}: {site.setting}",
            allowed="granularity tensor or channel, symmetric",
        )
    given = bool(site.path) and f"{site.path}.weight.scale" in package.scales
    if not given and site.setting.granularity == plan.granularity and not machine.saturates():
        return None
    w = next(t for t in model.graph.initializer if t.name == site.weight)
    return coded(site.oriented(numpy_helper.to_array(w)), site, package.scales, integer=True)


def _override(site: Site, codes: Coded, reduce: bool) -> list[dict[str, Any]]:
    """The grid as quantize_static takes it. Codes that could overflow here (beyond 7 bits) are kept
    as unsigned ones around 128: x86 without VNNI multiplies those exactly, and about 1.4 times
    slower than 7-bit codes."""
    from onnxruntime.quantization import QuantType

    wide = reduce and _wide(codes)
    kind, zero = (QuantType.QUInt8, np.array(128, np.uint8)) if wide else (QuantType.QInt8, np.array(0, np.int8))
    scale = _usable_scales(codes)
    common = {"quant_type": kind, "zero_point": zero}
    if codes.setting.granularity == "tensor":
        return [common | {"scale": scale[0]}]
    axis = 1 if site.transposed else 0
    return [common | {"scale": s, "axis": axis} for s in scale]


def _wide(codes: Coded) -> bool:
    return int(np.abs(codes.q).max(initial=0)) > SEVEN


def _usable_scales(codes: Coded) -> np.ndarray:
    """The scales; for rows of zeros, which any scale describes, the largest one:
    a bias is stored in steps of it."""
    zero = (
        ~codes.q.reshape(len(codes.s), -1).any(1)
        if codes.setting.granularity != "tensor"
        else np.array([not codes.q.any()])
    )
    return np.where(zero, 1.0 if zero.all() else codes.s[~zero].max(initial=0.0), codes.s).astype(np.float32)


def _input_grids(model: Any, found: list[Site], package: Package, unsigned: bool) -> dict[str, dict[str, Any]]:
    """{tensor: grid} for the learned input grids. In place: a layer that wants another grid than
    one before it gets its own copy of the tensor."""
    import onnx
    from onnxruntime.quantization import QuantType

    nodes = {n.name: n for n in model.graph.node}
    maker = {o: n for n in model.graph.node for o in n.output}
    out: dict[str, dict[str, Any]] = {}
    for site in found:
        if f"{site.path}.input.scale" not in package.scales:
            continue
        scale = np.float32(package.scales[f"{site.path}.input.scale"].reshape(-1)[0])
        zero = package.scales.get(f"{site.path}.input.zero")
        z = 0 if zero is None else int(zero.reshape(-1)[0])
        if not (scale > 0 and (0 <= z <= 255 if unsigned else z == 0)):
            raise TargetError(
                f"the input grid of {site.path} is not usable",
                got=(float(scale), z),
                allowed="a positive scale; zero 0..255 for u8, 0 for s8",
            )
        grid = {
            "scale": np.array(scale),
            "zero_point": np.array(z, np.uint8 if unsigned else np.int8),
            "quant_type": QuantType.QUInt8 if unsigned else QuantType.QInt8,
        }
        chain = [nodes[site.node].input[0]]
        while chain[-1] in maker and maker[chain[-1]].op_type in _ALIKE:
            chain.append(maker[chain[-1]].input[0])
        if any(name in out and out[name] != grid for name in chain):
            node, own = nodes[site.node], f"{chain[0]}.of.{site.path}"
            at = next(i for i, n in enumerate(model.graph.node) if n.name == site.node)
            model.graph.node.insert(at, onnx.helper.make_node("Identity", [node.input[0]], [own], f"{site.node}/input"))
            info = next((i for i in [*model.graph.value_info, *model.graph.input] if i.name == node.input[0]), None)
            if info is not None:
                copy = type(info)()
                copy.CopyFrom(info)
                copy.name = own
                model.graph.value_info.append(copy)
            nodes = {n.name: n for n in model.graph.node}
            nodes[site.node].input[0] = own
            chain = [own]
        out |= dict.fromkeys(chain, grid)
    return out


def _verify(graph: Any, weights: dict[str, tuple[Site, Coded]], inputs: dict[str, dict[str, Any]]) -> None:
    """The file holds the weights and input grids that were asked for; TargetError otherwise."""
    from onnx import numpy_helper

    tensors = {t.name: t for t in graph.initializer}
    maker = {o: n for n in graph.node for o in n.output}
    nodes = {n.name: n for n in graph.node}

    def value(name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(tensors[name]))

    for node, (site, codes) in weights.items():
        made = maker.get(nodes[node].input[1]) if node in nodes else None
        if made is None or made.op_type != "DequantizeLinear":
            raise TargetError("ONNX Runtime did not quantize a layer that has a given grid", got=site.path or node)
        q, s = value(made.input[0]), value(made.input[1])
        z = value(made.input[2]) if len(made.input) > 2 else np.zeros((), q.dtype)
        shape = [-1 if i == int(site.transposed) else 1 for i in range(q.ndim)]
        if not np.array_equal(
            site.oriented(q.astype(np.int16) - z.astype(np.int16).reshape(shape if z.ndim else ())), codes.q
        ):
            raise TargetError("ONNX Runtime moved the codes of a layer that has a given grid", got=site.path or node)
        if not np.array_equal(s.reshape(-1), _usable_scales(codes)):
            raise TargetError("ONNX Runtime moved the scales of a layer that has a given grid", got=site.path or node)
        source = maker.get(nodes[node].input[0])
        asked = (
            inputs.get(maker[source.input[0]].input[0])
            if source is not None and source.op_type == "DequantizeLinear"
            else None
        )
        if asked is not None and source is not None and float(value(source.input[1])) != float(asked["scale"]):
            raise TargetError(
                "ONNX Runtime moved a learned input grid",
                got=(site.path, float(value(source.input[1]))),
                allowed=float(asked["scale"]),
            )


def has_attention(graph: Any) -> bool:
    """Is there a softmax inside? Masks are added before it, and no 8-bit grid holds both -inf
    (or -3e38) and the scores beside it, so in such a graph only matrix products and convolutions
    are quantized, no sums."""
    outputs = {o.name for o in graph.output}
    return any(node.op_type == "Softmax" and node.output[0] not in outputs for node in graph.node)


def prepare(plain: Path, prepared: Path) -> dict[str, Any]:
    """Shape inference and folding before quantization; without symbolic shape inference, and with
    its reason, where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet():
        try:
            quant_pre_process(str(plain), str(prepared))
        except Exception as e:
            # it asserts and raises all kinds on graphs with attention;
            # plain ONNX inference is enough there
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            return {"symbolic_shapes": f"skipped: {type(e).__name__} {e}".strip()[:200]}
    return {"symbolic_shapes": "inferred"}


def reader(rows: Inputs, chunk: int) -> Any:
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


UNTAKEN = "leave layers out (skip=), or use another scheme, or the openvino target"


@contextlib.contextmanager
def quantizing() -> Iterator[None]:
    """Around a call of onnxruntime.quantization: `quiet`, and TargetError for whatever it raises on
    graphs that it does not take."""
    try:
        with quiet():
            yield
    except FeatherweightError:  # of our own code, which runs inside
        raise
    except Exception as e:
        raise TargetError(
            "ONNX Runtime's quantizer does not take this model",
            got=f"{type(e).__name__}: {e}",
            fix=UNTAKEN,
        ) from e


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """onnxruntime.quantization logs to the root logger and prints progress; exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
