"""What a quantization plan may say. Made by the Quantize, Qat and MixedPrecision transforms,
realised by each runtime in its own way.

A `Plan` has these fields, and its JSON these keys:

    what was asked for: {"scheme": "int8-static" | "int8-dynamic" | "weight-only",
                         "bits": 4 | 8 | 16, "granularity": "tensor" | "channel" | "group",
                         "group": n, "symmetric": bool, "embeddings": 4 | 8 | 16 | 32,
    static ranges:       "activations": "u8" | "s8", "calibrate": "minmax" | "percentile" |
                         "mse" | "entropy", "samples": n, "seed": n,
    left as it is:       "skip": [PATH, ..],
    what was decided:    "layers": {PATH: {"bits": 4 | 8 | 16 | 32, "granularity": .., "group": n,
                         "symmetric": bool}}}

What a plan leaves out is None, and no key of its JSON. A layer in JSON needs its bits only;
the rest is then the plan's. `layers` lists every Linear, convolution and Embedding of the model by
its module path, once the plan is made for a model. Layers that share a weight (a table and the
output layer tied with it) have one entry, see `models.quant.layers.sharing`. 32 bits: it stays in
floating point; 16: half precision. Without `layers` the plan is a question (can this target run
such a thing?).

Beside the plan a package has tensors (`Package.scales`), named after the layer:
    PATH.weight.scale, PATH.weight.zero   the grid that the weight already lies on, in the shapes of
                                          `models.quant.grid`; the target must keep it
    PATH.input.scale, PATH.input.zero     [1] each: the grid of the layer's input, learned in
                                          training; otherwise the target calibrates
A layer without them is rounded to nearest by the target, on a min-max grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from .errors import InputError, TargetError

ALLOWED: dict[str, tuple[Any, ...]] = {
    "scheme": ("int8-static", "int8-dynamic", "weight-only"),
    "bits": (4, 8, 16),
    "granularity": ("tensor", "channel", "group"),
    "symmetric": (True, False),
    "embeddings": (4, 8, 16, 32),
}
STATIC: dict[str, tuple[Any, ...]] = {
    "activations": ("u8", "s8"),
    "calibrate": ("minmax", "percentile", "mse", "entropy"),
}
LAYER_BITS = (4, 8, 16, 32)
_ANEW = "make it anew: apply the transform that makes the plan"


@dataclass(frozen=True)
class LayerPlan:
    """How one layer's weight is to be stored; bits 32: left alone, 16: half precision;
    group: weights that share a scale, 0 unless by group."""

    bits: int
    granularity: str = "channel"
    group: int = 0
    symmetric: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Ranges(NamedTuple):
    """How the activation ranges of a static plan are found."""

    activations: str
    calibrate: str
    samples: int


@dataclass(frozen=True)
class Plan:
    """How a target must quantize; None: left out. Its values are judged by `check_plan`, so that a
    target can say what it cannot do."""

    scheme: str
    bits: int
    granularity: str
    group: int
    symmetric: bool
    embeddings: int
    activations: str | None = None
    calibrate: str | None = None
    samples: int | None = None
    skip: tuple[str, ...] | None = None
    seed: int | None = None
    layers: Mapping[str, LayerPlan] | None = None

    def __post_init__(self) -> None:
        if self.layers is None or (
            isinstance(self.layers, Mapping) and all(isinstance(v, LayerPlan) for v in self.layers.values())
        ):
            return
        raise InputError(
            "a plan's layers are LayerPlans by module path",
            got=f"{self.layers!r:.200}",
            allowed="{path: LayerPlan(bits, ..)}",
            fix="make them so, or read the whole plan with Plan.from_json",
        )

    @property
    def whole(self) -> LayerPlan:
        """What the plan says of a layer of which it says nothing in particular."""
        return LayerPlan(self.bits, self.granularity, self.group, self.symmetric)

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.skip or ()

    def ranges(self) -> Ranges:
        """InputError if the plan does not say how activation ranges are found."""
        if self.activations is None or self.calibrate is None or self.samples is None:
            raise InputError(
                "the plan leaves out how activation ranges are found",
                got=self,
                fix="give its activations, calibrate and samples",
            )
        return Ranges(self.activations, self.calibrate, self.samples)

    def draw(self) -> tuple[int, int]:
        """(samples, seed) of its calibration samples; InputError if the plan leaves them out."""
        if self.samples is None or self.seed is None:
            raise InputError(
                "the plan leaves out which samples calibrate", got=self, fix="give its samples and its seed"
            )
        return self.samples, self.seed

    def to_json(self) -> dict[str, Any]:
        said = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if isinstance(self.skip, tuple):
            said["skip"] = list(self.skip)
        return (
            said
            if self.layers is None
            else said | {"layers": {path: layer.to_json() for path, layer in self.layers.items()}}
        )

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """The plan that `to_json` wrote; InputError if it is none, or not well formed."""
        names = tuple(f.name for f in fields(cls))
        if not isinstance(data, dict) or (unknown := sorted(set(map(str, data)) - set(names))):
            got = f"{data!r:.200}" if not isinstance(data, dict) else f"unknown keys {unknown}"
            raise InputError(
                "this is no quantization plan",
                got=got,
                allowed=f"an object with the keys {', '.join(names)}",
                fix=_ANEW,
            )
        if (problem := _problem(data)) is not None:
            raise InputError("this quantization plan is not well formed", got=problem, fix=_ANEW)
        values = data | {"group": data.get("group") or 0}
        if "skip" in data:
            values["skip"] = tuple(data["skip"])
        if "layers" in data:
            same = {name: values[name] for name in ("granularity", "group", "symmetric")}
            own = {path: same | layer for path, layer in data["layers"].items()}
            values["layers"] = {
                path: LayerPlan(**layer | {"group": layer["group"] or 0}) for path, layer in own.items()
            }
        return cls(**values)


def required(plan: Plan | None) -> Plan:
    """The plan of a package that must have one; TargetError otherwise."""
    if plan is None:
        raise TargetError(
            "there is nothing to quantize by", got="a package without a plan", fix="apply a transform that makes a plan"
        )
    return plan


def check_plan(plan: Plan) -> str | None:
    """None if the plan is well formed, else what is wrong with it."""
    if not isinstance(plan, Plan):
        return (
            f"the plan is a {type(plan).__name__}; "
            "allowed: a featherweight.plan.Plan (Plan.from_json makes one of JSON)"
        )
    return _problem(plan.to_json())


def _problem(plan: dict[str, Any]) -> str | None:
    """What is wrong with a plan's JSON."""
    static = plan.get("scheme") == "int8-static"
    said = STATIC if static else {name: allowed for name, allowed in STATIC.items() if plan.get(name) is not None}
    for name, allowed in (ALLOWED | said).items():
        if plan.get(name) not in allowed:
            return f"the plan's {name} is {plan.get(name)!r}; allowed: {', '.join(map(str, allowed))}"
    if plan["scheme"] != "weight-only" and plan["bits"] != 8:
        return (
            f"{plan['scheme']} computes with 8 bits; the plan's bits is {plan['bits']}: "
            "use scheme 'weight-only' for other widths"
        )
    if plan["granularity"] == "group" and not (isinstance(plan.get("group"), int) and plan["group"] >= 2):
        return f"the plan's group is {plan.get('group')!r}; allowed: a whole number of at least 2"
    if not _whole(plan.get("group") or 0, 0):
        return f"the plan's group is {plan['group']!r}; allowed: a whole number"
    samples = plan.get("samples")
    if not _whole(samples, 1) and (static or samples is not None):
        return f"the plan's samples is {samples!r}; allowed: a whole number of at least 1"
    if not isinstance(plan.get("seed", 0), int | None):
        return f"the plan's seed is {plan['seed']!r}; allowed: a whole number"
    skip = plan.get("skip", [])
    if not isinstance(skip, list | tuple) or not all(isinstance(path, str) for path in skip):
        return f"the plan's skip is {skip!r}; allowed: a list of module paths"
    layers = plan.get("layers", {})
    if not isinstance(layers, dict) or not all(
        isinstance(v, dict) and v.get("bits") in LAYER_BITS for v in layers.values()
    ):
        return (
            f"the plan's layers are {layers!r:.200}; "
            f"allowed: {{path: {{'bits': one of {LAYER_BITS}, 'granularity': .., ..}}}}"
        )
    return next(
        (found for path, layer in layers.items() if (found := _layer_problem(path, layer, plan)) is not None), None
    )


def _layer_problem(path: str, layer: dict[str, Any], plan: dict[str, Any]) -> str | None:
    own = {name: layer.get(name, plan.get(name)) for name in ("granularity", "group", "symmetric")}
    if unknown := sorted(set(map(str, layer)) - {"bits", *own}):
        return f"the plan's layer {path} has the keys {unknown}; allowed: bits, {', '.join(own)}"
    for name in ("granularity", "symmetric"):
        if own[name] not in ALLOWED[name]:
            return f"the plan's {name} of {path} is {own[name]!r}; allowed: {', '.join(map(str, ALLOWED[name]))}"
    least = 2 if own["granularity"] == "group" else 0
    if not _whole(own["group"] or 0, least):
        return f"the plan's group of {path} is {own['group']!r}; allowed: a whole number of at least {least}"
    return None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def integer_problem(plan: Plan, runtime: str) -> str | None:
    """Why integer products cannot be computed on the plan's weight grids: kernels take one
    symmetric scale a tensor or a channel."""
    if plan.scheme == "weight-only":
        return None
    if any(
        one.granularity == "group" or not one.symmetric
        for one in [plan.whole, *(v for v in (plan.layers or {}).values() if v.bits == 8)]
    ):
        return (
            f"{plan.scheme} on {runtime} has one symmetric weight scale a tensor or a channel: "
            "use granularity 'channel', symmetric"
        )
    return None


def nothing_quantized(scheme: str, found: object, fix: str | None = None) -> TargetError:
    """The error for an artifact that would not contain what its plan asks for."""
    return TargetError(
        f"{scheme} quantized nothing in this model",
        got=found,
        allowed="a model with layers that it can quantize and that are not skipped",
        fix=fix,
    )


def needs_calibration() -> TargetError:
    return TargetError(
        "int8-static needs calibration inputs", got="none", fix="give input tensors [n, ...] from the training split"
    )
