"""Constraints (what the model must meet) and the budget (what the search may spend). No torch
here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any, ClassVar

from .errors import InputError, shown
from .records import Entry

_UNITS = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "params": {"": 1, "k": 1e3, "m": 1e6, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9},
}
_UNITS["memory"] = _UNITS["size"]
LEAST_MINUTES = 1 / 60  # of a budget: nothing is made and measured in less
OBJECTIVES = ("latency", "size", "memory", "params", "macs", "error")


@dataclass(frozen=True)
class Proof:
    """What the test split will show of an entry: the chance that its floor is certified, the chance
    that is asked for, and by how much the drop would have to be less, or the metric more, to have
    it (<= 0: it has); quantity: which floor that is."""

    chance: float
    confidence: float
    shortfall: float
    quantity: str = "drop"


@dataclass(frozen=True)
class Constraint:
    """`quantity` must be at most (or for `metric` at least) `bound`; `relative`: bound is a
    multiple of the baseline's (a drop: a share of its metric's value); `points`: it was given in
    percentage points, which only a metric between 0 and 1 has.

    A latency holds if the slow end of its 95 % interval does. Units: drop and metric in the
    metric's own unit, latency in ms, size and memory in bytes, params and macs as counts.
    """

    quantity: str
    bound: float
    relative: bool = False
    points: bool = False

    @property
    def floor(self) -> bool:
        """Is it about the metric, and so judged by what can be certified of it?"""
        return self.quantity in ("drop", "metric")

    def excess(self, entry: Entry, baseline: Entry, proof: Proof | None = None) -> float:
        """How far it is broken, relative to the bound; 0 if it holds. proof: what the test split
        will show of the entry; None: a floor is held to the value as it was measured."""
        value, bound = self._value(entry, baseline), self._bound(baseline)
        over = bound - value if self.quantity == "metric" else value - bound
        if proof is not None and proof.quantity == self.quantity:
            over = proof.shortfall
        scale = max(abs(bound), 0.01 if self.floor else 1e-12)
        return max(0.0, over / scale) if over > 1e-12 else 0.0

    def violation(self, entry: Entry, baseline: Entry, proof: Proof | None = None) -> dict[str, Any] | None:
        """None if it holds, else what was measured, what is allowed and by how
        much it is broken; of a floor that is judged by proof also the chance and the confidence
        asked for."""
        excess = self.excess(entry, baseline, proof)
        if excess == 0.0:
            return None
        shown = proof is not None and proof.quantity == self.quantity
        judged = {"chance": proof.chance, "confidence": proof.confidence} if proof is not None and shown else {}
        return {
            "constraint": str(self),
            "value": self._value(entry, baseline),
            "bound": self._bound(baseline),
            "excess": excess,
            **judged,
        }

    def _value(self, entry: Entry, baseline: Entry) -> float:
        q, b = entry.quantities, baseline.quantities
        if self.quantity == "drop":
            return q["error"] - b["error"]
        if self.quantity == "latency":  # the slow end of its interval
            slow = 1.0 / entry.speedup.ci95[0]
            return slow if self.relative else q["latency_ms"] * slow / q["latency"]
        return q[self.quantity]

    def _bound(self, baseline: Entry) -> float:
        if not self.relative or self.quantity == "latency":
            return self.bound
        return self.bound * baseline.quantities[self.quantity]

    def __str__(self) -> str:
        sign = ">=" if self.quantity == "metric" else "<="
        unit = "x" if self.relative else {"latency": " ms", "size": " bytes", "memory": " bytes"}.get(self.quantity, "")
        return f"{self.quantity} {sign} {self.bound:g}{unit}"

    def to_json(self) -> dict[str, Any]:
        """Without `points` where it is False, as files of before have it."""
        values = asdict(self)
        return values if self.points else {k: v for k, v in values.items() if k != "points"}

    def of_metric(self, low: float, high: float) -> Constraint:
        """This limit for a metric between `low` and `high`: a drop in percent is a share of the
        original's value where there is no largest error, and of 1 where 1 is best."""
        if self.quantity != "drop" or not self.points or (low, high) == (0, 1):
            return self
        if low == 0 and high == math.inf:
            return Constraint("drop", self.bound, relative=True)
        return Constraint("drop", self.bound) if high == 1 else self

    def absolute(self, value: float) -> Constraint:
        """This limit where the original's metric has this value: a drop in the metric's unit."""
        if self.quantity != "drop" or not self.relative:
            return self
        return Constraint("drop", self.bound * abs(value))

    def misfit(self, low: float, high: float) -> str | None:
        """The way out, if this floor makes no sense for a metric between `low` and `high` (a drop
        from one to the other would be allowed, so anything goes); None if it does, or is no
        floor."""
        if self.quantity not in ("drop", "metric") or self.relative:
            return None
        if self.points and (low, high) != (0, 1):
            return f"give the number in the metric's own unit: {self.quantity} {self.bound:g}"
        if self.bound >= high - low if self.quantity == "drop" else not low < self.bound <= high:
            if self.points:
                return "give a smaller drop: max_drop='1pt'"
            share = f"{self.bound / 100:g}"
            if self.quantity == "metric" and high < self.bound < 10 * high:
                return f"give a min_metric of at most {high:g}"
            if self.quantity == "metric" and self.bound <= low:
                return f"leave it out (any model has that), or give a min_metric above {low:g}"
            if self.quantity == "metric":
                return f"min_metric={share}, if points were meant"
            anything = f"; to let anything go: {0.99 * (high - low):g}" if self.bound == high - low else ""
            return f"max_drop={share}, or max_drop='{self.bound:g}pt', if points were meant{anything}"
        return None


def _number(bound: object) -> float:
    """A number of any kind as a float; NaN if it is none, as a truth value or bytes."""
    if isinstance(bound, bool) or not isinstance(bound, (Real, Decimal)):
        return math.nan
    try:
        return float(bound)
    except (OverflowError, ValueError):  # a whole number of hundreds of digits, a signalling NaN
        return math.nan


def _got(bound: object) -> object:
    """What an error says of a limit: None is nothing to it."""
    return bound if bound is not None and bound != "" else repr(bound)


def _parse(quantity: str, bound: str | float) -> Constraint:
    text = shown(bound).strip().lower()
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", text)
    units = _UNITS[quantity]
    allowed = (
        f"a positive number with a unit ({', '.join(u for u in units if u)}) or a multiple of the baseline such as 0.5x"
    )
    if match is None:
        raise InputError(f"max_{quantity} is not a limit", got=_got(bound), allowed=allowed)
    try:
        value = float(match[1])
    except ValueError as e:
        raise InputError(f"max_{quantity} is not a limit", got=_got(bound), allowed=allowed) from e
    unit = match[2]
    if not 0 < value * units.get(unit, 1) < float("inf") or (
        unit != "x" and unit not in units and not (unit == "" and not isinstance(bound, str))
    ):
        raise InputError(f"max_{quantity} is not a limit", got=_got(bound), allowed=allowed)
    if unit == "x":
        return Constraint(quantity, value, relative=True)
    # bytes and counts; of a latency without a unit a share is as likely to be meant
    if value * units.get(unit, 1) < 1 and (quantity != "latency" or unit == ""):
        fix = f"max_{quantity}('{value:g}x') for so much of the baseline's"
        fix += f", max_latency('{value:g}ms') for milliseconds" if quantity == "latency" else ""
        raise InputError(f"max_{quantity} is less than one", got=_got(bound), allowed=allowed, fix=fix)
    return Constraint(quantity, value * units.get(unit, 1))


def max_drop(bound: str | float) -> Constraint:
    """The metric may get worse by at most this much, against the baseline's: a number in its own
    unit, or, of a metric between 0 and 1, percentage points: 0.01, `"1pt"` and `"1%"` are the same
    (not a hundredth of the baseline's metric). Of an error without an upper end, as mse and mae,
    `"1%"` is that share of the baseline's."""
    match = (
        re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(%|pt|)\s*", bound.lower()) if isinstance(bound, str) else None
    )
    try:
        value = float(match[1]) if match else _number(bound)
    except ValueError:  # 1.2.3
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(
            "max_drop is not a limit",
            got=_got(bound),
            allowed="a number of at least 0, in the metric's unit: 0.01 is one point of accuracy, as are 1pt and 1%",
        )
    points = match is not None and match[2] != ""
    return Constraint("drop", value / 100 if points else value, points=points)


def min_metric(bound: float) -> Constraint:
    """The metric must reach this value (for a metric where higher is better), whatever the
    original's is. With `max_drop`, too, it is the drop that is certified, and this holds for the
    validation split."""
    if not abs(value := _number(bound)) < math.inf:
        raise InputError("min_metric is not a limit", got=_got(bound), allowed="a finite number, in the metric's unit")
    return Constraint("metric", value)


def max_latency(bound: str | float) -> Constraint:
    """`"0.5x"` of the baseline's, or `"2ms"` (wall time an inference, median);
    a plain number from 1 on is milliseconds."""
    return _parse("latency", bound)


def max_size(bound: str | float) -> Constraint:
    """`"0.5x"` of the baseline's, or `"300KB"` of artifact files; a plain number is bytes."""
    return _parse("size", bound)


def max_memory(bound: str | float) -> Constraint:
    """Peak resident memory of a fresh process that loads and runs the artifact:
    `"0.8x"`, `"200MB"` or bytes."""
    return _parse("memory", bound)


def max_params(bound: str | float) -> Constraint:
    """Number of parameters: `"0.5x"`, `"100k"` or a count."""
    return _parse("params", bound)


def max_macs(bound: str | float) -> Constraint:
    """Multiply-accumulates of one inference of one sample: `"0.5x"`, `"10M"` or a count."""
    return _parse("macs", bound)


# by option of the command line: what makes it, and its help
LIMITS: dict[str, tuple[Callable[..., Constraint], str]] = {
    "max_drop": (
        max_drop,
        "The metric may fall by this much; 0.01, 1pt or 1% is one point; of mse, mae and their kin 1% is a hundredth "
        "of the original's \\[default: 1% if no floor is given].",
    ),
    "min_metric": (min_metric, "The metric must reach this."),
    "max_latency": (max_latency, "0.7x of the original's, or 2ms."),
    "max_size": (max_size, "0.5x, or 300KB."),
    "max_memory": (max_memory, "Peak memory of a process that runs it: 0.8x, or 200MB."),
    "max_params": (max_params, "0.5x, or 100k."),
    "max_macs": (max_macs, "Multiply-accumulates of one sample: 0.5x, or 10M."),
}


def judge(entry: Entry, baseline: Entry, constraints: list[Constraint], proof: Proof | None = None) -> float:
    """Set the entry's `feasible`, `violations` and `chance`; return the summed excess
    (0 = feasible). proof: see `Constraint.excess`."""
    broken = [v for c in constraints if (v := c.violation(entry, baseline, proof)) is not None]
    entry.violations, entry.feasible = broken, not broken
    entry.chance = proof.chance if proof is not None else None
    return sum(float(v["excess"]) for v in broken)


def of_floor(violation: dict[str, Any]) -> bool:
    """Is it one of a floor, which is for test to decide, and not of a limit?"""
    return "chance" in violation or violation["constraint"].split(" ")[0] in ("drop", "metric")


def distance(violations: list[dict[str, Any]]) -> float:
    """How far an entry is from its limits, as it was measured: of a floor that only cannot be
    proven, nothing."""
    far = 0.0
    for v in violations:
        if "chance" in v:
            over = v["value"] - v["bound"] if v["constraint"].startswith("drop") else v["bound"] - v["value"]
            far += max(0.0, over) / max(abs(v["bound"]), 0.01)
        else:
            far += float(v["excess"])
    return far


def objectives(entry: Entry, baseline: Entry, minimize: list[str]) -> tuple[float, ...]:
    """The objectives divided by the baseline's, so 1.0 is as the baseline and less is better."""
    q, b = entry.quantities, baseline.quantities
    out = []
    for name in minimize:
        if name not in OBJECTIVES:
            raise InputError("no such objective", got=name, allowed=", ".join(OBJECTIVES))
        out.append(_error(entry, baseline) if name == "error" else q[name] / max(b[name], 1e-12))
    return tuple(out)


def _error(entry: Entry, baseline: Entry) -> float:
    """The error over the baseline's: of a metric where more is better and the baseline is between 0
    and 1, what lacks to 1; of one where less is better, its value. One sample's worth is added to
    both, so that none is 0 and no ratio is infinite. Of other metrics (below 0, or above 1) the
    exponential of the difference over the baseline's magnitude."""
    v, b, n = entry.metric.value, baseline.metric.value, max(baseline.metric.n, 1)
    if baseline.metric.higher_is_better and 0.0 <= b <= 1.0:
        return (1.0 - v + 1 / n) / (1.0 - b + 1 / n) if v <= 1.0 else math.exp(1.0 - v) / (1.0 + n * (1.0 - b))
    if not baseline.metric.higher_is_better and b > 0.0 <= v:
        return (v + b / n) / (b + b / n)
    return math.exp(min((entry.metric.error - baseline.metric.error) / max(abs(b), 1e-12), 700.0))


def _end(help: str) -> Any:
    """A field of `Budget`; help: of its option on the command line, in Rich's markup."""
    return field(default=None, metadata={"help": help})


@dataclass(frozen=True)
class Budget:
    """What the search may spend. `trials`: how many; `minutes`:
    wall time of the whole run, certification included.

    trial_minutes and trial_memory_gb limit one trial; what goes over them is a failed trial
    with that reason.

    The search also ends early: `enough`: a feasible candidate's metric has reached this;
    `stall`: the last so many finished trials brought nothing; `least_gain`: the strategy expects
    less than this of its next trials, as a share of the objectives (only strategies that expect
    something: bayesian, and adaptive through it).
    """

    trials: int | None = _end("Candidates to try \\[default: 40 if --minutes is not given either].")
    minutes: float | None = _end("Wall time of all of it, certificates included.")
    trial_minutes: float | None = _end("Time limit of one trial.")
    trial_memory_gb: float | None = _end("Memory limit of one trial.")
    enough: float | None = _end("End when the metric of a candidate within the limits reaches this.")
    stall: int | None = _end("End when so many trials in a row brought nothing.")
    least_gain: float | None = _end("End when the strategy expects less than this, as a share.")

    WHOLE: ClassVar[tuple[str, ...]] = ("trials", "stall")  # the others may have fractions

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name in self.WHOLE
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            low = -float("inf") if name == "enough" else 0  # a metric may be negative
            if value is not None and not (number and low < value < float("inf")):
                raise InputError(
                    f"the budget's {name} must be {'finite' if name == 'enough' else 'positive'}",
                    got=repr(value),
                    allowed=("a whole number" if whole else "a number") + ("" if name == "enough" else " above 0"),
                )
        if self.minutes is not None and self.minutes < LEAST_MINUTES:
            raise InputError(
                "the budget's minutes are less than a second",
                got=f"{self.minutes:g}, which are {60 * self.minutes:.2g} s",
                allowed=f"minutes, at least {LEAST_MINUTES:.3g}",
                fix="does it say seconds, or hours?",
            )
        if self.trials is None and self.minutes is None:
            raise InputError(
                "the budget has no end", got="neither trials nor minutes", fix="give trials=, minutes= or both"
            )
