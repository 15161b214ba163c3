"""Which layers a quantization plan is about, and what it says of each."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ...errors import InputError
from ...plan import LayerPlan, Plan
from .grid import Grid


def is_convolution(m: nn.Module) -> bool:
    return isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def is_layer(m: nn.Module) -> bool:
    """A Linear or a convolution: what has a weight [O, I, *k]."""
    return isinstance(m, nn.Linear) or is_convolution(m)


def decide(module: nn.Module, plan: Plan) -> dict[str, LayerPlan]:
    """The plan's `layers`, by path: every Linear, convolution and Embedding.

    Layers at or inside a path of the plan's `skip` stay in floating point (32 bits), and so do
    convolutions under `int8-dynamic`, which no runtime computes faster that way. Embeddings have
    one scale a row. InputError if a path to skip matches no layer.
    """
    out: dict[str, LayerPlan] = {}
    unused = set(plan.skipped)
    for path, m in module.named_modules():
        if not (is_layer(m) or isinstance(m, nn.Embedding)):
            continue
        entry = plan.whole
        if isinstance(m, nn.Embedding):
            entry = replace(entry, bits=plan.embeddings, granularity="channel")
        elif plan.scheme == "int8-dynamic" and is_convolution(m):
            entry = replace(entry, bits=32)
        if entry.granularity != "group":
            entry = replace(entry, group=0)
        hit = {s for s in plan.skipped if path == s or path.startswith(s + ".")}
        unused -= hit
        out[path] = replace(entry, bits=32) if hit else entry
    if unused:
        raise InputError(
            "these layers to skip are not in the model", got=sorted(unused), allowed=", ".join(list(out)[:40])
        )
    return out


def grid_of(layer: LayerPlan, narrow: bool) -> Grid:
    """The grid that a layer of a plan asks for. narrow: 8-bit codes use 7 bits (-63 .. 63), stored
    as 8, because this processor's 8-bit products would overflow; the code range is a property of
    the scale, so the plan goes on saying 8."""
    bits = 7 if narrow and layer.bits == 8 else layer.bits
    return Grid(bits, layer.granularity, layer.group, layer.symmetric)
