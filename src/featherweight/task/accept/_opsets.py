"""Newer versions of ONNX operators for onnx2torch, which knows those of operator set 17: exporters
write 18 and later.

Most of them only allow more types of numbers, and are converted as the version before. What they
compute is held to ONNX Runtime afterwards (`Onnx.check`), so a version that means something else is
refused.
"""

from __future__ import annotations

import importlib
from typing import Any

# the version that onnx2torch knows, of operators of which later ones are converted alike
_KNOWN = {"Reshape": 14, "Identity": 16, "Cast": 13, "Shape": 15, "Constant": 13, "ConstantOfShape": 9, "Equal": 13}
_KNOWN |= {"Unsqueeze": 13, "Squeeze": 13, "Transpose": 13, "Flatten": 13, "Pad": 13, "Resize": 13, "Split": 13}
_KNOWN |= {"AveragePool": 11, "MaxPool": 12, "Conv": 11, "ConvTranspose": 11, "GlobalAveragePool": 1, "ScatterND": 16}
_KNOWN |= {"HardSigmoid": 6, "HardSwish": 14, "Elu": 6, "Softplus": 1, "Dropout": 13, "InstanceNormalization": 6}
_REDUCTIONS: tuple[str, ...] = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
_REDUCTIONS += ("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
_KNOWN |= dict.fromkeys(_REDUCTIONS, 13)


def teach() -> None:
    """Let onnx2torch convert them. It has to be importable."""
    import onnx

    registry = importlib.import_module("onnx2torch.node_converters.registry")
    known: dict[Any, Any] = registry._CONVERTER_REGISTRY
    for schema in onnx.defs.get_all_schemas_with_history():
        base = _KNOWN.get(schema.name)
        if schema.domain or base is None or schema.since_version <= base:
            continue
        before = known.get(registry.OperationDescription("", schema.name, base))
        if before is not None:
            known.setdefault(registry.OperationDescription("", schema.name, schema.since_version), before)
    known.setdefault(registry.OperationDescription("", "Gelu", 20), _gelu)


def _gelu(node: Any, graph: Any) -> Any:
    """The converter of Gelu (version 20)."""
    from torch import nn

    common = importlib.import_module("onnx2torch.utils.common")
    return common.OperationConverterResult(
        torch_module=nn.GELU(approximate=node.attributes.get("approximate", "none")),
        onnx_mapping=common.onnx_mapping_from_node(node=node),
    )


def as_before(model: Any) -> None:
    """Constant axes of reductions as attributes, as they were up to version 13; without the number
    of outputs that Split names since version 18, and the zeros that Reshape may be told to take as
    they are, where there are none. In place."""
    from onnx import helper, numpy_helper

    held = {t.name: t for t in model.graph.initializer}
    held |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute}
    for node in model.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 2 and node.input[1] in held:
            axes = numpy_helper.to_array(held[node.input[1]]).reshape(-1)
            del node.input[1]
            if len(axes):
                node.attribute.append(helper.make_attribute("axes", [int(a) for a in axes]))
        elif node.op_type in ("Split", "Reshape"):
            empty = node.op_type == "Reshape" and node.input[1] in held
            if empty and 0 in numpy_helper.to_array(held[node.input[1]]):  # here a zero is a side without anything
                continue
            kept = [a for a in node.attribute if a.name not in ("num_outputs", "allowzero")]
            del node.attribute[:]
            node.attribute.extend(kept)
