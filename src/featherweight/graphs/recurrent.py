"""Weights of recurrent operators (LSTM, GRU, RNN), stored small: no plan lists them, so they follow
what the plan says of the whole model.

One scale a gate's row, rounded to nearest, codes around zero; of 4 bits asked 8 are taken, for
errors add up over the moments. ONNX Runtime unpacks them once, when it loads, so a model is as fast
as before.

Notation: W [D, g H, I] and R [D, g H, H]: D directions, g gates, H units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plan import required
from .export import layers, path_of

if TYPE_CHECKING:
    from torch import nn

    from ..models.package import Package

KINDS = ("LSTM", "GRU", "RNN")
_LARGEST, _HALF = 127, 65504.0


def shrink_recurrent(model: Any, package: Package, kinds: Iterable[str] = KINDS) -> dict[str, str]:
    """Store W and R of the graph's recurrent operators of these kinds with 8 bits, or 16 where the
    plan says so. In place; {node name: how its weights are held now}."""
    plan, graph = required(package.plan), model.graph
    wanted, paths = set(kinds), layers(graph)
    left = {n for n, of in paths.items() if any(p == s or p.startswith(f"{s}.") for p in of for s in plan.skipped)}
    tensors = {w.name: w for w in graph.initializer}
    done: dict[str, str] = {}
    made: dict[str, str] = {}  # initializer -> what stands for it
    for node in [n for n in graph.node if n.op_type in wanted and n.name not in left]:
        names = [name for name in node.input[1:3] if name in tensors and tensors[name].data_type == 1]
        if plan.whole.bits == 32 or not names:
            continue
        for at in (1, 2):
            name = node.input[at]
            if name in names:
                if name not in made:
                    made[name] = _unpacked(graph, tensors[name], plan.whole.bits)
                node.input[at] = made[name]
        done[node.name] = f"{'float16' if plan.whole.bits == 16 else 'int8'}, stored (unpacked when loaded)"
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    kept = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return done


def _unpacked(graph: Any, weight: Any, bits: int) -> str:
    """The name of a tensor that is computed from codes put in place of `weight`."""
    from onnx import helper, numpy_helper

    w, base = numpy_helper.to_array(weight), f"{weight.name}.{bits if bits == 16 else 8}"
    codes, scale = coded(w, bits)
    graph.initializer.append(numpy_helper.from_array(codes, f"{base}.codes"))
    number = f"{base}.float" if scale is None else f"{base}.numbers"
    new = [helper.make_node("Cast", [f"{base}.codes"], [number], f"{base}/Cast", to=1)]
    if scale is not None:
        graph.initializer.append(numpy_helper.from_array(scale, f"{base}.scale"))
        new.append(helper.make_node("Mul", [number, f"{base}.scale"], [f"{base}.float"], f"{base}/Mul"))
    for i, node in enumerate(new):
        graph.node.insert(i, node)
    return f"{base}.float"


def coded(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(codes, the scale of each row [.., 1], or None: half precision) of a weight [.., I]."""
    if bits == 16:
        return np.clip(w, -_HALF, _HALF).astype(np.float16), None
    largest = np.abs(w).max(axis=-1, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return np.round(w / scale).astype(np.int8), scale


def recurrent_report(
    module: nn.Module, ops: dict[str, str], held: dict[str, str], runtime: str = "ONNX Runtime"
) -> dict[str, str]:
    """{path: how it is held and run, with its share of the model's weights where that is floating
    point} of recurrent layers, which no plan lists. ops: operators by the names of their nodes;
    held: how weights are stored, by node."""
    from torch.nn import RNNBase

    kinds, out = {*KINDS, "DynamicQuantizeLSTM"}, {}
    every = max(1, sum(p.numel() for p in module.parameters()))
    for path, m in module.named_modules():
        if isinstance(m, RNNBase):
            mine = [name for name, op in ops.items() if op in kinds and f"{path_of(name)}.".startswith(f"{path}.")]
            mine = mine or [name for name, op in ops.items() if op in kinds]
            stored = {held[name] for name in mine if name in held}
            share = f"{100 * sum(p.numel() for p in m.parameters()) // every}% of the weights"
            if {ops[name] for name in mine} == {"DynamicQuantizeLSTM"}:
                out[path] = "int8 (weights, and activations by each input)"
            elif stored and all(name in held for name in mine):
                out[path] = f"{' + '.join(sorted(stored))}, float arithmetic"
            else:
                integer = m.mode == "LSTM" and runtime == "ONNX Runtime"
                why = "" if integer else f" ({runtime} has no integer form of it)"
                out[path] = f"float{why}: {share}"
    return out
