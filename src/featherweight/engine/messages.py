"""What a study and its workers tell each other: the set-up, jobs, and what becomes of them. Plain
data, JSON round trip, no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args

from ..limits import Constraint
from ..records import TOO_LONG

Kind = Literal["progress", "report", "finished", "paused", "failed"]
KINDS = get_args(Kind)
READY = "ready"  # the step of a worker that has started, and begins its first job
# kinds after which a job still runs; a report waits for its answer
GOING_ON = ("progress", "report")


class Plain:
    """Abstract: a frozen dataclass that is JSON data. A field's metadata may name the class of its
    value (`of`) or of its items (`each`)."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        values = dict(data)
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            if "of" in f.metadata and values.get(f.name) is not None:
                values[f.name] = f.metadata["of"].from_json(values[f.name])
            if "each" in f.metadata and f.name in values:
                values[f.name] = tuple(f.metadata["each"](**item) for item in values[f.name])
            elif str(f.type).startswith("tuple") and f.name in values:
                values[f.name] = tuple(values[f.name])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Setup(Plain):
    """What a worker knows of its study. task: its reference, or the folder that
    holds it (`carried`); store: where
    results are kept; fingerprint: the task's, "": any; baseline: the recipe that makes it (JSON;
    None: the task's own way)."""

    task: Any
    seed: int
    device: str
    threads: int
    store: str
    reuse: bool
    fingerprint: str
    baseline: Any = None


@dataclass(frozen=True)
class Made(Plain):
    """An artifact's folder, the target that it is for, and its sha256 by the study's log. to: where
    its outputs on a split are written; said: their sha256 by the log ("": it does not say)."""

    artifact: str
    target: str
    sha256: str
    to: str = ""
    said: str = ""


@dataclass(frozen=True)
class RungPlan(Plain):
    """Where a training tells its score: at these epochs, those in `reported` having been told
    before; checkpoint: the file that it may go on from."""

    epochs: tuple[float, ...]
    reported: tuple[float, ...]
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class Job(Plain):
    """Abstract: what a worker is asked to do. id: comes back with all that is said of the job."""

    kind: ClassVar[str]
    id: Any = None

    def to_json(self) -> dict[str, Any]:
        return {"job": self.kind, **super().to_json()}


@dataclass(frozen=True, kw_only=True)
class TrialJob(Job):
    """Make, export and measure a candidate. reference: what it is timed against, and compared with
    by its outputs on the validation split (None: itself); seconds: of timing; timeout_s: of
    measuring; keep: the folder that its artifact is copied into; outputs: where the outputs are
    written of an artifact that is its own reference ("": nothing is written or compared); alone:
    its metric is compared with the best value, not with the baseline's;
    screen: limits, absolute (or relative to the reference's latency), that are checked on the
    untrained candidate first."""

    kind = "trial"
    recipe: Any
    target: str
    label: str
    trial: int | None
    filling: dict[str, Any]
    reference: Made | None = field(metadata={"of": Made})
    seconds: float
    timeout_s: float
    keep: str
    outputs: str = ""
    alone: bool = False
    screen: tuple[Constraint, ...] = field(default=(), metadata={"each": Constraint})
    rungs: RungPlan | None = field(default=None, metadata={"of": RungPlan})


@dataclass(frozen=True, kw_only=True)
class CertifyJob(Job):
    """Is the candidate worse than the baseline by at most max_drop, on the test split, or (if there
    is a min_metric) does it reach that? At this level; max_drop None: how much worse is it?"""

    kind = "certify"
    baseline: Made = field(metadata={"of": Made})
    candidate: Made = field(metadata={"of": Made})
    max_drop: float | None
    timeout_s: float
    level: float
    min_metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class PackageJob(Job):
    """Write a candidate's architecture spec and weights into the folder `to`, and beside it what
    deploys its artifact, made for the target ("": the weights alone)."""

    kind = "package"
    recipe: Any
    to: str
    artifact: str = ""
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class RelaxJob(Job):
    """Train a net with holes (JSON) as one net, and rank its fillings. settings:
    of `train.relax_settings.Relax`."""

    kind = "relax"
    net: Any
    settings: dict[str, Any]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Message(Plain):
    """What is said of a job, `id`, that has run for `seconds`.

    progress: facts ("step", "epoch", "of", "loss"; of READY "start_s", what the start took);
    report: a score at a rung, `epoch` of `of`, less is better; paused: it waits at `epoch`;
    finished: its result; failed: the reason, with the kind of error, and of limits that are broken
    before training `over` and `violation`. Of an outcome, facts: "leaving": the worker ends with
    it.
    """

    kind: Kind
    id: Any = None
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    epoch: float | None = None
    of: int | None = None
    score: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    error: str = ""
    over: dict[str, Any] | None = None
    violation: float = 0.0


def timed_out(reason: str) -> bool:
    """Does a job's reason say that its time was up: its own, or that of its measurement?"""
    return reason.startswith("time limit") or TOO_LONG in reason
