"""The search itself: ask -> run the candidate -> measure -> tell. One object per run of a study; the only glue.

Every change of state is in the event log before anything else happens because of it, so a kill at any moment loses nothing
that was finished and repeats nothing but what was running.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import registry
from .engine.local import LocalEngine
from .errors import FeatherweightError, RecipeError, StoreError, TargetError
from .limits import Budget
from .recipe import Candidate, Recipe, decode, describe
from .records import Entry, Event
from .seeding import generator
from .space import Domain, Space, resolve
from .space.domains import Choice, Maybe
from .state import Row, StudyState, artifact_id
from .store.events import EventStore
from .strategies.base import Strategy
from .targets.base import Target

CERTIFY_AT_MOST = 5  # entries of the front whose certificate is asked for: each look at the test split costs credibility
_RESERVE_SHARE = 0.25  # of the minutes, at most, is kept for certification and reports


class Loop:
    """config: as `request.configure` makes it; task: JSON reference, or a string that carries it by value."""

    def __init__(self, config: dict[str, Any], task: Any, out: Path, on_event: Callable[[Event], None]) -> None:
        self.config, self.out, self._tell_user = config, out, on_event
        self.budget = Budget(**config["budget"])
        self.events = EventStore(out / "study.db")
        self.state = StudyState().fold(self.events.read())
        self.space = Space(Candidate(decode(config["recipe"]), decode(config["target"]["choice"])))
        self.strategy: Strategy = registry.find("strategies", config["strategy"])()
        self.stopping = False
        self._started = time.monotonic()
        self._spent_before = self.state.spent_s
        self._shown = 0.0
        memory = config["budget"].get("trial_memory_gb")
        setup = {"task": task, "threads": config["train_threads"], **{k: config[k] for k in ("seed", "device", "store", "reuse", "fingerprint")}}
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
        self, recipe: Recipe, target: str, label: str, *, trial: int | None = None, filling: dict[str, Any] | None = None
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
        }

    # --- phases -------------------------------------------------------------------------------------------------------

    def run(self) -> StudyState:
        """All phases. Whatever happens, the event log holds all that was finished."""
        with self._interruptible():
            try:
                self.record("open", {"pid": os.getpid()})
                self.baselines()
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
            elif label == "baseline":
                late = "give the search more time: raise the budget's minutes" if self.out_of_time() else None
                raise FeatherweightError("the baseline cannot be made, so there is nothing to compare with", got=outcome["reason"], fix=late)
            elif not self.stopping and not self.out_of_time():
                self.record("baseline_failed", {"label": label, "reason": outcome["reason"]}, key=f"baseline {label}")

    def search(self) -> None:
        self.record("phase", {"name": "search"})
        waiting = self.state.unfinished() if self.remaining() > self.reserve() else []
        exhausted = False
        while not self.stopping:
            while self.engine.free and not exhausted and not self.stopping and self.may_start(bool(waiting)):
                row = waiting.pop(0) if waiting else self.propose()
                exhausted = row is None
                if row is not None:
                    self.start(row)
            if self.engine.free == self.config["workers"] and not (waiting and self.may_start(True)):
                break
            for message in self.engine.wait(0.5):
                self.outcome(message)
            self.heartbeat()
        reason = "interrupted" if self.stopping else "the budget's time was up"
        for number in self.engine.cancel():
            self.record("stopped", {"reason": reason, "seconds": 0.0}, trial=number)

    def may_start(self, known: bool) -> bool:
        """Is there budget for one more trial? One that is only resumed is not counted again; one that was refused before it ran is not
        counted, as long as most are not."""
        if not known and self.budget.trials is not None:
            proposed = len(self.state.rows)
            if proposed - self.state.refused >= self.budget.trials or proposed >= 20 * self.budget.trials:
                return False
        ended = [r.seconds for r in self.state.rows[-20:] if r.state == "complete"]
        usual = sorted(ended)[len(ended) // 2] if ended else 0.0
        return self.remaining() - self.reserve() > 0.7 * usual + 1.0

    def propose(self) -> Row | None:
        """Ask the strategy and log its answer; None if the space is exhausted. Same seed and history, same answer."""
        number = len(self.state.rows)
        proposals = self.strategy.propose(self.space, self.state.history, 1, generator(self.config["seed"], "propose", number))
        if not proposals:
            return None
        chosen = proposals[0]
        filled = self.space.fill(chosen.filling)
        body = {"filling": chosen.filling, "note": chosen.note, "recipe": filled.recipe.to_json(), "target": filled.target}
        self.record("proposed", body, trial=number, key=f"trial {number}")
        return self.state.rows[number]

    def start(self, row: Row) -> None:
        """Send a trial to a worker; one whose steps cannot follow each other is refused here, before anything runs."""
        recipe = Recipe.from_json(row.recipe)
        try:
            recipe.check()
            check_target(recipe, Target.parse(row.target or ""))
        except (RecipeError, TargetError) as e:
            self.record("failed", {"reason": str(e), "seconds": 0.0, "refused": True}, trial=row.number)
            return
        if row.state != "running":  # stopped by an earlier run; a trial that was just proposed is running already
            self.record("started", trial=row.number)
        job = self.trial_job(recipe, row.target or "", describe(recipe, row.filling), trial=row.number, filling=row.filling)
        self.engine.submit(job, self.timeout())

    def outcome(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if message["kind"] == "progress":
            self.progress(message)
        elif message["kind"] == "finished":
            self.record("finished", {k: message[k] for k in ("entry", "steps", "reused", "seconds")}, trial=number)
        elif self.out_of_time() and message["reason"].startswith("time limit"):
            self.record("stopped", {"reason": "the budget's time was up", "seconds": message["seconds"]}, trial=number)
        else:
            self.record("failed", {"reason": message["reason"], "seconds": message["seconds"]}, trial=number)

    def certify(self) -> None:
        """Open the test split for the winners, at most CERTIFY_AT_MOST of them, in the order of `next_to_certify`, while time is left."""
        self.record("phase", {"name": "certify"})
        max_drop = next((c.bound for c in self.state.constraints if c.quantity == "drop"), None)
        if max_drop is None:
            floor = next(c.bound for c in self.state.constraints if c.quantity == "metric")
            max_drop = max(0.0, self.state.baseline.quantities["metric"] - floor)
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


def baseline_candidates(config: dict[str, Any], space: Space) -> list[tuple[str, Recipe, str]]:
    """(label, recipe, target) of the baselines, the reference first."""
    from .transforms.quantize import Quantize

    reference = config["target"]["reference"]
    choices = config["target"]["runtimes"]
    out: list[tuple[str, Recipe, str]] = [("baseline", Recipe(), reference)]
    out += [(f"original on {t}", Recipe(), t) for t in config["target"]["originals"] if t != reference]
    plain = Quantize()
    able = [t for t in dict.fromkeys([reference, *choices]) if Target.parse(t).load_runtime().problem(Target.parse(t), plain.plan()) is None]
    out += [("plain int8" if t == reference else f"plain int8 on {t}", Recipe(plain), t) for t in able]
    random_cut = random_cutting(space)
    if random_cut is not None:
        out.append(("random cutting", random_cut, reference))
    return out


def check_target(recipe: Recipe, target: Target) -> None:
    """TargetError if the target cannot run here, or cannot realise the recipe's quantization plan."""
    runtime = target.load_runtime()
    for step in recipe.steps:
        problem = runtime.problem(target, step.plan()) if hasattr(step, "plan") else None
        if problem is not None:
            raise TargetError(f"{target} cannot run this candidate", got=problem)


def random_cutting(space: Space) -> Recipe | None:
    """The recipe with every criterion random, what may be left out left out, and the middle of every other range; None if it cuts nothing."""
    cuts = False

    def choose(path: str, domain: Domain) -> Any:
        nonlocal cuts
        options = domain.options(3) or []
        if isinstance(domain, Choice) and "random" in options:
            cuts = True
            return "random"
        return False if isinstance(domain, Maybe) else options[len(options) // 2]

    filled = resolve(space.tree, choose)
    try:
        filled.recipe.check()
    except RecipeError:
        return None
    return filled.recipe if cuts else None
