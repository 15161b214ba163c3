"""Residual sums before a layer normalization, kept out of an operator that is slower than both."""

from __future__ import annotations

from pathlib import Path


def part_norms(file: Path) -> None:
    """Write sums that a LayerNormalization takes as Sum(a, b) instead of Add(a, b), in place.

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization, whose CPU kernel adds
    up one number after the other: 1.31.1 takes 0.26 ms for [128, 384], the two take 0.06 ms, which
    is a seventh of an int8 encoder. It does not look for Sum.
    """
    import onnx

    model = onnx.load(file)
    held = {t.name for t in model.graph.initializer}
    made = {out: node for node in model.graph.node for out in node.output}
    parted = False
    for node in model.graph.node:
        before = made.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if before is not None and before.op_type == "Add" and not held & set(before.input):
            before.op_type = "Sum"
            parted = True
    if parted:
        onnx.save(model, file)
