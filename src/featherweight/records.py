"""What the parts of Featherweight tell each other: trials, entries, events.
Plain data, JSON round trip, no torch."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from .errors import InputError
from .space.space import Filling, key

State = Literal["running", "complete", "failed", "stopped"]
TOO_LONG = "took too long"  # what the error of a measurement says that ran out of time
Event = dict[str, Any]  # {"kind": .., "trial": n or None, "time": unix seconds, ...}


class _Numbers:
    """Abstract: a measurement as a frozen dataclass that reads its own JSON, of any age; what it
    does not know is left out."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in names})

    def to_json(self) -> dict[str, Any]:
        out = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}


@dataclass(frozen=True)
class Quality(_Numbers):
    """What a metric gives on a split of n samples, with its 95 % interval."""

    name: str
    value: float
    ci95: tuple[float, float] | None
    n: int
    higher_is_better: bool = True
    split: str = ""

    @property
    def error(self) -> float:
        """The value turned so that less is better."""
        return -self.value if self.higher_is_better else self.value


@dataclass(frozen=True)
class Paired(_Numbers):
    """A candidate against the baseline on the same n samples. drop: how much worse its metric is;
    sd: of one sample's drop (of a metric that is no mean: what makes sd / sqrt(n) the drop's
    standard error); lost, won: the samples that only the baseline, and only the candidate, got
    right (None unless every sample is right or wrong); cost: the drop of a sample that fails, an
    answer that belongs to another one, the mean of the worst hundredth of them (None: not asked, or
    compared before it was); best: the value on every sample that stands for the baseline, if the
    metric itself is to be shown and not a drop (its drop is what the metric lacks to that).

    Samples are those that count by themselves: copies, and rows of a group, are one."""

    drop: float
    n: int
    sd: float
    lost: float | None = None
    won: float | None = None
    cost: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Latency(_Numbers):
    """Wall milliseconds an inference (batch of the target) of n; cpu_median: processor
    milliseconds; load: the share of the machine that others used meanwhile; quantiles: wall
    milliseconds at `measure.latency.QUANTILES` (None: measured before they were kept)."""

    median: float
    p90: float
    n: int
    cpu_median: float
    load: float
    quantiles: tuple[float, ...] | None = None

    def scaled(self, factor: float) -> Latency:
        """All times, times this."""
        times = {name: getattr(self, name) * factor for name in ("median", "p90", "cpu_median")}
        return dataclasses.replace(
            self, **times, quantiles=self.quantiles and tuple(q * factor for q in self.quantiles)
        )


@dataclass(frozen=True)
class Speedup(_Numbers):
    """Baseline time / this time, interleaved, in n rounds, by `clock` ("cpu" or "wall"), with its
    95 % interval; wall, cpu: {"ratio", "ci95"} by each clock."""

    ratio: float
    ci95: tuple[float, float]
    clock: str
    n: int
    wall: dict[str, Any] | None = None
    cpu: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in super().to_json().items() if v is not None}


@dataclass(frozen=True)
class Measured:
    """What a fresh process found of an artifact. reference, speedup: None if it was timed alone;
    rounds: of the timing; outputs: a .npy file, None if they were not asked for, computed in
    batches of outputs_batch."""

    peak_memory_bytes: int
    latency_ms: Latency
    reference_ms: Latency | None
    speedup: Speedup | None
    rounds: int
    outputs: str | None
    outputs_batch: int | None

    def to_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("latency_ms", "reference_ms", "speedup")}
        return {**dataclasses.asdict(self), **{name: part.to_json() if part else None for name, part in parts.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measured:
        reference, speedup = data["reference_ms"], data["speedup"]
        return cls(
            data["peak_memory_bytes"],
            Latency.from_json(data["latency_ms"]),
            Latency.from_json(reference) if reference is not None else None,
            Speedup.from_json(speedup) if speedup is not None else None,
            data["rounds"],
            data.get("outputs"),
            data.get("outputs_batch"),
        )


@dataclass
class Entry:
    """A measured candidate or baseline: one line of the front table.
    `to_json` is ENTRY of front.json.

    parity: of the artifact's outputs with the PyTorch model's.
    coverage: of a quantized artifact {"quantized": {operator: count}, "float": {...},
    "layers": {how they are held and run: number of layers}}.
    paired: against the baseline on the metric's split (None: not compared so). chance: that the
    test split will certify it, as judged when it was measured (None: not judged, or nothing is
    to be certified). rung: how often the recovery was made longer after the search (0: it is as
    it was searched). graph: equal for files that differ in their weights' values only, and so take
    the same time (None: not known).
    """

    label: str
    trial: int | None
    recipe: Any
    target: str
    metric: Quality
    latency_ms: Latency
    speedup: Speedup
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
    paired: Paired | None = None
    chance: float | None = None
    rung: int = 0
    graph: str | None = None

    def to_json(self) -> dict[str, Any]:
        numbers = {name: m.to_json() for name in _MEASURED if (m := getattr(self, name)) is not None}
        return {
            f.name: numbers[f.name] if f.name in numbers else copy.deepcopy(getattr(self, f.name))
            for f in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Entry:
        numbers = {name: kind.from_json(data[name]) for name, kind in _MEASURED.items() if data.get(name) is not None}
        return cls(**{**data, **numbers})

    def check(self) -> None:
        """ValueError or TypeError if it says what no measurement says, as in a file that was
        edited."""
        ends = (*self.speedup.ci95, *(self.metric.ci95 or ()), self.latency_ms.p90, self.seconds)
        odd = {k: v for k, v in self.quantities.items() if not math.isfinite(v)}
        if odd or not all(map(math.isfinite, ends)) or min(self.size_bytes, self.params, self.macs) < 0:
            raise ValueError(f"numbers of {self.label!r:.80} that no measurement gives: {odd or ends}")
        texts = (self.label, self.target, self.artifact, self.sha256)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.recipe, (dict, list)):
            raise TypeError(f"label, target, artifact, sha256 or recipe: {texts!r:.200}")

    @property
    def quantities(self) -> dict[str, float]:
        """The numbers that constraints and objectives are about.

        `latency` is the ratio to the baseline, measured interleaved, because only ratios are
        comparable between trials on a machine whose speed drifts; `latency_ms` is the
        absolute median.
        """
        return {
            "metric": self.metric.value,
            "error": self.metric.error,
            "latency": 1.0 / self.speedup.ratio,
            "latency_ms": self.latency_ms.median,
            "size": float(self.size_bytes),
            "memory": float(self.peak_memory_bytes),
            "params": float(self.params),
            "macs": float(self.macs),
        }


_MEASURED: dict[str, type[Quality] | type[Latency] | type[Speedup] | type[Paired]] = {
    "metric": Quality,
    "latency_ms": Latency,
    "speedup": Speedup,
    "paired": Paired,
}


@dataclass
class Trial:
    """A filled recipe and what became of it: what a strategy is shown, and what reports tell.

    values: the objectives, all to be minimised, each divided by the baseline's
    (1.0 = as the baseline).
    violation: sum of how far each constraint is broken (0 = feasible), each relative to its bound.
    note: what the proposing strategy wants to find again (JSON); cost_s: seconds that the trial
    took; propose_s: that it took to propose it; features: what was known of the filling before it
    ran; reports: of a trial that tells while it trains, by budget spent (epochs), its loss-like
    score then (less is better).
    For reports: proxy: what it scored untrained; recipe (JSON), target: as they ran; entry:
    its measurement; reason: why it failed or was stopped; steps, reused: how many it had, and how
    many of them were found in the store; paused: it waits at a rung, its state is "stopped";
    before_s: seconds that it took until its last pause.
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
        """May it still get values? It runs, or it was stopped,
        and one that a stopper put down may go on."""
        return self.state in ("running", "stopped")

    @property
    def usable(self) -> bool:
        """Did it finish with objectives that are numbers?"""
        return self.state == "complete" and self.finite

    @property
    def finite(self) -> bool:
        """Has it objectives, in whatever state it is, and are they numbers?"""
        return bool(self.values) and all(map(math.isfinite, (*(self.values or ()), self.violation)))

    def objectives(self, first: int) -> int:
        """How many objectives it has. InputError unless as many as `first`, the number of those of
        the first with values (0: it is the first)."""
        found = len(self.values or ())
        if first and found != first:
            raise InputError(
                f"trial {self.number} has another number of objectives than the first", got=found, allowed=first
            )
        return found

    @property
    def score_key(self) -> tuple[float, float]:
        """Feasible before infeasible, then the geometric mean of the objectives.
        For a single ranking of trials."""
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
    """All trials of a study in order of number, running ones included.
    Appending and updating cost O(1)."""

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
