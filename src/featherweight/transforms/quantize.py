"""Quantize: integer weights, and a plan for integer arithmetic that the target realises
when it exports.

The same plan is not the same graph on every runtime (activations that are fast as u8 on one are
slow on another), so the transform says what is wanted and each target builds it in the way that
it runs best; the target reports its coverage. Weights are rounded to nearest by the target, on
a min-max grid, unless a field asks for more: then they are rounded here, and their scales go
with the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..plan import LayerPlan, Plan
from ..recipe import Made, Mark, Shape, Transform
from ..space import Choice, Float, Int, param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package
    from ..models.quant.grid import Grid
    from ..models.quant.inputs import Batches
    from ..models.quant.trace import Flow


@dataclass(frozen=True)
class Quantize(Transform):
    """8-bit arithmetic with scales from training samples (`int8-static`) or from each input
    (`int8-dynamic`), or floating-point arithmetic with small weights (`weight-only`)."""

    says = "Store the weights, and where the scheme says so compute, in small integers"

    version = 3

    scheme: str = param(
        "int8-static",
        search=Choice("int8-static", "int8-dynamic"),
        legal=Choice("int8-static", "int8-dynamic", "weight-only"),
        doc="integer arithmetic with scales from samples or from each input, or integer weights only",
    )
    bits: int = param(8, legal=Choice(4, 8, 16), doc="of a weight; 4 and 16 (half precision) for weight-only")
    granularity: str = param(
        "channel",
        search=Choice("channel", "tensor"),
        legal=Choice("channel", "tensor", "group"),
        doc="one weight scale per output channel, per tensor, or (weight-only) per group of weights of a row",
    )
    group: int = param(32, search=Choice(32, 64, 128), legal=Int(2, 2**20), doc="weights that share a scale, by group")
    symmetric: bool = param(True, doc="weight codes around zero, without a zero point")
    activations: str = param(
        "u8",
        search=Choice("u8", "s8"),
        legal=Choice("u8", "s8"),
        doc="unsigned (asymmetric) or signed (symmetric) activations",
    )
    calibrate: str = param(
        "minmax",
        search=Choice("minmax", "percentile", "mse", "entropy"),
        legal=Choice("minmax", "percentile", "mse", "entropy"),
        doc="how a static range is chosen",
    )
    samples: int = param(
        256,
        search=Choice(64, 256, 512),
        legal=Int(1, 1_000_000),
        doc="training samples that set ranges, scales and roundings",
    )
    embeddings: int = param(
        8, search=Choice(8, 32), legal=Choice(4, 8, 16, 32), doc="bits of embedding tables; 32 leaves them"
    )
    skip: tuple[str, ...] = param((), doc="layers (module paths) left in floating point")
    rounding: str = param(
        "nearest",
        search=Choice("nearest", "gptq"),
        legal=Choice("nearest", "gptq"),
        doc="each weight by itself, or so that the others make up for it",
    )
    order: bool = param(False, doc="gptq: the columns with the largest inputs first")
    range: str = param(
        "minmax",
        search=Choice("minmax", "mse"),
        legal=Choice("minmax", "mse"),
        doc="weight scales that clip nothing, or err least",
    )
    equalize: str = param(
        "none",
        search=Choice("none", "cle", "smooth"),
        legal=Choice("none", "cle", "smooth", "awq"),
        doc="move ranges between layers first: cross-layer equalization, SmoothQuant (int8 schemes), AWQ (weight-only)",
    )
    alpha: float = param(
        0.5,
        search=Float(0.3, 0.8),
        legal=Float(0.0, 1.0),
        doc="smooth: how much of an input's range moves into the weights",
    )
    correct_bias: bool = param(
        False, search=Choice(False, True), doc="take the mean shift that rounding causes off the biases"
    )

    @property
    def makes(self) -> frozenset[Mark]:
        return frozenset({Made.INTEGER_WEIGHTS})

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the weights are quantized already"}

    @property
    def shape(self) -> Shape:
        return Shape.KEEPS

    @property
    def rounds(self) -> bool:
        """Are weights put on their grids here? Otherwise the target rounds them to nearest."""
        return self.rounding != "nearest" or self.range != "minmax" or self.equalize == "awq" or self.correct_bias

    @property
    def stored(self) -> bool:
        return self.rounds or self.equalize != "none"

    @property
    def depends(self) -> str:
        from ..machine import saturates

        return f"saturates={saturates()}" if self.rounds and self.scheme != "weight-only" else ""

    def plan(self, seed: int = 0) -> Plan:
        """The plan without layers; `seed` picks the calibration samples. A target can be asked
        about it before anything runs. InputError if the fields contradict each other."""
        if (problem := self._problem()) is not None:
            raise InputError("these settings of quantize do not go together", got=problem[0], fix=problem[1])
        return Plan(
            scheme=self.scheme,
            bits=self.bits,
            granularity=self.granularity,
            group=self.group,
            symmetric=self.symmetric,
            embeddings=self.embeddings,
            activations=self.activations,
            calibrate=self.calibrate,
            samples=self.samples,
            skip=self.skip,
            seed=seed,
        )

    def apply(self, model: Package, context: Context) -> Package:
        """A package with the plan and its layers. Where nothing but nearest rounding is asked
        for, the module is the one given; otherwise a copy, with its weights on the grids that
        `scales` describe.

        InputError if the fields contradict each other, or there is nothing to
        equalize in this model.
        """
        from ..models.quant.layers import decide, floating

        plan = self.plan(context.seed)
        plan = replace(plan, skip=(*self.skip, *floating(model.module)))
        layers = decide(model.module, plan)
        plan = replace(plan, layers=layers)
        note: dict[str, Any] = {
            "scheme": self.scheme,
            "bits": self.bits,
            "layers": sum(v.bits < 32 for v in layers.values()),
        }
        if not self.stored:
            return model.edited(plan=plan).noted(step="quantize", **note)
        module, scales, more = self._prepare(model.copied().eval(), layers, model.sparse, context)
        return model.edited(module=module, plan=plan, scales=scales).noted(step="quantize", **note, **more)

    def _prepare(
        self, module: nn.Module, layers: dict[str, LayerPlan], sparse: tuple[str, ...], context: Context
    ) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
        """Equalize and round `module` in place: (module, scales, what the note says of it)."""
        import torch

        from ..machine import saturates
        from ..models.quant.fold import fold
        from ..models.quant.inputs import batched
        from ..models.quant.layers import grid_of, is_layer
        from ..models.quant.pairs import check_unchanged
        from ..models.quant.rounding import Rounding, round_weights
        from ..models.quant.trace import trace

        inputs = list(context.calibration(self.samples).values())
        few, batches = tuple(t[:8] for t in inputs), batched(inputs)
        module.to(context.device)
        flow = trace(module, tuple(t[:2] for t in inputs))
        grids = {
            p: grid_of(v, self.scheme != "weight-only", saturates())
            for p, v in layers.items()
            if v.bits in (4, 8) and is_layer(module.get_submodule(p))
        }
        with torch.no_grad():
            before = module(*few)
        fold(module, flow.batch_norms)
        note = self._equalize(module, flow, grids, batches) if self.equalize != "none" else {}
        with torch.no_grad():
            check_unchanged(before, module(*few), f"folding batch norms, with equalize={self.equalize!r},")
        scales: dict[str, Tensor] = {}
        if self.rounds:
            how = Rounding(self.rounding, self.range, self.order, self.correct_bias)
            scales, left = round_weights(module, grids, flow, batches, how, sparse)
            note |= {"rounded": len(scales) // (1 if self.symmetric else 2), "left": left}
        return module.to("cpu"), scales, note

    def _equalize(self, module: nn.Module, flow: Flow, grids: dict[str, Grid], batches: Batches) -> dict[str, Any]:
        from ..models.quant.awq import awq
        from ..models.quant.equalize import equalize
        from ..models.quant.smooth import smooth

        pairs = [p for p in flow.pairs if any(c.path in grids for c in p.consumers)]
        note: dict[str, Any] = {"unequalized": flow.left}
        if self.equalize == "awq":
            powers = awq(module, pairs, grids, batches)
            note |= {"equalized": len(powers), "powers": powers}
        else:
            note["equalized"] = (
                equalize(module, pairs) if self.equalize == "cle" else smooth(module, pairs, batches, self.alpha)
            )
        if note["equalized"] == 0:
            raise InputError(
                f"equalize={self.equalize!r} finds nothing to equalize in this model",
                got="; ".join(f"{k}: {v}" for k, v in list(flow.left.items())[:5]) or "no layer that feeds another",
                allowed=(
                    "layers (awq: Linear ones) fed by a layer or norm through ReLU, pooling, "
                    "reshaping or attention's values"
                ),
                fix="use equalize='none'",
            )
        return note

    def _problem(self) -> tuple[str, str] | None:
        """What contradicts what, and the way out; None if the fields go together."""
        small = self.scheme == "weight-only"
        if not small and self.bits != 8:
            return f"scheme {self.scheme} with bits {self.bits}", "use 8 bits, or scheme='weight-only'"
        if not small and self.granularity == "group":
            return f"scheme {self.scheme} with granularity group", "use granularity='channel', or scheme='weight-only'"
        if self.bits == 16 and self.stored:
            return (
                "bits 16 (half precision) with a rounding, range, equalization or bias correction",
                "leave those fields out: there is no grid",
            )
        if self.equalize == "smooth" and small:
            return "equalize smooth with scheme weight-only", "use equalize='awq': there are no activations to smooth"
        if self.equalize == "awq" and not small:
            return f"equalize awq with scheme {self.scheme}", "use equalize='smooth', or scheme='weight-only'"
        if self.order and self.rounding != "gptq":
            return f"order with rounding {self.rounding}", "order is an option of rounding='gptq'"
        return None
