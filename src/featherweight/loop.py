"""The search itself: ask -> run the candidate -> measure -> tell. One object per run of a study; the only glue.

Every change of state is in the event log before anything else happens because of it, so a kill at any moment loses nothing
that was finished and repeats nothing but what was running.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import registry
from .baselines import baseline_candidates
from .engine.local import LocalEngine
from .errors import FeatherweightError, RecipeError, StoreError, TargetError
from .limits import Budget
from .pausing import Pauses, make_stopper
from .recipe import Candidate, Recipe, decode
from .recipes import one_line
from .records import Entry, Event
from .seeding import derive, generator
from .sieve import Sieve
from .space import Space
from .state import Row, StudyState, artifact_id
from .statics import Statics
from .store.events import EventStore
from .strategies.base import Strategy
from .targets.base import Target
from .terminate import reason
from .warming import known_before, told, told_ranking

CERTIFY_AT_MOST = 5  # entries of the front whose certificate is asked for: each look at the test split costs credibility
DROP = 0.01  # below the baseline's metric: what is certified of a search that has no floor
_SCREENED = ("latency", "size", "memory", "params", "macs")  # limits that an untrained candidate can break
_SCREENS = 2  # candidates refused by a measurement of their untrained twin, a trial of the budget, that are not counted as trials
_IN_VAIN = 20  # proposals in a row that the space refuses, each after 200 draws or more that it refuses, too: there is next to nothing it allows
_RESERVE_SHARE = 0.25  # of the minutes, at most, is kept for certification and reports


class Loop:
    """config: as `request.configure` makes it; task: JSON reference, or a string that carries it by value; statics: what is known of a
    candidate before it runs (None: nothing); sieve: what untrained nets have to pass (None: nothing)."""

    def __init__(
        self,
        config: dict[str, Any],
        task: Any,
        out: Path,
        on_event: Callable[[Event], None],
        statics: Statics | None = None,
        sieve: Sieve | None = None,
    ) -> None:
        self.config, self.out, self._tell_user = config, out, on_event
        self.budget = Budget(**config["budget"])
        self.events = EventStore(out / "study.db")
        self.state = StudyState().fold(self.events.read())
        tree = Candidate(decode(config["recipe"]), decode(config["target"]["choice"]))
        self.statics, self.sieve = statics, sieve
        self.space = statics.space(tree) if statics is not None else Space(tree)
        self.strategy: Strategy = registry.find("strategies", config["strategy"])()
        stopper = make_stopper(config["stopper"], self.space) if config.get("stopper") else None
        self.pauses = Pauses(stopper, self.state, out / "checkpoints") if stopper is not None else None
        self.exhausted = False  # nothing new is proposed any more
        self.stopping = False
        self._started = time.monotonic()
        self._spent_before = self.state.spent_s
        self._shown = 0.0
        self._screens = sum(row.state == "failed" and row.seconds > 0 and self.state.history[row.number].violation > 0 for row in self.state.rows)
        memory = config["budget"].get("trial_memory_gb")
        setup = {"task": task, "threads": config["train_threads"], **{k: config[k] for k in ("seed", "device", "store", "reuse", "fingerprint")}}
        setup["baseline"] = config.get("baseline")
        self.engine = LocalEngine(setup, config["workers"], int(memory * 1e9) if memory else _default_memory(config["workers"]), out / "logs")

    # --- time ---------------------------------------------------------------------------------------------------------

    def spent(self) -> float:
        """Seconds that the study has taken, earlier runs of it included."""
        return self._spent_before + time.monotonic() - self._started

    def remaining(self) -> float:
        return float("inf") if self.budget.minutes is None else self.budget.minutes * 60 - self.spent()

    def out_of_time(self) -> bool:
        return self.remaining() - self.reserve() < 1.0

    def reserve(self) -> float:
        """Seconds to keep for certification: predicted from what the baseline's measurement took, which ran the same way."""
        if self.budget.minutes is None:
            return 0.0
        predicted = 3.0 + 2.0 * (CERTIFY_AT_MOST + 1)
        if "baseline" in self.state.baselines:
            base = self.state.baseline
            per_sample = base.latency_ms["median"] / 1e3
            predicted = 4.0 + (CERTIFY_AT_MOST + 1) * (1.0 + per_sample * self.state.info["splits"].get("sizes", {}).get("test", 0))
        return float(min(predicted, _RESERVE_SHARE * self.budget.minutes * 60))

    # --- events -------------------------------------------------------------------------------------------------------

    def record(self, kind: str, body: dict[str, Any] | None = None, *, trial: int | None = None, key: str | None = None) -> None:
        """Log an event, fold it into the state, and tell the user."""
        if self.events.append(kind, body, trial=trial, key=key):
            event = {**(body or {}), "kind": kind, "trial": trial, "time": time.time()}
            self.state.apply(event)
            self._tell_user(event)

    def progress(self, message: dict[str, Any]) -> None:
        self._tell_user({**message, "kind": "progress", "trial": message["id"] if isinstance(message["id"], int) else None})

    def heartbeat(self) -> None:
        """Once a second: how much of the budget is gone."""
        if time.monotonic() - self._shown > 1.0:
            self._shown = time.monotonic()
            total = self.budget.minutes * 60 if self.budget.minutes else None
            self._tell_user({"kind": "budget", "trial": None, "spent_s": self.spent(), "of_s": total})

    # --- one job ------------------------------------------------------------------------------------------------------

    def timeout(self) -> float:
        """Seconds that the next job may take."""
        own = self.budget.trial_minutes * 60 if self.budget.trial_minutes else float("inf")
        if "baseline" in self.state.baselines and own == float("inf"):
            own = 900 + 20 * self.state.baseline.seconds
        return max(1.0, min(own, self.remaining() - self.reserve(), 7 * 86400.0))

    def run_one(self, job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Run one job to its end and return its outcome; used before and after the search, when nothing else runs."""
        self.engine.submit({**job, "id": job["job"]}, timeout_s)
        while True:
            for message in self.engine.wait(0.5):
                if message["kind"] != "progress":
                    return message
                self.progress(message)
            self.heartbeat()
            if self.stopping:
                self.engine.cancel()
                return {"kind": "failed", "reason": "interrupted", "seconds": 0.0}

    def trial_job(
        self, recipe: Recipe, target: str, label: str, *, trial: int | None = None, filling: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        base = self.state.baselines.get("baseline")
        return {
            "job": "trial",
            "id": trial,
            "recipe": recipe.to_json(),
            "target": target,
            "label": label,
            "trial": trial,
            "filling": filling or {},
            "reference": {"artifact": base.artifact, "target": base.target} if base else None,
            "seconds": self.config["measure_seconds"],
            "timeout_s": self.timeout(),
            "keep": str(self.out / "artifacts"),
            **more,
        }

    def screened(self) -> list[dict[str, Any]]:
        """The limits that a candidate can break before it is trained, as JSON, absolute (a relative latency is measured as one)."""
        base, out = self.state.baseline.quantities, []
        for c in self.state.constraints:
            if c.quantity in _SCREENED:
                absolute = c.relative and c.quantity != "latency"
                out.append({**c.to_json(), **({"bound": c.bound * base[c.quantity], "relative": False} if absolute else {})})
        return out

    # --- phases -------------------------------------------------------------------------------------------------------

    def run(self) -> StudyState:
        """All phases. Whatever happens, the event log holds all that was finished."""
        with self._interruptible():
            try:
                self.record("open", {"pid": os.getpid()})
                self.baselines()
                self.supernet()
                self.warm()
                self.search()
                self.certify()
                self.record("phase", {"name": "report"})
                self.package_best()
            finally:
                self.engine.close()
        return self.state

    def close(self) -> None:
        self.events.close()

    def baselines(self) -> None:
        """The original on every runtime, plain int8, and random cutting: measured like any candidate. What there was no time for is not
        there, and is measured when the study is resumed with more."""
        self.record("phase", {"name": "baseline"})
        for label, recipe, target in baseline_candidates(self.config, self.space):
            if label in self.state.baselines or label in self.state.failed_baselines or (self.stopping and label != "baseline"):
                continue
            if label != "baseline" and self.out_of_time():
                self._tell_user({"kind": "warning", "trial": None, "text": f"no time for the baseline '{label}'"})
                continue
            outcome = self.run_one(self.trial_job(recipe, target, label), self.timeout())
            if outcome["kind"] == "finished":
                self.record("baseline", {k: outcome[k] for k in ("entry", "steps", "reused")}, key=f"baseline {label}")
            elif label == "baseline" and self.stopping:  # there is nothing to finish with
                raise KeyboardInterrupt
            elif label == "baseline":
                late = "give the search more time: raise the budget's minutes" if self.out_of_time() else None
                raise FeatherweightError("the baseline cannot be made, so there is nothing to compare with", got=outcome["reason"], fix=late)
            elif not self.stopping and not self.out_of_time():
                self.record("baseline_failed", {"label": label, "reason": outcome["reason"]}, key=f"baseline {label}")
        if self.statics is not None:
            self.statics.baseline = self.state.baseline

    def supernet(self) -> None:
        """If the request wants one: train a net that holds all of the space (once a study), and tell the strategy its ranking."""
        if self.config.get("supernet") is None or self.stopping:
            return
        if self.state.relaxed is None:
            self.record("phase", {"name": "supernet"})
            net = self.config["recipe"]["recipe"][0]["build"]["net"]
            settings = {"method": self.config["supernet"], "device": self.config["device"], "prefix": "build.net"}
            job = {"job": "relax", "net": net, "settings": settings, "seed": derive(self.config["seed"], "relax")}
            outcome = self.run_one(job, self.timeout())
            if outcome["kind"] != "finished":
                if self.stopping or self.out_of_time():
                    return
                raise FeatherweightError("the supernet cannot be trained", got=outcome["reason"])
            self.record("relaxed", {"relaxed": outcome["relaxed"]}, key="relaxed")
        if self.state.relaxed is not None:
            self.strategy = told_ranking(self.strategy, self.space, self.state.relaxed["ranked"], self.config["seed"])

    def warm(self) -> None:
        """Tell the strategy what the user guesses and what earlier studies found; logged once, so that a resumed study knows the same."""
        if self.state.warm is None:
            fields = known_before(self.config, self.strategy, self.space)
            if fields is not None:
                self.record("warm", {"warm": fields}, key="warm")
        if self.state.warm is not None:
            self.strategy = told(self.strategy, self.state.warm)

    def search(self) -> None:
        self.record("phase", {"name": "search"})
        waiting = self.state.unfinished() if self.remaining() > self.reserve() else []
        while not self.stopping:
            while self.engine.free and not self.stopping:
                row = self.next_trial(waiting)
                if row is None:
                    break
                self.start(row)
            if self.engine.free == self.config["workers"]:  # nothing runs, and nothing may start
                break
            for message in self.engine.wait(0.5):
                self.outcome(message)
            self.heartbeat()
        why = "interrupted" if self.stopping else "the budget's time was up"
        for number in self.engine.cancel():
            if self.state.rows[number].state == "running":
                self.record("stopped", {"reason": why, "seconds": 0.0}, trial=number)

    def next_trial(self, waiting: list[Row]) -> Row | None:
        """What a free worker does next: go on with what an earlier run left (`waiting`, from which it is taken), else with a paused trial
        that is promoted, else begin a new one; None if there is nothing, or no time for it."""
        if self.ends_early():
            return None
        if waiting:
            return waiting.pop(0) if self.left() > 1.0 else None
        if self.pauses is not None and self.left() > 1.0:
            row = self.pauses.next(self.closed(), self.left())
            if row is not None:  # its worker may not have put it down yet
                return row if row.number not in self.engine.running else None
        if self.closed():
            return None
        row = self.propose()
        self.exhausted = row is None
        return row

    def closed(self) -> bool:
        """Will no further trial be proposed?"""
        return self.exhausted or not self.may_start()

    def ends_early(self) -> bool:
        """Has the search found what it was to find, or is there nothing more to hope for? The reason is logged."""
        why = reason(self.budget, self.state.history, self.state.best() if self.budget.enough is not None else None) or self.in_vain()
        if why != self.state.ended:  # with a larger budget, what ended an earlier run may do so no more
            self.record("ended", {"reason": why})
        return why is not None

    def in_vain(self) -> str | None:
        """Why it is useless to propose more: the last `_IN_VAIN` proposals were refused by the space. None if it is not."""
        why = None
        for row in reversed(self.state.rows[-_IN_VAIN:]):
            why = self.space.refused(row.filling)
            if why is None:
                return None
        if len(self.state.rows) < _IN_VAIN:
            return None
        return f"no candidate that may run was found among the last {_IN_VAIN} proposals; the last one: {why}"

    def left(self) -> float:
        """Seconds for trials."""
        return self.remaining() - self.reserve()

    def may_start(self) -> bool:
        """Is there budget for one more trial? One that was refused before it ran is not counted, up to 19 a trial that cost nothing and
        `_SCREENS` a trial whose untrained twin had to be measured."""
        if self.budget.trials is not None:
            proposed, trials = len(self.state.rows), self.budget.trials
            if proposed - self.state.refused >= trials or proposed >= 20 * trials or self._screens >= _SCREENS * trials:
                return False
        ended = [r.seconds for r in self.state.rows[-20:] if r.state == "complete"]
        needed = 0.7 * sorted(ended)[len(ended) // 2] if ended else 0.0
        if not ended and self.pauses is not None and math.isfinite(self.left()):
            needed = self.pauses.to_end(self.left())  # one of those that wait has to train to its end: else there is nothing to show
        return self.left() > needed + 1.0

    def propose(self) -> Row | None:
        """Ask the strategy and log its answer; None if the space is exhausted. Same seed and history, same answer."""
        number, started = len(self.state.rows), time.monotonic()
        proposals = self.strategy.propose(self.space, self.state.history, 1, generator(self.config["seed"], "propose", number))
        if not proposals:
            return None
        chosen = proposals[0]
        seconds = time.monotonic() - started
        filled = self.space.fill(chosen.filling)
        body = {
            "filling": chosen.filling,
            "note": chosen.note,
            "recipe": filled.recipe.to_json(),
            "target": filled.target,
            "features": self.space.features(chosen.filling),
            "propose_s": seconds,
        }
        if self.sieve is not None and self.space.refused(chosen.filling) is None:
            score = self.sieve.score(filled.recipe.steps[0].net)
            body["proxy"] = {self.sieve.kind: score} if math.isfinite(score) else {}
        self.record("proposed", body, trial=number, key=f"trial {number}")
        return self.state.rows[number]

    def start(self, row: Row) -> None:
        """Send a trial to a worker; one whose steps cannot follow each other, or that the space refuses, is refused before anything runs."""
        recipe = Recipe.from_json(row.recipe)
        try:
            recipe.check()
            check_target(recipe, Target.parse(row.target or ""))
            why = self.space.refused(row.filling)
            if why is None and self.sieve is not None and not row.reports:
                why = self.sieve.refuses(self.space.fill(row.filling), self.space)
        except (RecipeError, TargetError) as e:
            why = str(e)
        if why is not None:
            self.record("failed", {"reason": why, "seconds": 0.0, "refused": True}, trial=row.number)
            return
        if row.state != "running":  # stopped by an earlier run, or paused; a trial that was just proposed is running already
            self.record("started", trial=row.number)
        more: dict[str, Any] = {"screen": [] if row.reports else self.screened()}  # what has trained already was screened
        if self.pauses is not None:
            more["rungs"] = self.pauses.rungs(row, recipe)
        job = self.trial_job(recipe, row.target or "", one_line(recipe, row.filling), trial=row.number, filling=row.filling, **more)
        self.engine.submit(job, self.timeout())

    def outcome(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if message["kind"] == "progress":
            self.progress(message)
        elif message["kind"] == "report":
            self.judge(message)
        elif self.state.rows[number].state != "running":  # it was paused before; its worker is free now, however it ended
            pass
        elif message["kind"] == "finished":
            self.record("finished", {k: message[k] for k in ("entry", "steps", "reused", "seconds")}, trial=number)
            self.forget(number)
        elif self.out_of_time() and message["reason"].startswith("time limit"):
            self.record("stopped", {"reason": "the budget's time was up", "seconds": message["seconds"]}, trial=number)
        else:
            body = {"reason": message["reason"], "seconds": message["seconds"]}
            if "over" in message:  # nothing was trained for it
                body |= {"over": message["over"], "violation": message["violation"], "refused": True}
                self._screens += 1
            self.record("failed", body, trial=number)
            self.forget(number)

    def judge(self, message: dict[str, Any]) -> None:
        """Log the score that a trial tells at a rung together with what becomes of it, and tell its worker."""
        number, epoch, score = message["id"], message["epoch"], message["score"]
        on = self.pauses is None or self.pauses.goes_on(number, epoch, score, self.closed(), self.left())
        body = {"epoch": epoch, "of": message["of"], "score": score}
        if on:
            self.record("reported", body, trial=number)
        else:
            why = f"{self.config['stopper']['kind']} stopped it after {epoch:g} of {message['of']} epochs"
            self.record("paused", {**body, "reason": why, "seconds": message["seconds"]}, trial=number)
            if self.pauses is not None and self.pauses.stopper.final:
                self.forget(number)
        self.engine.answer(number, "go" if on else "pause")

    def forget(self, number: int) -> None:
        """A trial that has ended needs no checkpoint."""
        if self.pauses is not None:
            self.pauses.forget(number)

    def certify(self) -> None:
        """Open the test split for the winners, at most CERTIFY_AT_MOST of them, in the order of `next_to_certify`, while time is left."""
        self.record("phase", {"name": "certify"})
        max_drop = next((c.bound for c in self.state.constraints if c.quantity == "drop"), None)
        if max_drop is None:
            floor = next((c.bound for c in self.state.constraints if c.quantity == "metric"), None)
            max_drop = DROP if floor is None else max(0.0, self.state.baseline.quantities["metric"] - floor)
        base = self.state.baseline
        left = self.state.ranked() or [e for e in [self.state.nearest()] if e is not None]
        while len(self.state.certificates) < CERTIFY_AT_MOST:
            left = [e for e in left if artifact_id(e) not in self.state.certificates]
            if not left:
                break
            entry = left.pop(next_to_certify([self.drop(e) for e in left], list(self.state.certificates.values()), max_drop))
            if self.remaining() < 2.0 or self.stopping and self.state.certificates:
                break
            job = {
                "job": "certify",
                "max_drop": max_drop,
                "timeout_s": max(60.0, min(self.remaining(), 3600.0)),
                "baseline": self._side(base),
                "candidate": self._side(entry),
            }
            stopping, self.stopping = self.stopping, False  # "finish cleanly" includes the certificate of the best
            outcome = self.run_one(job, max(5.0, self.remaining()) if self.budget.minutes else 3600.0)
            self.stopping = self.stopping or stopping
            if outcome["kind"] != "finished":
                self._tell_user({"kind": "warning", "trial": entry.trial, "text": f"no certificate for {entry.label}: {outcome['reason']}"})
                continue
            certificate = {**outcome["certificate"], "valid_drop": self.drop(entry), "looks": len(self.state.certificates) + 1}
            body = {"artifact": artifact_id(entry), "certificate": certificate, "entry": {**entry.to_json(), "certificate": certificate}}
            self.record("certified", body, key=f"certificate {artifact_id(entry)}")

    def drop(self, entry: Entry) -> float:
        """How much worse the metric is than the baseline's, on the validation split."""
        base = self.state.baseline
        sign = 1.0 if entry.metric["higher_is_better"] else -1.0
        return sign * (float(base.metric["value"]) - float(entry.metric["value"]))

    def _side(self, entry: Entry) -> dict[str, Any]:
        name = artifact_id(entry).replace("/", "_")
        return {"artifact": entry.artifact, "target": entry.target, "to": str(self.out / "test-outputs" / f"{name}.npy")}

    def package_best(self) -> None:
        """Write the best (or nearest) candidate's architecture spec and weights into best/."""
        entry = self.state.best() or self.state.nearest()
        if entry is None:
            return
        outcome = self.run_one({"job": "package", "recipe": entry.recipe, "to": str(self.out / "best.new" / "model")}, 600.0)
        if outcome["kind"] != "finished":
            self._tell_user({"kind": "warning", "trial": entry.trial, "text": f"the best model's weights could not be written: {outcome['reason']}"})

    # --- process ------------------------------------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's lock, or say who does: two searches in one folder would overwrite each other."""
        with (self.out / ".lock").open("w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise StoreError("another search is running in this folder", got=str(self.out), fix="wait for it, or use another --out") from e
            yield

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C finishes cleanly with what there is; the second stops at once (what is finished stays in the log)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heard(signum: int, frame: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            self._tell_user({"kind": "warning", "trial": None, "text": "interrupted: finishing with what there is (once more to stop at once)"})

        before = {s: signal.signal(s, heard) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


def _default_memory(workers: int) -> int:
    """Bytes one worker may use: its share of nine tenths of what is free now."""
    import psutil

    return int(0.9 * psutil.virtual_memory().available / workers)


def next_to_certify(drops: list[float], certificates: list[dict[str, Any]], max_drop: float) -> int:
    """Which of the entries, best score first, is worth the next look at the test split. drops: on the validation split.

    The first look goes to the best. It shows how wide an interval on test is; after it, an entry whose drop leaves no room for that (nor for
    what test has so far shown beyond valid, in the mean over the looks) would only spend a look, so the best of those that leave room goes first.
    """
    if not certificates:
        return 0
    arm = sum(c["ci95"][1] - c["drop"] for c in certificates) / len(certificates)
    beyond = max(0.0, sum(c["drop"] - c["valid_drop"] for c in certificates if "valid_drop" in c) / len(certificates))
    room = [i for i, d in enumerate(drops) if d + beyond + arm <= max_drop]
    return room[0] if room else 0


def check_target(recipe: Recipe, target: Target) -> None:
    """TargetError if the target cannot run here, or cannot realise the recipe's quantization plan."""
    runtime = target.load_runtime()
    for step in recipe.steps:
        problem = runtime.problem(target, step.plan()) if hasattr(step, "plan") else None
        if problem is not None:
            raise TargetError(f"{target} cannot run this candidate", got=problem)
