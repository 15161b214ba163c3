"""int8-dynamic on ONNX Runtime: activations are quantized anew for each input, weights once.

MatMul, Gemm and LSTM: dynamic int8 convolutions make a CNN 3-5 times slower than fp32 on ONNX
Runtime, and for GRU and plain recurrent layers it has no integer operator: their weights are stored
in 8 bits, and computed with in floating point.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import machine
from ..errors import TargetError
from ..plan import nothing_quantized, required
from .codes import Coded, coded
from .entrance import entrance
from .export import skipped
from .merging import merging
from .recurrent import shrink_recurrent
from .sites import Site, drop_unused, sites, unshare
from .small import shrink
from .static import SEVEN, prepare, quantizing

if TYPE_CHECKING:
    from ..models.package import Package

_MADE = {"MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLinear", "DynamicQuantizeLSTM"}
_PRODUCTS = ("MatMul", "Gemm")


def quantize_dynamic(
    plain: Path, final: Path, package: Package, tmp: Path
) -> tuple[dict[str, Any], list[Site], dict[str, str]]:
    """Write `final`; returns the report, the sites, and what was only stored small, by node."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as run

    plan = required(package.plan)
    reduce, prepared = machine.saturates(), tmp / "prepared.onnx"
    note = prepare(plain, prepared)
    model = onnx.load(prepared)
    exclude = skipped(model.graph, list(plan.skipped)) + entrance(model.graph, package) + merging(model.graph, package)
    every = sites(model.graph, package)
    found = unshare(model, every, {s.node: (s.setting, s.node if s.op == "Gemm" else s.path) for s in every})
    _unshare_rest(model)
    integer = [s for s in found if s.setting.bits == 8 and s.op in _PRODUCTS]
    small = [s for s in found if s.setting.bits in (4, 16) or (s.setting.bits == 8 and s.op == "Gather")]
    exclude += [s.node for s in found if s not in integer]
    for site in integer:
        if site.setting.granularity == "group" or not site.setting.symmetric:
            raise TargetError(
                "ONNX Runtime computes int8-dynamic products with one symmetric weight scale a tensor or a channel",
                got=f"{site.path or site.node}: {site.setting}",
                allowed="granularity tensor or channel, symmetric",
            )
        if f"{site.path}.weight.scale" in package.scales or site.setting.granularity != plan.granularity:
            _replace(model, site, package, reduce)
    held = shrink(model, small, package.scales, "ort") | shrink_recurrent(model, package, ("GRU", "RNN"))
    onnx.save(model, prepared)
    with quantizing():
        run(
            prepared,
            final,
            op_types_to_quantize=[*_PRODUCTS, "LSTM"],
            per_channel=plan.granularity == "channel",
            reduce_range=reduce,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(set(exclude)),
            extra_options={"MatMulConstBOnly": True},
        )
    ops = {n.op_type for n in onnx.load(final).graph.node}
    if not ops & _MADE and not held:
        raise nothing_quantized(plan.scheme, sorted(ops), "use int8-static for convolutional models")
    return {"scheme": plan.scheme, "weight_bits": 7 if reduce else 8, "activations": "u8", **note}, found, held


def _replace(model: Any, site: Site, package: Package, reduce: bool) -> None:
    """One product with a grid of ours, in the operators that quantize_dynamic writes:
    y = (xq - xz)(wq - wz) . xs ws [+ bias]. In place."""
    from onnx import helper, numpy_helper

    at = next(i for i, n in enumerate(model.graph.node) if n.name == site.node)
    node = model.graph.node[at]
    weight = next(t for t in model.graph.initializer if t.name == site.weight)
    c: Coded = coded(site.oriented(numpy_helper.to_array(weight)), site, package.scales, integer=True)
    # unsigned codes around 128 are exact where signed ones overflow
    wide = reduce and int(np.abs(c.q).max(initial=0)) > SEVEN
    codes = (c.q.T + 128).astype(np.uint8) if wide else c.q.T.astype(np.int8)
    base, out = f"{site.weight}.dynamic", node.output[0]
    held: dict[str, np.ndarray] = {
        "codes": np.ascontiguousarray(codes),
        "zero": np.array(128 if wide else 0, codes.dtype),
        "scale": c.s.astype(np.float32),
    }
    bias = node.input[2] if len(node.input) > 2 else ""
    last = f"{out}.product" if bias else out
    made = [
        helper.make_node(
            "DynamicQuantizeLinear", [node.input[0]], [f"{out}.xq", f"{out}.xs", f"{out}.xz"], f"{site.node}/quantize"
        ),
        helper.make_node(
            "MatMulInteger", [f"{out}.xq", f"{base}.codes", f"{out}.xz", f"{base}.zero"], [f"{out}.int"], site.node
        ),
        helper.make_node("Cast", [f"{out}.int"], [f"{out}.float"], f"{site.node}/cast", to=1),
        helper.make_node("Mul", [f"{out}.xs", f"{base}.scale"], [f"{out}.scale"], f"{site.node}/scales"),
        helper.make_node("Mul", [f"{out}.float", f"{out}.scale"], [last], f"{site.node}/scale"),
        *([helper.make_node("Add", [last, bias], [out], f"{site.node}/bias")] if bias else []),
    ]
    del model.graph.node[at]
    for i, new in enumerate(made):
        model.graph.node.insert(at + i, new)
    known = {t.name for t in model.graph.initializer}
    model.graph.initializer.extend(
        numpy_helper.from_array(a, f"{base}.{k}") for k, a in held.items() if f"{base}.{k}" not in known
    )
    drop_unused(model.graph)


def _unshare_rest(model: Any) -> None:
    """Give every Gemm that reads a shared weight its own copy. In place.

    quantize_dynamic turns Gemm into MatMul and transposes its weight in place, so every other
    reader of the same initializer would compute with the transposed one: with 1.31.1 a net with two
    equal layers fell from 38 dB to 7 dB.
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
