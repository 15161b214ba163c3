"""The nodes of an ONNX graph that merge tokens (`models.tokens`): they stay in floating point,
whatever a plan says of layers. Which tokens are alike is told by small differences, and what was
padding by large numbers: eight bits hold either, not both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.package import Package

_BACK = {"Add", "Sub", "ReduceMax", "Max"}  # from what is ranked back to the product that it was made of
_ENDS = {"Div", "GatherElements", "GatherND", "Gather", "Shape"}  # whose output is the model's own


def merging(graph: Any, package: Package) -> list[str]:
    """Names of the nodes that the package's merges have become."""
    if not any(e.get("edit") == "merge_tokens" for e in package.edits):
        return []
    made = {out: node for node in graph.node for out in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, None] = {}
    for node in graph.node:
        back = list(_ranked(node, made)) if node.op_type == "TopK" else []
        if back:
            found |= dict.fromkeys(back)
            found |= dict.fromkeys(_following(node, readers))
    return list(found)


def _ranked(node: Any, made: dict[str, Any]) -> Iterator[str]:
    """From the ranking back to the product of tokens with tokens; nothing if there is none."""
    names = [node.name]
    while (before := made.get(node.input[0])) is not None and before.op_type in {*_BACK, "MatMul"}:
        names.append(before.name)
        node = before
        if node.op_type == "MatMul":
            yield from names
            return


def _following(start: Any, readers: dict[str, list[Any]]) -> Iterator[str]:
    """From the ranking on to what blocks are given: the mean of what was merged, and what is taken
    by an index."""
    seen: set[str] = set()
    left = [start]
    while left:
        for node in (node for out in left.pop().output for node in readers.get(out, [])):
            if node.name not in seen:
                seen.add(node.name)
                yield node.name
                if node.op_type not in _ENDS:
                    left.append(node)
