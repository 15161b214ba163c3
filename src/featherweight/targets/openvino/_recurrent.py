"""Weights of recurrent operators, stored small in the converted model: whatever stands before such
an operator in an ONNX graph is folded into floating point when OpenVINO converts it.

The runtime unpacks them once, when it compiles the model; but not beside activations in integers
(2026.4 refuses such a model), so static plans leave them alone.
Notation: W [D, g H, I], R [D, g H, H].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...graphs.recurrent import coded
from ...plan import required

if TYPE_CHECKING:
    from ...models.package import Package

KINDS = {f"{kind}{form}" for kind in ("LSTM", "GRU", "RNN") for form in ("Sequence", "Cell")}


def recurrent(model: Any) -> dict[str, str]:
    """{name: LSTM, GRU or RNN} of the recurrent operators of an OpenVINO model."""
    every = ((op.get_friendly_name(), op.get_type_name()) for op in model.get_ops())
    return {name: kind.removesuffix("Sequence").removesuffix("Cell") for name, kind in every if kind in KINDS}


def shrink_recurrent(model: Any, package: Package) -> dict[str, str]:
    """Store W and R of the recurrent operators as `graphs.recurrent` does, in place:
    {name: how they are held now}. Converted operators do not say which layer they were, so if the
    plan leaves a recurrent layer out, none is touched."""
    from openvino import opset13 as ops

    from ...models.quant.layers import recurrent as paths

    plan = required(package.plan)
    left = any(p == s or p.startswith(f"{s}.") for p in paths(package.module) for s in plan.skipped)
    if left or plan.whole.bits == 32:
        return {}
    done = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() not in KINDS:
            continue
        axes = 3 if op.get_type_name().endswith("Sequence") else 2
        for port in op.inputs()[1:]:
            given = port.get_source_output()
            if given.get_node().get_type_name() != "Constant" or len(given.get_shape()) != axes:
                continue
            codes, scale = coded(np.array(given.get_node().get_data()), plan.whole.bits)
            value = ops.convert(ops.constant(codes), "f32")
            port.replace_source_output((value if scale is None else ops.multiply(value, ops.constant(scale))).output(0))
            kind = "int8" if scale is not None else "float16"
            done[op.get_friendly_name()] = f"{kind}, stored (unpacked when loaded)"
    return done
