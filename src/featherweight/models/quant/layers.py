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


def recurrent(module: nn.Module) -> list[str]:
    """Paths of the layers whose weights no plan lists: LSTM, GRU and plain recurrent ones."""
    return [path for path, m in module.named_modules() if isinstance(m, nn.RNNBase)]


def floating(module: nn.Module) -> tuple[str, ...]:
    """Paths of the parts that say of themselves that no grid of 8 bits holds what they compute
    (`stays_float`), as a spectrum's powers: no plan quantizes them."""
    return tuple(path for path, m in module.named_modules() if getattr(m, "stays_float", False))


def sharing(module: nn.Module) -> dict[str, list[str]]:
    """{path that a plan names it by: paths of the layers with this weight} of every Linear,
    convolution and Embedding, in the module's order. Layers that share one weight, as a table and
    the output layer tied with it, are one entry, named after the first Embedding among them, or
    else after the first."""
    groups: dict[int | str, list[str]] = {}
    for path, m in module.named_modules():
        if is_layer(m) or isinstance(m, nn.Embedding):
            weight = m._parameters.get("weight")  # none where it is computed from others
            groups.setdefault(path if weight is None else id(weight), []).append(path)
    tables = {path for path, m in module.named_modules() if isinstance(m, nn.Embedding)}
    return {next((p for p in paths if p in tables), paths[0]): paths for paths in groups.values()}


def decide(module: nn.Module, plan: Plan) -> dict[str, LayerPlan]:
    """The plan's `layers`, by path: every Linear, convolution and Embedding, those that share a
    weight once (`sharing`).

    Layers at or inside a path of the plan's `skip` stay in floating point (32 bits) with what
    shares their weight, and so do convolutions under `int8-dynamic`, which no runtime computes
    faster that way. Embeddings, and what is tied with them, have one scale a row. InputError if a
    path to skip matches no layer.
    """
    out: dict[str, LayerPlan] = {}
    unlisted = [*recurrent(module), *floating(module)]
    unused = {s for s in plan.skipped if not any(p == s or p.startswith(s + ".") for p in unlisted)}
    for path, paths in sharing(module).items():
        m, entry = module.get_submodule(path), plan.whole
        if isinstance(m, nn.Embedding):
            entry = replace(entry, bits=plan.embeddings, granularity="channel")
        elif plan.scheme == "int8-dynamic" and is_convolution(m):
            entry = replace(entry, bits=32)
        if entry.granularity != "group":
            entry = replace(entry, group=0)
        hit = {s for s in plan.skipped if any(p == s or p.startswith(s + ".") for p in paths)}
        unused -= hit
        out[path] = replace(entry, bits=32) if hit else entry
    if unused:
        raise InputError(
            "these layers to skip are not in the model", got=sorted(unused), allowed=", ".join([*out, *unlisted][:40])
        )
    return out


def grid_of(layer: LayerPlan, integer: bool, saturates: bool) -> Grid:
    """The grid that a layer of a plan of 4 or 8 bits asks for.

    integer: 8-bit codes are multiplied as such, so they are mirrored; where moreover such products
    overflow on this processor (`saturates`, see `machine.saturates`) they use 7 bits (-63 .. 63),
    stored as 8. The code range is a property of the scale: the plan goes on saying 8.
    """
    integer = integer and layer.bits == 8
    bits = 7 if integer and saturates else layer.bits
    return Grid(bits, layer.granularity, layer.group, layer.symmetric, mirrored=integer)
