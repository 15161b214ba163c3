"""Products with constant matrices in a module made of an ONNX file, as Linear layers, which can be
cut and quantized.

Exporters write Linear layers on anything but [n, features] as MatMul and Add.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn


def with_linears(module: fx.GraphModule) -> fx.GraphModule:
    """The module with every MatMul(x, W) of a constant W [in, out], and the Add of a constant
    [out] after it, as nn.Linear. In place."""
    modules = dict(module.named_modules())
    for node in list(module.graph.nodes):
        weight = _constant(module, node.args[1]) if _is(modules, node, "OnnxMatMul") else None
        if weight is None or weight.ndim != 2 or _constant(module, node.args[0]) is not None:
            continue
        bias, last = None, node
        if len(node.users) == 1 and _is(modules, (after := next(iter(node.users))), "OnnxBinaryMathOperation"):
            others = [a for a in after.args if a is not node]
            held = _constant(module, others[0]) if len(others) == 1 and _adds(modules[after.target]) else None
            if held is not None and held.shape == weight.shape[1:]:
                bias, last = held, after
        layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None, dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight.t())
            if bias is not None:
                layer.bias.copy_(bias)
        setattr(module, node.target, layer)
        if last is not node:
            node.args = (node.args[0],)
            last.replace_all_uses_with(node)
            module.graph.erase_node(last)
        else:
            node.args = (node.args[0],)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    _drop_unread(module)
    module.graph.lint()
    module.recompile()
    return module


def _is(modules: dict[str, nn.Module], node: Any, kind: str) -> bool:
    return node.op == "call_module" and type(modules.get(node.target)).__name__ == kind


def _adds(layer: Any) -> bool:
    function = getattr(layer, "math_op_function", None)
    return function is torch.add


def _constant(module: fx.GraphModule, node: Any) -> Tensor | None:
    """What a node that reads a tensor of the module holds; None for others."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found if isinstance(found, Tensor) and found.is_floating_point() else None


def _drop_unread(module: fx.GraphModule) -> None:
    """Remove the constants that no node reads any more."""
    read = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    for path, owner in list(module.named_modules()):
        for name in list(owner._buffers):
            if path.endswith("initializers") and f"{path}.{name}" not in read:
                del owner._buffers[name]
