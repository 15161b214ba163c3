"""What a quantization plan may say. Made by the Quantize, Qat and MixedPrecision transforms, realised by each runtime in its own way.

    what was asked for: {"scheme": "int8-static" | "int8-dynamic" | "weight-only", "bits": 4 | 8 | 16, "granularity": "tensor" | "channel" | "group",
                         "group": n, "symmetric": bool, "embeddings": 4 | 8 | 16 | 32,
    static ranges:       "activations": "u8" | "s8", "calibrate": "minmax" | "percentile" | "mse" | "entropy", "samples": n, "seed": n,
    what was decided:    "layers": {PATH: {"bits": 4 | 8 | 16 | 32, "granularity": .., "group": n, "symmetric": bool}}}

`layers` lists every Linear, convolution and Embedding of the model by its module path, once the plan is made for a model; 32 bits: it stays in
floating point; 16: half precision. Without `layers` the plan is a question (can this target run such a thing?).

Beside the plan a package has tensors (`Package.scales`), named after the layer:
    PATH.weight.scale, PATH.weight.zero   the grid that the weight already lies on, in the shapes of `models.quant.grid`; the target must keep it
    PATH.input.scale, PATH.input.zero     [1] each: the grid of the layer's input, learned in training; otherwise the target calibrates
A layer without them is rounded to nearest by the target, on a min-max grid.
"""

from __future__ import annotations

from typing import Any

from .errors import TargetError

ALLOWED: dict[str, tuple[Any, ...]] = {
    "scheme": ("int8-static", "int8-dynamic", "weight-only"),
    "bits": (4, 8, 16),
    "granularity": ("tensor", "channel", "group"),
    "symmetric": (True, False),
    "embeddings": (4, 8, 16, 32),
}
STATIC: dict[str, tuple[Any, ...]] = {"activations": ("u8", "s8"), "calibrate": ("minmax", "percentile", "mse", "entropy")}
LAYER_BITS = (4, 8, 16, 32)


def check_plan(plan: dict[str, Any]) -> str | None:
    """None if the plan is well formed, else what is wrong with it."""
    static = plan.get("scheme") == "int8-static"
    for name, allowed in (ALLOWED | STATIC if static else ALLOWED).items():
        if plan.get(name) not in allowed:
            return f"the plan's {name} is {plan.get(name)!r}; allowed: {', '.join(map(str, allowed))}"
    if plan["scheme"] != "weight-only" and plan["bits"] != 8:
        return f"{plan['scheme']} computes with 8 bits; the plan's bits is {plan['bits']}: use scheme 'weight-only' for other widths"
    if plan["granularity"] == "group" and not (isinstance(plan.get("group"), int) and plan["group"] >= 2):
        return f"the plan's group is {plan.get('group')!r}; allowed: a whole number of at least 2"
    samples = plan.get("samples")
    if static and (not isinstance(samples, int) or isinstance(samples, bool) or samples < 1):
        return f"the plan's samples is {samples!r}; allowed: a whole number of at least 1"
    skip = plan.get("skip", [])
    if not isinstance(skip, list | tuple) or not all(isinstance(path, str) for path in skip):
        return f"the plan's skip is {skip!r}; allowed: a list of module paths"
    layers = plan.get("layers", {})
    if not isinstance(layers, dict) or not all(isinstance(v, dict) and v.get("bits") in LAYER_BITS for v in layers.values()):
        return f"the plan's layers are {layers!r:.200}; allowed: {{path: {{'bits': one of {LAYER_BITS}, 'granularity': .., ..}}}}"
    return None


def integer_problem(plan: dict[str, Any], runtime: str) -> str | None:
    """Why integer products cannot be computed on the plan's weight grids: kernels take one symmetric scale a tensor or a channel."""
    if plan["scheme"] == "weight-only":
        return None
    eight = [plan | layer for layer in plan.get("layers", {}).values() if layer["bits"] == 8] or [plan]
    if any(one["granularity"] == "group" or not one["symmetric"] for one in [plan, *eight]):
        return f"{plan['scheme']} on {runtime} has one symmetric weight scale a tensor or a channel: use granularity 'channel', symmetric"
    return None


def floating(plan: dict[str, Any]) -> list[str]:
    """The layers that the plan leaves in floating point."""
    return [path for path, layer in plan.get("layers", {}).items() if layer["bits"] == 32]


def nothing_quantized(scheme: str, found: object, fix: str | None = None) -> TargetError:
    """The error for an artifact that would not contain what its plan asks for."""
    return TargetError(
        f"{scheme} quantized nothing in this model", got=found, allowed="a model with layers that it can quantize and that are not skipped", fix=fix
    )


def needs_calibration() -> TargetError:
    return TargetError("int8-static needs calibration inputs", got="none", fix="give input tensors [n, ...] from the training split")
