"""What a stopper is: a pure function of what trials have told while they trained. No torch here.

A trial's *budget* is the number of epochs that the first training step of its recipe has run; less
than one is a share of the training data, seen once. At a *rung*, a budget that the stopper names,
the trial tells its score (less is better) and the stopper says whether it waits there. A trial that
waits keeps a checkpoint and goes on from it if it is promoted; nothing is trained twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from ..errors import InputError

# trial -> {budget spent: score, less is better}; NaN is worse than any number
Reports = Mapping[int, Mapping[float, float]]
LEAST = 0.001  # epochs to the first rung
States = Mapping[int, str]  # every trial that was started -> "running", "paused" or "ended"


class Stopper(ABC):
    """Abstract. Holds settings, no state: the same reports and states give the same answers, in
    whatever order they arrived."""

    @abstractmethod
    def rungs(self, trial: int, of: float) -> tuple[float, ...]:
        """The budgets, rising, each above 0 and below `of` (the trial's full one), at which the
        trial has to tell its score."""

    @abstractmethod
    def decide(self, reports: Reports, trial: int, step: float) -> bool:
        """Must the trial stop at the rung `step`, whose score is in `reports` already? It may be
        promoted at once."""

    def promote(self, reports: Reports, states: States, closed: bool = False) -> int | None:
        """A paused trial that deserves to go on; None if none does. closed: no further trial
        will be started, so nothing is gained by waiting for one. What this never names,
        stopped for good."""
        return None

    @property
    def final(self) -> bool:
        """True: what it stops never goes on, so no checkpoint has to be kept."""
        return type(self).promote is Stopper.promote


def check_budgets(kind: str, min_budget: float, max_budget: float | None, eta: int) -> None:
    """InputError unless 0.001 <= min_budget <= max_budget and 2 <= eta <= 1000."""
    numbers = [b for b in (min_budget, max_budget) if b is not None]
    if (
        any(isinstance(b, bool) or not isinstance(b, (int, float)) for b in numbers)
        or not LEAST <= min_budget <= numbers[-1] < math.inf
    ):
        raise InputError(
            f"{kind} needs budgets in epochs",
            got=f"min_budget={min_budget}, max_budget={max_budget}",
            allowed=(
                f"{LEAST} <= min_budget <= max_budget, or max_budget=None: each trial's own epochs; "
                "0.25 is a quarter of the data"
            ),
        )
    if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not 2 <= eta <= 1000:
        raise InputError(f"{kind} keeps one trial in eta", got=f"eta={eta}", allowed="2 <= eta <= 1000")


def rung(epochs: float) -> float:
    """A budget as it is written and compared: whole where it is whole, else to a millionth."""
    near = round(epochs, 6)
    return int(near) if near == int(near) else near
