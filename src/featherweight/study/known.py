"""What is known of a study, and what follows from it: who stands where, what test can show of it,
what is the best. It only reads; `state` folds the events into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .. import pareto
from ..errors import StoreError
from ..limits import Constraint, Proof, distance, objectives
from ..proof.chance import allowance, attainable, chance, outlook, recovered
from ..proof.levels import next_level
from ..records import Entry, History, Paired, Trial
from .config import Config
from .speeds import Speeds

_END = 0.25  # of the minutes, that is kept for certificates and the report, at most (`clock.END_SHARE`)
_WORSE = 1e-9  # score from which on an entry is worse than the original, whose score is 0
ALIKE = 1.01  # a geometric mean of the objectives up to so many times another is as good
ENDED = ("complete", "failed", "stopped")


@dataclass
class Known:
    """folder: where the study is now, below which its artifacts are (None: they are where the log
    says)."""

    folder: Path | None = None
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
    # candidates whose recovery was made longer, by trial and rung, the epochs that it took, and
    # those for which it failed
    polished: dict[tuple[int, int], Entry] = field(default_factory=dict)
    polish_epochs: dict[tuple[int, int], int] = field(default_factory=dict)
    unpolished: dict[tuple[int, int], str] = field(default_factory=dict)
    # sha256 of files with outputs, by their place in the study's folder
    outputs: dict[str, str] = field(default_factory=dict)
    # of the files of best/, as they were last written
    packaged: dict[str, str] = field(default_factory=dict)
    yardsticks: list[dict[str, Any]] | None = None  # what needs no network; None: not looked at
    # how often a chosen artifact was timed again
    raced: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)  # of these, in the end
    ended: str | None = None  # why the search ended before its budget did
    uncertified: str | None = None  # why the best has no certificate, if its run came to its end
    broken_off: str | None = None  # the error that ended the last run
    contends: bool = False  # may the original be the best? Not in studies of before, until they go on
    finished: bool = False  # did the last run come to its end, and nobody interrupt it?
    steps: int = 0
    reused: int = 0
    spent_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    speeds: Speeds = field(default_factory=Speeds)
    _opened: float | None = None
    _told_s: float | None = None  # time spent as the results of the last run have it

    # the share of a drop that is left after longer recovery, before it was seen
    RECOVERED: ClassVar[float] = 0.5
    _last: float = 0.0
    _last_s: float | None = None
    _phase: str | None = None

    @property
    def told_s(self) -> float:
        """Time spent, as the results have it; while a study runs, so far."""
        return self.spent_s if self._told_s is None else self._told_s

    @property
    def begun(self) -> Config:
        """The settings of the study. StoreError if it was never begun."""
        if self.config is None:
            raise StoreError("this study was never begun", fix="run `featherweight optimize`, or `search`")
        return self.config

    @property
    def baseline(self) -> Entry:
        return self.baselines["baseline"]

    def prospect(self) -> dict[str, Any] | None:
        """What the test split can prove, before anything was measured; None if there is no floor,
        or if that takes a measurement (of a metric that is not right or wrong for each sample)."""
        known = self.floor and self.tested and self.info.get("metric", {}).get("right_or_wrong")
        bound = next((c.bound for c in reversed(self.constraints) if c.quantity == self.floor), None)
        if not known or bound is None:
            return None
        return attainable(self.tested, bound) if self.floor == "metric" else outlook(self.tested, bound)

    def outlook(self) -> dict[str, Any] | None:
        """What the test split can prove to a first look, going by what was measured
        (`proof.chance.outlook`, or `attainable`); None without a floor."""
        limit = self.max_drop
        if self.tested and (bound := self._alone(self.baseline.paired)) is not None:
            found = [self.baseline, *self.found()]
            return attainable(self.tested, bound, [e.paired for e in found if e.paired is not None])
        seen = [e.paired for e in self.found() if e.paired is not None]
        return outlook(self.tested, limit, seen) if limit is not None and self.tested else None

    def _violation(self, entry: Entry) -> float:
        """How far a candidate breaks the limits, as strategies are told: of a drop, if finalists
        are trained on, what longer recovery will probably leave of it. What test has said so far
        does not count, so that a study that goes on proposes what one in one go does."""
        seen = entry.paired
        if self.begun.polish and seen is not None:
            seen = recovered(seen, self.RECOVERED, self.lacking)
        proof = self.proof(entry, seen) if seen is not None else None
        return sum(c.excess(entry, self.baseline, proof) for c in self.constraints)

    def measured(self, entry: Entry) -> tuple[tuple[float, ...], float]:
        """(objectives, violation) of an entry, as strategies are told them of a trial."""
        return objectives(entry, self.baseline, self.minimize), self._violation(entry)

    def proof(self, entry: Entry, paired: Paired | None = None) -> Proof | None:
        """What the test split shows of the entry, or will probably show to a first look; None if
        nothing is to be shown, or the entry was measured before there were comparisons. paired: as
        if this had been seen on validation, and nothing on test."""
        limit, wanted, floor = self.max_drop, self.begun.confidence, self.floor
        if limit is None or floor is None or not self.tested:
            return None
        said = entry.certificate or {}
        if paired is None and said.get("verdict") == "certified":
            return Proof(1.0, wanted, 0.0, floor)
        if paired is None and said.get("verdict") == "refuted":
            lacks = said["min_metric"] - said["value"] if "min_metric" in said else float(said["drop"]) - limit
            return Proof(0.0, wanted, lacks, floor)
        seen = paired or entry.paired
        if seen is None:
            return None
        if (bound := self._alone(seen)) is not None:
            limit = (seen.best or 0.0) - bound
        likely = chance(seen, self.tested, limit)
        lacks = seen.drop - allowance(seen, self.tested, limit, wanted)
        return Proof(likely, wanted, 0.0 if likely >= wanted else max(lacks, 1e-9), floor)

    @property
    def floor(self) -> str | None:
        """The quantity that is certified: "drop", or else "metric"; None: there is no floor."""
        asked = {c.quantity for c in self.constraints}
        return next((name for name in ("drop", "metric") if name in asked), None)

    @property
    def alone(self) -> bool:
        """Are candidates compared with the best value, as the floor is one of the metric itself?
        Not in a study whose baseline was compared otherwise."""
        base = self.baselines.get("baseline")
        return self.floor == "metric" and (base is None or base.paired is not None and base.paired.best is not None)

    @property
    def lacking(self) -> float:
        """What the baseline lacks of the value that drops are told from: 0 if that is its own."""
        seen = self.baseline.paired
        return seen.drop if seen is not None and seen.best is not None else 0.0

    def _alone(self, seen: Paired | None) -> float | None:
        """The least metric, if that is the floor and was compared so (in studies begun before, it
        was taken for a drop)."""
        base = self.baseline.paired
        if self.floor != "metric" or seen is None or seen.best is None or base is None or base.best is None:
            return None
        return next(c.bound for c in reversed(self.constraints) if c.quantity == "metric")

    def to_show(self, entry: Entry) -> tuple[float | None, float | None]:
        """What the certificate of an entry has to show: (the largest drop, the least metric), one
        of them None."""
        bound = self._alone(entry.paired)
        return (self.max_drop, None) if bound is None else (None, bound)

    @property
    def max_drop(self) -> float | None:
        """The study's floor as a distance from the baseline's metric: if it is a drop, the one that
        certificates have to exclude. None: there is no floor."""
        bounds = {c.quantity: c.bound for c in reversed(self.constraints)}
        if "drop" in bounds:
            return bounds["drop"]
        return max(0.0, self.baseline.metric.value - bounds["metric"]) if "metric" in bounds else None

    @property
    def tested(self) -> int:
        """Samples of the test split, copies and rows of a group once; 0 if the study was made
        before they were counted."""
        splits = self.info.get("splits", {})
        return int((splits.get("evidence") or splits.get("sizes") or {}).get("test", 0))

    @property
    def level(self) -> float:
        """The level of the next certificate."""
        return next_level([c["verdict"] == "certified" for c in self.certificates.values()])

    def unfinished(self) -> list[Trial]:
        """Trials that were proposed, have no outcome and do not wait at a rung: running when the
        run was killed, or stopped with it."""
        return [r for r in self.trials if r.open and not r.paused]

    def needed_minutes(self) -> int | None:
        """Minutes that would do for a first trial to end, about: what came before the search, twice
        the longest that a trial, or the original, took so far, and the end. None where a trial has
        ended, or it was not the minutes that ended it."""
        minutes = self.begun.budget.minutes
        states = {t.state for t in self.trials}
        if minutes is None or "baseline" not in self.baselines or states & {"complete", "failed"}:
            return None
        before = sum(self.phases.get(name, 0.0) for name in ("start", "baseline", "simpler", "supernet"))
        longest = max([self.baseline.seconds, *(t.cost_s for t in self.trials)])
        return max(math.ceil((before + 2 * longest) / (1 - _END) / 60), math.ceil(minutes + 0.5))

    def complete(self) -> list[Entry]:
        return [r.entry for r in self.trials if r.state == "complete" and r.entry is not None]

    def found(self) -> list[Entry]:
        """What was searched and finished, as it was searched and as it was trained on."""
        return [*self.complete(), *self.polished.values()]

    def entries(self) -> list[Entry]:
        """What was found, and the baselines."""
        return [*self.found(), *self.baselines.values()]

    def front(self) -> list[Entry]:
        """The non-dominated feasible entries, baselines included, by (error, objectives); those
        that are certified stay beside what is better and is not."""
        # of equal ones the searched one stays
        feasible = [e for e in self.entries() if e.feasible]
        top = {id(e): e for e in self.outstanding(feasible)}
        return list((top | {id(e): e for e in self.outstanding(list(filter(proven, feasible)))}).values())

    def outstanding(self, entries: list[Entry]) -> list[Entry]:
        """Those of the entries that none of the others dominates; of equal ones the first."""
        return [entries[i] for i in pareto.front([self.point(e) for e in entries])]

    def point(self, entry: Entry) -> tuple[float, ...]:
        """The coordinates in which entries are compared: the objectives, and the error among them
        once; all but it to three digits, for a byte more is no other size."""
        names = [*self.minimize, *([] if "error" in self.minimize else ["error"])]
        values = objectives(entry, self.baseline, names)
        return tuple(v if name == "error" else float(f"{v:.3g}") for name, v in zip(names, values, strict=True))

    def score(self, entry: Entry) -> float:
        """The geometric mean of the objectives, each relative to the baseline: less is better."""
        values = objectives(entry, self.baseline, self.minimize)
        return sum(math.log(max(v, 1e-12)) for v in values) / len(values)

    def ranked(self) -> list[Entry]:
        """What a user could take of the front, best score first: all but the baseline itself, and
        what runs where nobody asked for. If the baseline is better than each of them, those that
        are best among themselves."""
        found = list(filter(self.takeable, self.front()))
        if not found:
            found = self.outstanding([e for e in self.entries() if e.feasible and self.takeable(e)])
        return sorted(found, key=self.score)

    def takeable(self, entry: Entry) -> bool:
        """Was it searched, or is it a baseline besides the first on a target that was asked for?"""
        return entry is not self.baseline and (entry.trial is not None or entry.target in self.begun.target.runtimes)

    def best(self) -> Entry | None:
        """The `leader`; or the original itself, where it meets the limits and the leader scores
        worse than it. None if nothing but the original is feasible, or not even that."""
        found = self.leader()
        lost = found is not None and self.contends and self.baseline.feasible and self.score(found) > _WORSE
        return self.baseline if lost else found

    def leader(self) -> Entry | None:
        """What a user could take instead of the original: the best-scoring feasible entry that is
        certified, and of those as good as it (ALIKE) the one with the least error; it may be one
        that needs no search, as plain int8. If none is certified: while none was looked at, so of
        all; after looks, the one with the greatest chance. None if none is feasible; one that was
        refuted is not."""
        ranked = self.ranked()
        certified = list(filter(proven, ranked))
        if not ranked or certified or not any(e.certificate for e in ranked):
            return self._leading(certified or ranked)
        return max(ranked, key=lambda e: e.chance or 0.0)

    def _lacks_certificate(self, best: Entry | None) -> bool:
        """Is there a best that has none, though it is another one than the original?"""
        return best is not None and best is not self.baseline and not best.certificate

    def searched(self) -> Entry | None:
        """Of what was searched and is feasible the one that scores best (as `best` has it), of the
        certified ones if there are any, whatever a baseline offers; None if there is none."""
        able = [e for e in self.found() if e.feasible]
        return self._leading(list(filter(proven, able)) or able)

    def _leading(self, entries: list[Entry]) -> Entry | None:
        """Of the entries the one that scores best, and of those as good as it (ALIKE) the one with
        the least error; None of none."""
        top = min(map(self.score, entries), default=0.0)
        near = [e for e in entries if self.score(e) <= top + math.log(ALIKE)]
        return min(near, key=lambda e: e.metric.error, default=None)

    def nearest(self) -> Entry | None:
        """If nothing searched is feasible: the entry that breaks the constraints least."""
        if any(e.feasible for e in self.found()):
            return None
        return min(self.found(), key=lambda e: (distance(e.violations), -(e.chance or 0.0)), default=None)

    def looks(self) -> list[dict[str, Any]]:
        """What test was asked, in order: {"label", "trial", "target", "speedup", "size_bytes"} of
        the entry, and its certificate's fields. An entry that is not known any more is left out."""
        known = {artifact_id(e): e for e in self.entries()}
        return [
            {
                "label": e.label,
                "trial": e.trial,
                "target": e.target,
                "speedup": e.speedup.ratio,
                "size_bytes": e.size_bytes,
                **certificate,
            }
            for name, certificate in self.certificates.items()
            if (e := known.get(name)) is not None
        ]

    def finalists(self) -> list[dict[str, Any]]:
        """Candidates as they were trained on: {"trial", "rung", "epochs", "entry"}."""
        return [
            {"trial": number, "rung": rung, "epochs": self.polish_epochs[number, rung], "entry": entry.to_json()}
            for (number, rung), entry in sorted(self.polished.items())
        ]

    def _without(self, split: str) -> list[str]:
        """The classes that are trained on, and of which a split has no sample."""
        counts = self.info.get("splits", {}).get("classes") or {}
        return [str(name) for name, n in counts.items() if n.get("train") and not n.get(split)]

    def front_json(self) -> dict[str, Any]:
        """front.json of the study (format 1)."""
        counts = {s: sum(r.state == s for r in self.trials) for s in ENDED}
        best, nearest, searched = self.best(), self.nearest(), self.searched()
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
            "budget": {**config["budget"], "spent_s": round(self.told_s, 3)},
            "trials": counts,
            "cache": {"steps": self.steps, "reused": self.reused},
            "proof": self.outlook(),
            "baseline": self.baseline.to_json(),
            "baselines": [e.to_json() for e in self.baselines.values()],
            "failed_baselines": self.failed_baselines,
            "yardsticks": self.yardsticks or [],
            "ended": self.ended,
            "finished": self.finished,
            "broken_off": self.broken_off,
            # made in a program, so that no command goes on with it: by which call
            "call": config["mode"] if config["task"] is None else None,
            # classes that no certificate says anything of: trained on, and not in test; and those
            # that no chance of a certificate knows of: not in valid
            "unseen_classes": {split: self._without(split) for split in ("test", "valid") if self._without(split)},
            "looks": self.looks(),
            "finalists": self.finalists(),
            "unfinished_finalists": [
                {"trial": number, "rung": rung, "reason": reason}
                for (number, rung), reason in sorted(self.unpolished.items())
            ],
            "needed_minutes": self.needed_minutes(),
            "uncertified": self.uncertified if self._lacks_certificate(best) else None,
            "front": [e.to_json() for e in self.front()],
            "best": best.to_json() if best else None,
            # was the best timed again, after it was chosen?
            "retimed": artifact_id(best) in self.settled if best and best is not self.baseline else None,
            # how often it was, for the choice, too
            "timed_again": self.raced.get(artifact_id(best), 0) if best else 0,
            "searched": searched.to_json() if searched else None,
            "nearest": nearest.to_json() if nearest else None,
        }


def proven(entry: Entry) -> bool:
    """Is it certified, or, where nothing is to be certified, measured on test?"""
    return (entry.certificate or {}).get("verdict") in ("certified", "measured")


def artifact_id(entry: Entry) -> str:
    """What a certificate belongs to: these bytes on this target."""
    return f"{entry.sha256}@{entry.target}"
