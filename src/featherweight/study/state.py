"""What a study knows: its event log folded into trials, baselines and a history. Rebuilt from the
log, so resuming is replaying."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .. import pareto
from ..errors import StoreError
from ..limits import Budget, Constraint, judge, objectives
from ..records import Entry, Event, History, State, Trial
from .config import Config

ENDED = ("complete", "failed", "stopped")


@dataclass
class StudyState:
    """Folded events. `apply` takes one event; everything else only reads."""

    constraints: list[Constraint] = field(default_factory=list)
    minimize: list[str] = field(default_factory=list)
    config: Config | None = None
    info: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Entry] = field(default_factory=dict)
    failed_baselines: dict[str, str] = field(default_factory=dict)
    trials: History = field(default_factory=History)
    # by artifact sha256 and target
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)
    # trials that failed before they ran: their steps cannot follow each other, or not on their
    # target, or a limit is broken
    refused: int = 0
    # what a supernet said before the search: {"ranked": [filling, best first], ...}
    relaxed: dict[str, Any] | None = None
    # what the strategy was told before the search: the fields of a `Warm`
    warm: dict[str, Any] | None = None
    ended: str | None = None  # why the search ended before its budget did
    steps: int = 0
    reused: int = 0
    spent_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    _opened: float | None = None
    _last: float = 0.0
    _phase: str | None = None

    def fold(self, events: Iterable[Event]) -> StudyState:
        for e in events:
            self.apply(e)
        return self

    def apply(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['kind']}", None)
        self._clock(event)
        if handler is not None:
            handler(event)

    @property
    def begun(self) -> Config:
        """The settings of the study. StoreError if it was never begun."""
        if self.config is None:
            raise StoreError("this study was never begun", fix="run `featherweight optimize`, or `search`")
        return self.config

    @property
    def baseline(self) -> Entry:
        return self.baselines["baseline"]

    def _clock(self, event: Event) -> None:
        """Time spent = the sum over runs of (last event - first event); a run begins with an `open`
        event, settings come before it."""
        if event["kind"] in ("open", "study", "info", "budget"):
            self._phase = None
        elif self._opened is not None:
            passed = max(0.0, event["time"] - self._last)
            self.spent_s += passed
            if self._phase is not None:
                self.phases[self._phase] = self.phases.get(self._phase, 0.0) + passed
        self._opened = self._last = event["time"]

    def _on_phase(self, event: Event) -> None:
        self._phase = event["name"]

    def _on_study(self, event: Event) -> None:
        self.config = Config.from_json(event["config"])
        self.constraints, self.minimize = list(self.config.constraints), list(self.config.minimize)

    def _on_budget(self, event: Event) -> None:
        if self.config is not None:
            self.config = dataclasses.replace(self.config, budget=Budget(**event["budget"]))

    def _on_info(self, event: Event) -> None:
        self.info = event["info"]

    def _on_baseline(self, event: Event) -> None:
        entry = Entry.from_json(event["entry"])
        self._count(event)
        self.baselines[entry.label] = entry
        judge(entry, self.baseline, self.constraints)
        self._certify(entry)

    def _on_baseline_failed(self, event: Event) -> None:
        self.failed_baselines[event["label"]] = event["reason"]

    def _on_proposed(self, event: Event) -> None:
        self.trials.add(
            Trial(
                event["trial"],
                event["filling"],
                note=event["note"],
                recipe=event["recipe"],
                target=event["target"],
                features=event.get("features", {}),
                proxy=event.get("proxy", {}),
                propose_s=event.get("propose_s", 0.0),
            )
        )

    def _on_started(self, event: Event) -> None:
        self._set(event, "running")

    def _on_reported(self, event: Event) -> None:
        """A score at a rung, after which the trial went on."""
        self.trials[event["trial"]].reports[event["epoch"]] = event["score"]

    def _on_paused(self, event: Event) -> None:
        """A score at a rung, where the trial waits since."""
        self._on_reported(event)
        trial = self._set(event, "stopped")
        trial.paused, trial.before_s = True, trial.cost_s

    def _on_finished(self, event: Event) -> None:
        trial = self._set(event, "complete")
        trial.entry, trial.reason = Entry.from_json(event["entry"]), None
        self._count(event)
        trial.steps, trial.reused = event["steps"], event["reused"]
        self._certify(trial.entry)
        trial.violation = judge(trial.entry, self.baseline, self.constraints)
        trial.values = objectives(trial.entry, self.baseline, self.minimize)

    def _on_failed(self, event: Event) -> None:
        self.refused += bool(event.get("refused"))
        self._set(event, "failed").violation = event.get("violation", 0.0)

    def _on_stopped(self, event: Event) -> None:
        self._set(event, "stopped")

    def _on_relaxed(self, event: Event) -> None:
        self.relaxed = event["relaxed"]

    def _on_warm(self, event: Event) -> None:
        self.warm = event["warm"]

    def _on_ended(self, event: Event) -> None:
        self.ended = event["reason"]

    def _on_certified(self, event: Event) -> None:
        self.certificates[event["artifact"]] = event["certificate"]
        for entry in [*self.baselines.values(), *(r.entry for r in self.trials if r.entry is not None)]:
            self._certify(entry)

    def _certify(self, entry: Entry) -> None:
        entry.certificate = self.certificates.get(artifact_id(entry))

    def _set(self, event: Event, state: State) -> Trial:
        trial = self.trials[event["trial"]]
        trial.state, trial.reason, trial.paused = state, event.get("reason"), False
        trial.cost_s = trial.before_s + event.get("seconds", 0.0)
        return trial

    def _count(self, event: Event) -> None:
        self.steps += event["steps"]
        self.reused += event["reused"]

    def unfinished(self) -> list[Trial]:
        """Trials that were proposed, have no outcome and do not wait at a rung: running when the
        run was killed, or stopped with it."""
        return [r for r in self.trials if r.open and not r.paused]

    def complete(self) -> list[Entry]:
        return [r.entry for r in self.trials if r.state == "complete" and r.entry is not None]

    def front(self) -> list[Entry]:
        """The non-dominated feasible entries, baselines included, by (error, objectives)."""
        # of equal ones the searched one stays
        feasible = [e for e in [*self.complete(), *self.baselines.values()] if e.feasible]
        points = [self.point(e) for e in feasible]
        return [feasible[i] for i in pareto.front(points)]

    def point(self, entry: Entry) -> tuple[float, ...]:
        """The coordinates in which entries are compared: the objectives,
        and the error among them once."""
        extra = [] if "error" in self.minimize else ["error"]
        return objectives(entry, self.baseline, [*self.minimize, *extra])

    def score(self, entry: Entry) -> float:
        """The geometric mean of the objectives, each relative to the baseline: less is better."""
        values = objectives(entry, self.baseline, self.minimize)
        return sum(math.log(max(v, 1e-12)) for v in values) / len(values)

    def ranked(self) -> list[Entry]:
        """The searched entries of the front, best score first; if a baseline is better than each of
        them, those that are best among themselves."""
        found = [e for e in self.front() if e.trial is not None]
        if not found:
            searched = [e for e in self.complete() if e.feasible]
            found = [searched[i] for i in pareto.front([self.point(e) for e in searched])]
        return sorted(found, key=self.score)

    def best(self) -> Entry | None:
        """The best-scoring feasible entry whose certificate holds; if none holds, the best-scoring
        one; None if none is feasible."""
        ranked = self.ranked()
        certified = [e for e in ranked if e.certificate is not None and e.certificate["verdict"] == "certified"]
        return next(iter(certified or ranked), None)

    def nearest(self) -> Entry | None:
        """If nothing searched is feasible: the entry that breaks the constraints least."""
        if any(e.feasible for e in self.complete()):
            return None
        return min(self.complete(), key=lambda e: sum(v["excess"] for v in e.violations), default=None)

    def front_json(self) -> dict[str, Any]:
        """front.json of the study (format 1)."""
        counts = {s: sum(r.state == s for r in self.trials) for s in ENDED}
        best, nearest = self.best(), self.nearest()
        config = self.begun.to_json()
        return {
            "format": 1,
            "task": config["task_name"],
            "target": config["target"],
            "seed": config["seed"],
            "constraints": [{**c.to_json(), "text": str(c)} for c in self.constraints],
            "reference": "fixed net" if config["baseline"] else "original",
            "minimize": self.minimize,
            "strategy": config["strategy"],
            "budget": {**config["budget"], "spent_s": round(self.spent_s, 3)},
            "trials": counts,
            "cache": {"steps": self.steps, "reused": self.reused},
            "baseline": self.baseline.to_json(),
            "baselines": [e.to_json() for e in self.baselines.values()],
            "failed_baselines": self.failed_baselines,
            "ended": self.ended,
            "front": [e.to_json() for e in self.front()],
            "best": best.to_json() if best else None,
            "nearest": nearest.to_json() if nearest else None,
        }


def artifact_id(entry: Entry) -> str:
    """What a certificate belongs to: these bytes on this target."""
    return f"{entry.sha256}@{entry.target}"
