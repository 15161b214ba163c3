"""How a supernet is trained and read. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

METHODS = ("darts", "gumbel", "oneshot")
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Relax:
    """How a supernet is trained and read.

    method: darts (mixtures), gumbel (one option an edge, drawn; straight-through), oneshot (uniform
    paths; any family of nets). epochs over the weights' half of `train` (oneshot: four fifths);
    lr (cosine to 0), momentum, weight_decay: SGD of the weights;
    alpha_lr, alpha_decay: Adam of the alphas (beta1 = 0.5); warmup: epochs before the alphas move;
    unrolled: second-order gradient (DARTS eq. 7). temperature: tau at the first and at the last
    epoch (gumbel). cost: "params" or "macs"; cost_weight: of the expected cost, as a share of the
    dearest path's, in the loss of the alphas; cost_target: the share that is free.
    most_skips: edges that skips may dominate; hessian: watch the eigenvalue; window, ratio: of that
    guard. minutes: no new epoch after these.
    pool: sub-nets that the one-shot supernet holds; top: fillings given back; prefix: put before
    the names of holes ("build.net").
    """

    method: str = "darts"
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    alpha_lr: float = 3e-3
    alpha_decay: float = 1e-3
    warmup: int = 0
    unrolled: bool = False
    temperature: tuple[float, float] = (5.0, 0.2)
    cost: str | None = None
    cost_weight: float = 0.0
    cost_target: float = 0.0
    most_skips: int = 2
    hessian: bool = False
    window: int = 5
    ratio: float = 0.75
    minutes: float | None = None
    pool: int = 128
    top: int = 10
    prefix: str = ""
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", tuple(self.temperature))
        if self.method not in METHODS or self.cost not in (None, "params", "macs"):
            raise InputError(
                "relax does not know this",
                got=f"method={self.method!r}, cost={self.cost!r}",
                allowed=f"{METHODS}; params, macs",
            )
        low = {
            "epochs": 1,
            "batch_size": 2,
            "pool": 1,
            "top": 1,
            "warmup": 0,
            "most_skips": 0,
            "window": 1,
            "cost_weight": 0,
            "cost_target": 0,
        }
        positive = {"lr": self.lr, "alpha_lr": self.alpha_lr, "ratio": self.ratio, "temperature": min(self.temperature)}
        wrong = [f"{n}={getattr(self, n)}" for n, least in low.items() if not getattr(self, n) >= least]
        wrong += [f"{n}={v}" for n, v in positive.items() if not v > 0]
        if wrong or len(self.temperature) != 2:
            raise InputError(
                "relax cannot train with these settings",
                got=", ".join(wrong) or self.temperature,
                allowed=f"at least {low}; above 0: the rest",
            )
        if self.cost_weight > 0 and self.method == "oneshot":
            raise InputError(
                "oneshot has no alphas that a cost could weigh on",
                got=f"cost_weight={self.cost_weight}",
                fix="limits on the search",
            )
