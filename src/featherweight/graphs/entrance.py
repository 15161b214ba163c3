"""The nodes of an ONNX graph that change what the model is given (`models.entry`): they stay in
floating point, whatever a plan says of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.package import Package

# what exporters write around an operation
_AROUND = {"Cast", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


def entrance(graph: Any, package: Package) -> list[str]:
    """Names of the nodes that the changes of the package's inputs have become: from each graph
    input on, as many of their operators as the changes have."""
    from ..models.entry import changes

    found: list[str] = []
    weights = {w.name for w in graph.initializer}
    inputs = [i.name for i in graph.input if i.name not in weights]
    for place, name in enumerate(inputs):
        left = [op for change in changes(package.module) if change.input == place for op in change.ops]
        while left:
            readers = [node for node in graph.node if name in node.input]
            if len(readers) != 1 or readers[0].op_type not in {left[0], *_AROUND}:
                break
            if readers[0].op_type == left[0]:
                found.append(readers[0].name)
                left.pop(0)
            name = readers[0].output[0]
    return found
