"""A study's event log folded into trials, baselines and a history. Rebuilt from the log, so
resuming is replaying."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from ..errors import InputError, StoreError
from ..limits import Budget, judge
from ..records import Entry, Event, Latency, Speedup, State, Trial
from .config import Config
from .known import Known, artifact_id
from .shapes import check_certificate, check_entry, check_info, check_proposal, check_yardstick

ARTIFACTS = "artifacts"  # the folder of a study in which its artifacts are kept


@dataclass
class StudyState(Known):
    """Folded events: `apply` takes one."""

    def fold(self, events: Iterable[Event]) -> StudyState:
        """StoreError at an event that no study writes: what it says cannot be taken."""
        for e in events:
            try:
                trial = e["trial"]
                if trial is not None and not (isinstance(trial, int) and 0 <= trial <= len(self.trials)):
                    raise ValueError(f"trial {trial!r:.40}, of {len(self.trials)}")
                self.apply(e)
            except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, InputError) as error:
                raise StoreError(
                    "the study's log says what no study writes",
                    got=f"event {e.get('seq', '')} ({e.get('kind')!s:.40}): {type(error).__name__}: {error}"[:500],
                    fix=f"featherweight repair {self.folder or 'OUT'}",
                ) from error
        return self

    def apply(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['kind']}", None)
        self._clock(event)
        self.outputs |= event.get("outputs") or {}
        if handler is not None:
            handler(event)

    def _clock(self, event: Event) -> None:
        """Time spent = the sum over runs of (last event - when the call began); a run begins with
        an `open` event, which says how long the call ran before it; settings come before it. By the
        run's own clock (`at_s`), or, in studies of before, by the wall's."""
        if event["kind"] == "open" and (before := event.get("before_s", 0.0)):
            self.spent_s += before
            self.phases["start"] = self.phases.get("start", 0.0) + before
        if event["kind"] in ("open", "study", "info", "budget", "trusted"):
            self._phase = None
        elif self._opened is not None:
            at, last = event.get("at_s"), self._last_s
            passed = max(0.0, at - last if at is not None and last is not None else event["time"] - self._last)
            self.spent_s += passed
            if self._phase is not None:
                self.phases[self._phase] = self.phases.get(self._phase, 0.0) + passed
        self._opened = self._last = event["time"]
        self._last_s = event.get("at_s")

    def _on_open(self, event: Event) -> None:
        self.finished, self.uncertified, self.broken_off, self._told_s = False, None, None, None
        self.contends = bool(event.get("contends", False))

    def _on_results(self, event: Event) -> None:
        """The run is over but for the writing of its results, which all tell this time."""
        self.finished, self._told_s = not event["interrupted"], self.spent_s

    def _on_packaged(self, event: Event) -> None:
        """best/ was written."""
        self.packaged = event["files"]

    def _on_uncertified(self, event: Event) -> None:
        self.uncertified = event["reason"]

    def _on_broken_off(self, event: Event) -> None:
        self.broken_off = event["reason"]

    def _on_phase(self, event: Event) -> None:
        self._phase = event["name"]

    def _on_study(self, event: Event) -> None:
        self.config = Config.from_json(event["config"])
        self.constraints, self.minimize = list(self.config.constraints), list(self.config.minimize)

    def _on_budget(self, event: Event) -> None:
        if self.config is not None:
            self.config = dataclasses.replace(self.config, budget=Budget(**event["budget"]))

    def _on_trusted(self, event: Event) -> None:
        """Its user named the study's code, or said that it is trusted."""
        if self.config is not None:
            self.config = dataclasses.replace(self.config, code=event["code"])

    def _on_info(self, event: Event) -> None:
        check_info(event["info"])
        self.info = event["info"]

    def _on_baseline(self, event: Event) -> None:
        entry = self._entry(event)
        self._count(event)
        if not self.baselines:  # the original: what its drop may be is known now
            self.constraints = [c.absolute(entry.metric.value) for c in self.constraints]
        self.baselines[entry.label] = entry
        self._align(entry)
        self._pool(entry)
        self._certify(entry)
        self._judge(entry)

    def _on_yardsticks(self, event: Event) -> None:
        for one in event["yardsticks"]:
            check_yardstick(one)
        self.yardsticks = event["yardsticks"]

    def _on_baseline_failed(self, event: Event) -> None:
        self.failed_baselines[event["label"]] = event["reason"]

    def _on_proposed(self, event: Event) -> None:
        check_proposal(event)
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
        trial.entry, trial.reason = self._entry(event), None
        self._count(event)
        trial.steps, trial.reused = event["steps"], event["reused"]
        self._align(trial.entry)
        self._pool(trial.entry)
        self._certify(trial.entry)
        self._judge(trial.entry)
        trial.values, trial.violation = self.measured(trial.entry)

    def _on_polished(self, event: Event) -> None:
        entry, at = self._entry(event), (event["trial"], event["rung"])
        self._count(event)
        self.polished[at], self.polish_epochs[at] = entry, event["epochs"]
        self._align(entry)
        self._pool(entry)
        self._certify(entry)
        self._judge(entry)

    def _on_unpolished(self, event: Event) -> None:
        at = event["trial"], event["rung"]
        self.unpolished[at], self.polish_epochs[at] = event["reason"], event.get("epochs", 0)

    def _on_raced(self, event: Event) -> None:
        """A fresh measurement of the speed takes the place of the one that it was chosen by."""
        name = event["artifact"]
        self.raced[name] = self.raced.get(name, 0) + 1
        if event.get("last", self.raced[name] > 1):
            self.settled.add(name)
        entries = [e for e in self.entries() if e is not self.baseline]
        graphs = {(e.graph, e.target) for e in entries if artifact_id(e) == name and e.graph is not None}
        for entry in entries:
            if artifact_id(entry) == name or (entry.graph, entry.target) in graphs:
                entry.latency_ms = Latency.from_json(event["latency_ms"])
                self.speeds.settle(entry, Speedup.from_json(event["speedup"]))
                self._timed(entry, Speedup.from_json(event["speedup"]))

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
        check_certificate(event["certificate"])
        self.certificates[event["artifact"]] = event["certificate"]
        for entry in self.entries():
            if artifact_id(entry) == event["artifact"]:
                self._certify(entry)
                # what could be neither shown nor refuted stays as likely as it was
                if event["certificate"]["verdict"] in ("certified", "refuted"):
                    self._judge(entry)

    def _pool(self, entry: Entry) -> None:
        """Take in how fast the entry was measured, and give all of its graph what is known now."""
        if entry.label != "baseline":
            for other, speed in self.speeds.add(entry):
                self._timed(other, speed)

    def _timed(self, entry: Entry, speedup: Speedup) -> None:
        """Give an entry another speed, and judge it by that."""
        entry.speedup = speedup
        self._align(entry)
        self._judge(entry)

    def _entry(self, event: Event) -> Entry:
        """The entry that an event tells of, its artifact where the study is now."""
        entry = Entry.from_json(event["entry"])
        check_entry(entry)
        if self.folder is not None:
            entry.artifact = str(self.folder / within(entry.artifact))
        return entry

    def _align(self, entry: Entry) -> None:
        """Put the entry's milliseconds at the speed that the machine had when the baseline was
        measured, so that they are the baseline's divided by the speedup: both come from one
        measurement then."""
        base, seen = self.baseline.latency_ms.median, entry.latency_ms
        scale = base / entry.speedup.ratio / seen.median if seen.median > 0 else 1.0
        entry.latency_ms = seen.scaled(scale)

    def _certify(self, entry: Entry) -> None:
        entry.certificate = self.certificates.get(artifact_id(entry))

    def _judge(self, entry: Entry) -> float:
        """Hold the entry to the limits, and return how far it breaks them."""
        return judge(entry, self.baseline, self.constraints, self.proof(entry))

    def _set(self, event: Event, state: State) -> Trial:
        trial = self.trials[event["trial"]]
        trial.state, trial.reason, trial.paused = state, event.get("reason"), False
        trial.cost_s = trial.before_s + event.get("seconds", 0.0)
        return trial

    def _count(self, event: Event) -> None:
        self.steps += event["steps"]
        self.reused += event["reused"]


def within(artifact: str) -> str:
    """Where in its study's folder an artifact is kept, whatever folder that was when it was made:
    by its name alone, for a log may come from anybody, and name any folder."""
    return f"{ARTIFACTS}/{re.sub(r'[^A-Za-z0-9_-]', '_', PurePath(artifact).name) or '_'}"
