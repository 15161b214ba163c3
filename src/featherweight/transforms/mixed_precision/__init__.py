"""MixedPrecision: a width for every layer, so that enough is saved and the least is lost; then what
went too far is put back.

Notation: G layers, L widths; loss [G][L] the sensitivity of a layer at a width, saving [G][L] the
share of the model that it saves. The widths are the solution of an integer program, as in HAWQ-V3
(Yao et al. 2021, arXiv:2011.10680, section 3.4), see `models.allocate`. Sensitivities add up only
roughly, so the result is judged as a whole, on the validation split, and the layer that measurably
hurts most is given the next width, again and again, until the floor holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import InputError
from ...plan import Plan
from ...recipe import Made, Mark, Shape, Transform
from ...space import Choice, Float, Int, param
from ..base import Context

if TYPE_CHECKING:
    from ...models.package import Package

_WIDTHS = {"int8-static": (8, 32), "int8-dynamic": (8, 32), "weight-only": (4, 8, 32)}  # where `widths` names none
_LEGAL = {"int8-static": (8, 32), "int8-dynamic": (8, 32), "weight-only": (4, 8, 16, 32)}


@dataclass(frozen=True)
class MixedPrecision(Transform):
    """Choose each layer's width by its sensitivity, under a saving that must be reached, and widen
    the worst layers until the metric holds.

    The drop is that of the simulated model on the validation split; the note has every step, and
    says so if the floor does not hold.
    """

    says = "Choose the number of bits layer by layer"

    version = 2

    @property
    def makes(self) -> frozenset[Mark]:
        return frozenset({Made.INTEGER_WEIGHTS})

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the weights are quantized already"}

    @property
    def shape(self) -> Shape:
        return Shape.FORMATS

    @property
    def depends(self) -> str:
        from ...machine import saturates

        return f"saturates={saturates()}"

    scheme: str = param(
        "int8-static",
        search=Choice("int8-static", "int8-dynamic", "weight-only"),
        legal=Choice("int8-static", "int8-dynamic", "weight-only"),
        doc="integer arithmetic with fixed or dynamic activation scales, or small weights only",
    )
    sensitivity: str = param(
        "measured",
        search=Choice("measured", "fisher", "taylor"),
        legal=Choice("measured", "fisher", "taylor"),
        doc="how much a layer suffers: from its run alone, or by a formula of its gradients",
    )
    save: float = param(
        0.6, search=Float(0.1, 0.75), legal=Float(0.0, 1.0), doc="share of what `limit` names that is to be saved"
    )
    limit: str = param(
        "size",
        legal=Choice("size", "latency"),
        doc="bytes of all weights, or predicted time: multiply-accumulates times bits",
    )
    widths: tuple[int, ...] = param(
        (), legal=Choice(4, 8, 16, 32), doc="bits to choose from; none named: 8, 32, and 4 for weight-only"
    )
    max_drop: float = param(
        0.01,
        search=Float(0.001, 0.05, log=True),
        legal=Float(0.0, 1e9),
        doc="largest drop of the metric on the validation split",
    )
    stop_below: float = param(
        0.1, legal=Float(0.0, 1.0), doc="share saved under which it is no longer worth it: no layer is widened beyond"
    )
    samples: int = param(
        256, search=Choice(64, 256, 512), legal=Int(1, 1_000_000), doc="training samples for sensitivities and ranges"
    )
    calibrate: str = param(
        "minmax",
        search=Choice("minmax", "percentile", "mse"),
        legal=Choice("minmax", "percentile", "mse"),
        doc="how a static range is chosen",
    )
    activations: str = param(
        "u8",
        search=Choice("u8", "s8"),
        legal=Choice("u8", "s8"),
        doc="unsigned (asymmetric) or signed (symmetric) activations",
    )
    granularity: str = param(
        "channel",
        search=Choice("channel", "tensor"),
        legal=Choice("channel", "tensor", "group"),
        doc="weights that share a scale",
    )
    group: int = param(32, legal=Int(2, 65536), doc="weights that share a scale, if by group (weight-only)")
    symmetric: bool = param(True, doc="no zero points; without them only for weight-only")
    skip: tuple[str, ...] = param((), doc="layers (module paths) left in floating point")

    def plan(self, seed: int = 0) -> Plan:
        """The plan without layers; `seed` picks the calibration samples.
        InputError if the fields contradict each other."""
        self._check()
        return Plan(
            scheme=self.scheme,
            bits=min(w for w in (*self.choices(), 16) if w <= 16),
            granularity=self.granularity,
            group=self.group if self.granularity == "group" else 0,
            symmetric=self.symmetric,
            embeddings=min(self.choices()),
            activations=self.activations,
            calibrate=self.calibrate,
            samples=self.samples,
            seed=seed,
        )

    def apply(self, model: Package, context: Context) -> Package:
        from ...models.allocate import choose
        from ...models.quant.layers import floating, recurrent
        from .layers import Layers
        from .rollback import roll_back

        plan = self.plan(context.seed)
        made = Layers(model.module, context, plan, self.choices(), self.skip, by_time=self.limit == "latency")
        options = {path: found for path, found in made.options.items() if len(found) > 1}
        if not options:
            raise InputError(
                "there is nothing to quantize in this model", got=made.left, allowed="layers that are not skipped"
            )
        loss = made.losses(self.sensitivity, options)
        saving = {path: [made.saving(path, e) for e in found] for path, found in options.items()}
        chosen = choose(list(loss.values()), list(saving.values()), self.save)
        levels = dict(zip(options, chosen, strict=True))
        known = loss if self.sensitivity == "measured" else {}
        levels, story = roll_back(
            made, levels, options, saving, known, save=self.save, max_drop=self.max_drop, stop_below=self.stop_below
        )
        layers = {path: made.options[path][levels.get(path, -1)] for path in made.options}
        widths, tables = [e.bits for e in layers.values()], [layers[path].bits for path in made.tables]
        quantized = replace(plan, bits=min(*widths, 16), embeddings=min(tables, default=32), layers=layers)
        # they stay as they are
        unweighed = recurrent(model.module) if self.scheme == "int8-dynamic" else []
        if unweighed := [*floating(model.module), *unweighed]:
            quantized = replace(quantized, skip=(*plan.skipped, *unweighed))
        note = {
            "widths": {str(b): widths.count(b) for b in sorted(set(widths))},
            "left": made.left,
            "asked": self.save,
            **story,
        }
        done = model.edited(plan=quantized if min(widths) < 32 else None)
        return done.noted(step=self.kind, scheme=self.scheme, sensitivity=self.sensitivity, limit=self.limit, **note)

    def choices(self) -> tuple[int, ...]:
        """The widths to choose from, rising; 32 is always one of them."""
        return tuple(sorted({*(self.widths or _WIDTHS[self.scheme]), 32}))

    def _check(self) -> None:
        integer = self.scheme != "weight-only"
        if wrong := sorted(set(self.choices()) - set(_LEGAL[self.scheme])):
            raise InputError(f"{self.scheme} has no such widths", got=wrong, allowed=_LEGAL[self.scheme])
        if integer and (self.granularity == "group" or not self.symmetric):
            raise InputError(
                f"{self.scheme} needs symmetric weights, with a scale for each tensor or channel",
                got=f"granularity={self.granularity}, symmetric={self.symmetric}",
                fix="use scheme='weight-only', or granularity='channel' and symmetric=True",
            )
        if not integer and self.limit == "latency":
            raise InputError(
                "weight-only leaves the arithmetic as it is, so no latency can be predicted",
                got="limit=latency",
                fix="use limit='size'",
            )
