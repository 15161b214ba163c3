"""Quantize: a plan for integer arithmetic, which the target realises when it exports.

The same plan is not the same graph on every runtime (activations that are fast as u8 on one are slow on another), so the
transform says what is wanted and each target builds it in the way that it runs best; the target reports its coverage.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..recipe import Transform
from ..space import Choice, Int, param
from .base import Context

if TYPE_CHECKING:
    from ..models.package import Package


@dataclass(frozen=True)
class Quantize(Transform):
    """int8 weights; activations int8 with scales from training samples (`int8-static`) or from each input (`int8-dynamic`)."""

    @property
    def makes(self) -> frozenset[str]:
        return frozenset({"integer weights"})

    @property
    def refuses(self) -> dict[str, str]:
        return {"integer weights": "the weights are quantized already"}

    @property
    def stored(self) -> bool:
        return False

    scheme: str = param(
        "int8-static",
        search=Choice("int8-static", "int8-dynamic"),
        legal=Choice("int8-static", "int8-dynamic"),
        doc="where activation scales come from",
    )
    granularity: str = param(
        "channel", search=Choice("channel", "tensor"), legal=Choice("channel", "tensor"), doc="one weight scale per output channel, or per tensor"
    )
    activations: str = param("u8", search=Choice("u8", "s8"), legal=Choice("u8", "s8"), doc="unsigned (asymmetric) or signed (symmetric) activations")
    calibrate: str = param(
        "minmax",
        search=Choice("minmax", "percentile", "entropy"),
        legal=Choice("minmax", "percentile", "entropy"),
        doc="how a static range is chosen",
    )
    samples: int = param(256, search=Choice(64, 256, 512), legal=Int(1, 1_000_000), doc="training samples that set the ranges")
    skip: tuple[str, ...] = param((), doc="layers (module paths) left in floating point")

    def plan(self, seed: int = 0) -> dict[str, Any]:
        """The plan as data; `seed` picks the calibration samples. A target can be asked about it before anything runs."""
        return {"bits": 8, "group": 0, "symmetric": True, "embeddings": 32, **asdict(self), "skip": list(self.skip), "seed": seed}

    def apply(self, model: Package, context: Context) -> Package:
        return model.edited(plan=self.plan(context.seed)).noted(step="quantize", scheme=self.scheme)
