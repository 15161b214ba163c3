"""What an ONNX Runtime artifact computes with integers, what it only stores small,
and what stayed in floating point."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .recurrent import recurrent_report
from .sites import Site, wanted

if TYPE_CHECKING:
    from ..models.package import Package

_QUANTIZED = {
    "QGemm",
    "QAttention",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "ConvInteger",
    "MatMulNBits",
    "GatherBlockQuantized",
}
_FREE = set(
    (
        "QuantizeLinear DequantizeLinear DynamicQuantizeLinear Reshape Flatten Shape Gather Unsqueeze Squeeze Concat "
        "Transpose Cast Constant ConstantOfShape Expand Slice Identity Range ReorderInput ReorderOutput"
    ).split()
)  # they move or convert data


def coverage(
    file: Path, package: Package, sites: list[Site], held: dict[str, str], optimize: Callable[[Path, Path], Any]
) -> dict[str, Any]:
    """{"quantized": {operator: count}, "float": {...}} of the graph that ONNX Runtime runs here,
    after its own fusions, and "layers": what became of each layer of the plan.

    held: how weights that were edited by hand are stored, by node; optimize: loads a file and
    writes its optimized graph.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="featherweight-") as tmp:
        optimized = Path(tmp) / "optimized.onnx"
        optimize(file, optimized)
        graph = onnx.load(optimized).graph
    ops = Counter(n.op_type for n in graph.node if n.op_type not in _FREE)
    quantized = {op: n for op, n in sorted(ops.items()) if op.startswith("QLinear") or op in _QUANTIZED}
    ran = {n.name: n.op_type in quantized for n in graph.node if n.op_type not in _FREE}
    return {
        "quantized": quantized,
        "float": {op: n for op, n in sorted(ops.items()) if op not in quantized},
        "layers": layer_report(package, sites, lambda site: held.get(site.node) or _computed(site, ran))
        | recurrent_report(package.module, {n.name: n.op_type for n in graph.node}, held),
    }


def layer_report(package: Package, sites: list[Site], how: Callable[[Site], str]) -> dict[str, str]:
    """{path: how it is held and run} for every layer of the plan,
    or of the module if the plan lists none."""
    found: dict[str, list[Site]] = {}
    for site in sites:
        found.setdefault(site.path, []).append(site)
    out = {}
    for path, setting in wanted(package).items():
        if setting.bits == 32:
            out[path] = "float (as planned)"
        elif path not in found:
            out[path] = "float (not found in the exported graph)"
        else:
            out[path] = " + ".join(sorted({how(site) for site in found[path]}))
    return out


def _computed(site: Site, ran: dict[str, bool]) -> str:
    """A site left to the runtime's quantizer: the fused graph tells. A fused node keeps the
    product's name or adds to it.

    ran: by name of each computing node, whether it computes with integers."""
    same = re.compile(re.escape(site.node) + r"(_MatMul)?(_quant|_token|_bias|_scale|/|$)")
    found = [integer for name, integer in ran.items() if same.match(name)]
    return (
        "int8"
        if any(found)
        else f"float (ONNX Runtime has no integer kernel for this {site.op}, or its neighbours are not quantized)"
    )
