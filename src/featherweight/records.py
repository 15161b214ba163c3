"""What the parts of Featherweight tell each other: trials, entries, events. Plain data, JSON round trip, no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .space.space import Filling, key

State = Literal["running", "complete", "failed", "stopped"]
Event = dict[str, Any]  # {"kind": .., "trial": n or None, "time": unix seconds, ...}


@dataclass
class Entry:
    """A measured candidate or baseline: one line of the front table. `to_json` is ENTRY of front.json.

    latency_ms: {"median", "p90", "n", "cpu_median", "load"}; wall milliseconds an inference (batch of the target).
    speedup: {"ratio", "ci95": [low, high], "clock": "cpu" | "wall", "n"}: baseline time / this time, interleaved.
    metric: {"name", "value", "ci95", "n", "split", "higher_is_better"}.
    coverage: of a quantized artifact {"quantized": {operator: count}, "float": {...}, "layers": {how they are held and run: number of layers}}.
    """

    label: str
    trial: int | None
    recipe: Any
    target: str
    metric: dict[str, Any]
    latency_ms: dict[str, Any]
    speedup: dict[str, Any]
    size_bytes: int
    peak_memory_bytes: int
    params: int
    macs: int
    artifact: str
    sha256: str
    parity: dict[str, Any] = field(default_factory=dict)
    coverage: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    filling: Filling = field(default_factory=dict)
    feasible: bool = False
    violations: list[dict[str, Any]] = field(default_factory=list)
    certificate: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Entry:
        return cls(**data)

    @property
    def quantities(self) -> dict[str, float]:
        """The numbers that constraints and objectives are about.

        `latency` is the ratio to the baseline, measured interleaved, because only ratios are comparable between
        trials on a machine whose speed drifts; `latency_ms` is the absolute median.
        """
        value = float(self.metric["value"])
        return {
            "metric": value,
            "error": -value if self.metric.get("higher_is_better", True) else value,
            "latency": 1.0 / float(self.speedup["ratio"]),
            "latency_ms": float(self.latency_ms["median"]),
            "size": float(self.size_bytes),
            "memory": float(self.peak_memory_bytes),
            "params": float(self.params),
            "macs": float(self.macs),
        }


def metric_drop(metric: dict[str, Any], reference: dict[str, Any]) -> float:
    """How much worse the metric is than the reference's, both as `Entry.metric`; negative if it is better."""
    sign = 1.0 if metric.get("higher_is_better", True) else -1.0
    return sign * (float(reference["value"]) - float(metric["value"]))


@dataclass
class Trial:
    """A filled recipe and what became of it: what a strategy is shown, and what reports tell.

    values: the objectives, all to be minimised, each divided by the baseline's (1.0 = as the baseline).
    violation: sum of how far each constraint is broken (0 = feasible), each relative to its bound.
    note: what the proposing strategy wants to find again (JSON); cost_s: seconds that the trial took; propose_s: that it took to
    propose it; features: what was known of the filling before it ran; reports: of a trial that tells while it trains, by budget
    spent (epochs), its loss-like score then (less is better).
    For reports: proxy: what it scored untrained; recipe (JSON), target: as they ran; entry: its measurement; reason: why it
    failed or was stopped; steps, reused: how many it had, and how many of them were found in the store; paused: it waits at a
    rung, its state is "stopped"; before_s: seconds that it took until its last pause.
    """

    number: int
    filling: Filling
    state: State = "running"
    values: tuple[float, ...] | None = None
    violation: float = 0.0
    cost_s: float = 0.0
    note: dict[str, Any] = field(default_factory=dict)
    features: dict[str, float] = field(default_factory=dict)
    propose_s: float = 0.0
    reports: dict[float, float] = field(default_factory=dict)
    proxy: dict[str, float] = field(default_factory=dict)
    recipe: Any = None
    target: str | None = None
    entry: Entry | None = None
    reason: str | None = None
    steps: int = 0
    reused: int = 0
    paused: bool = False
    before_s: float = 0.0

    @property
    def open(self) -> bool:
        """May it still get values? It runs, or it was stopped, and one that a stopper put down may go on."""
        return self.state in ("running", "stopped")

    @property
    def usable(self) -> bool:
        """Did it finish with objectives that are numbers?"""
        return self.state == "complete" and self.finite

    @property
    def finite(self) -> bool:
        """Has it objectives, in whatever state it is, and are they numbers?"""
        return bool(self.values) and all(map(math.isfinite, (*(self.values or ()), self.violation)))

    @property
    def score_key(self) -> tuple[float, float]:
        """Feasible before infeasible, then the geometric mean of the objectives. For a single ranking of trials."""
        if self.values is None:
            return (math.inf, math.inf)
        return (self.violation, sum(math.log(max(v, 1e-12)) for v in self.values) / max(len(self.values), 1))

    def to_json(self) -> dict[str, Any]:
        """A line of the table of trials in reports."""
        return {
            "number": self.number,
            "state": self.state,
            "filling": self.filling,
            "recipe": self.recipe,
            "target": self.target,
            "entry": self.entry.to_json() if self.entry else None,
            "reason": self.reason,
            "seconds": self.cost_s,
            "steps": self.steps,
            "reused": self.reused,
            "strategy_note": self.note,
            "features": {**self.features, **self.proxy},
            "reports": self.reports,
            "paused": self.paused,
        }


class History:
    """All trials of a study in order of number, running ones included. Appending and updating cost O(1)."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials: list[Trial] = []
        self._keys: dict[str, int] = {}
        for t in trials:
            self.add(t)

    def add(self, trial: Trial) -> None:
        """Append a trial; its number must be the next one."""
        if trial.number != len(self._trials):
            raise ValueError(f"trial {trial.number} added as number {len(self._trials)}")
        self._trials.append(trial)
        self._keys.setdefault(key(trial.filling), trial.number)

    def seen(self, filling: Filling) -> bool:
        """Was this filling proposed before (in whatever state it is now)?"""
        return key(filling) in self._keys

    def seen_key(self, filling_key: str) -> bool:
        """`seen`, for who has the filling's `key` already."""
        return filling_key in self._keys

    @property
    def distinct(self) -> int:
        return len(self._keys)

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    def last(self, n: int) -> list[Trial]:
        """The `n` newest trials, oldest first; fewer if there are not so many."""
        return self._trials[-n:]

    def complete(self) -> list[Trial]:
        return [t for t in self._trials if t.state == "complete"]
