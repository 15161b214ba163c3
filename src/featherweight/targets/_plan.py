"""What a quantization plan may say. Made by the Quantize transform, realised by each runtime in its own way."""

from __future__ import annotations

from typing import Any

from ..errors import TargetError

ALLOWED: dict[str, tuple[str, ...]] = {
    "scheme": ("int8-static", "int8-dynamic"),
    "granularity": ("channel", "tensor"),
    "activations": ("u8", "s8"),
    "calibrate": ("minmax", "percentile", "entropy"),
}


def check_plan(plan: dict[str, Any]) -> str | None:
    """None if the plan is well formed, else what is wrong with it.

    int8-dynamic needs scheme and granularity only: activation ranges are found while it runs.
    """
    static = plan.get("scheme") == "int8-static"
    for name in ALLOWED if static else ("scheme", "granularity"):
        if plan.get(name) not in ALLOWED[name]:
            return f"the plan's {name} is {plan.get(name)!r}; allowed: {', '.join(ALLOWED[name])}"
    samples = plan.get("samples")
    if static and (not isinstance(samples, int) or isinstance(samples, bool) or samples < 1):
        return f"the plan's samples is {samples!r}; allowed: a whole number of at least 1"
    skip = plan.get("skip", [])
    if not isinstance(skip, (list, tuple)) or not all(isinstance(s, str) for s in skip):
        return f"the plan's skip is {skip!r}; allowed: a list of layer names"
    return None


def nothing_quantized(scheme: str, found: object, fix: str | None = None) -> TargetError:
    """The error for an artifact that would not contain what its plan asks for."""
    return TargetError(
        f"{scheme} quantized nothing in this model", got=found, allowed="a model with layers that it can quantize and that are not skipped", fix=fix
    )


def needs_calibration() -> TargetError:
    return TargetError("int8-static needs calibration inputs", got="none", fix="give input tensors [n, ...] from the training split")
