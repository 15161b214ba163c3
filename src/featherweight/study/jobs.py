"""Jobs of a run: what they are made of, how one is run to its end,
and what a target must be able to do."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..engine.local import LocalEngine
from ..engine.messages import Job, Made, Message, Setup, TrialJob
from ..engine.screen import QUANTITIES
from ..errors import DiskError, InputError, StoreError, TargetError
from ..limits import Constraint
from ..recipe import Recipe
from ..records import Entry
from ..store import disk
from ..store.artifacts import default_root
from ..store.manifest import sound
from ..targets.base import Target
from .clock import Clock
from .config import Config
from .log import Log
from .process import Stop
from .state import ARTIFACTS

VALID_OUTPUTS = "valid-outputs/baseline.npy"


class Jobs:
    """config: the study's; task: as a worker loads it; folder:
    the study's, where artifacts are kept."""

    def __init__(self, config: Config, task: Any, folder: Path, log: Log, clock: Clock, stop: Stop) -> None:
        self.config, self.folder, self.log, self.clock, self.stop = config, folder, log, clock, stop
        memory = clock.budget.trial_memory_gb
        same = {k: getattr(config, k) for k in ("seed", "device", "store", "reuse", "fingerprint", "baseline")}
        setup = Setup(task=task, threads=config.train_threads, **same)
        limit = int(memory * 1e9) if memory else _default_memory(config.workers)
        self.engine = LocalEngine(setup, config.workers, limit, folder / "logs")
        self.failures: dict[str, str] = {}  # by kind of job: why the last one that `run_one` ran failed
        self._shown = 0.0
        self._places = (folder, Path(config.store) if config.store else default_root())

    def run_one(self, job: Job, timeout_s: float, closing: bool = False, within_s: float = math.inf) -> Message:
        """Run one job to its end and return its outcome; used before and after the search,
        when nothing else runs. closing: it belongs to a clean end, so one interrupt does not stop
        it. within_s: with a worker's start, if there is none."""
        self.engine.submit(dataclasses.replace(job, id=job.kind), timeout_s, within_s)
        while True:
            for message in self.messages():
                if message.kind == "failed":
                    self.failures[job.kind] = message.reason
                if message.kind != "progress":
                    return message
                self.log.progress(message)
            self.heartbeat()
            if self.stop.asked and not closing:
                self.engine.cancel()
                return Message(kind="failed", reason="interrupted")

    def messages(self) -> Iterator[Message]:
        """What workers say within half a second. DiskError after it, if jobs failed because a disk
        is full or cannot be written: they are as if they had never ended, and run again when the
        study goes on."""
        faults = []
        for message in self.engine.wait(0.5):
            why = disk.fault(message.reason, self._places) if message.kind == "failed" else None
            if why is None:
                self.clock.start_s = max(self.clock.start_s, message.facts.get("start_s", 0.0))
                yield message
            else:
                faults.append(why)
        if faults:
            raise DiskError(
                "the study cannot go on: a disk is full, or cannot be written",
                got=faults[0],
                fix="free space there (`featherweight cache --clear` empties the cache), or name another place "
                f"(FEATHERWEIGHT_CACHE, TMPDIR), then `featherweight resume {self.folder}`; nothing is lost",
            )

    def trial_job(self, recipe: Recipe, target: str, label: str, **more: Any) -> TrialJob:
        """The job that makes and measures a candidate. more: other fields of it."""
        base = self.log.state.baselines.get("baseline")
        job = TrialJob(
            recipe=recipe.to_json(),
            target=target,
            label=label,
            trial=None,
            filling={},
            reference=self.made(base, VALID_OUTPUTS) if base else None,
            seconds=self.config.measure_seconds,
            timeout_s=self.clock.timeout(),
            keep=str(self.folder / ARTIFACTS),
            outputs=str(self.folder / VALID_OUTPUTS),
            alone=self.log.state.alone,
        )
        return dataclasses.replace(job, **more)

    def made(self, entry: Entry, outputs: str) -> Made:
        """An entry's artifact, and the file in the study's folder with its outputs on a split."""
        said = self.log.state.outputs.get(outputs, "")
        return Made(entry.artifact, entry.target, entry.sha256, str(self.folder / outputs), said)

    def restored(self, entry: Entry, timeout_s: float) -> bool:
        """Is the entry's artifact in the study's folder, as the log says that it was made? One that
        is not (an earlier run dropped it, as it was not on its front, or something damaged it) is
        made anew; that this was in vain is told."""
        if intact(entry):
            return True
        more: dict[str, Any] = {"trial": entry.trial, "filling": entry.filling, "outputs": ""}
        job = self.trial_job(Recipe.from_json(entry.recipe), entry.target, entry.label, **more)
        why = self.run_one(job, timeout_s).reason or "it came out as another file"
        if not intact(entry):
            self.log.warn(f"the file of {entry.label} is lost and was not made anew: {why}", entry.trial)
            return False
        return True

    def screened(self) -> tuple[Constraint, ...]:
        """The limits that a candidate can break before it is trained,
        absolute (a relative latency is measured as one)."""
        base, out = self.log.state.baseline.quantities, []
        for c in self.log.state.constraints:
            if c.quantity in QUANTITIES:
                absolute = c.relative and c.quantity != "latency"
                out.append(Constraint(c.quantity, c.bound * base[c.quantity]) if absolute else c)
        return tuple(out)

    def heartbeat(self) -> None:
        """Once a second: how much of the budget is gone."""
        if time.monotonic() - self._shown > 1.0:
            self._shown = time.monotonic()
            minutes = self.clock.budget.minutes
            self.log.spent(self.clock.spent(), minutes * 60 if minutes else None)


def intact(entry: Entry) -> bool:
    """Is the entry's artifact in the study's folder, as the log says that it was made?"""
    try:
        sound(Path(entry.artifact), entry.sha256)
    except (InputError, StoreError):
        return False
    return True


def told(message: Message) -> dict[str, Any]:
    """What the log keeps of a job that finished."""
    names = ("entry", "steps", "reused", "outputs")
    return {k: message.result[k] for k in names if k != "outputs" or message.result.get(k)}


def run_each(jobs: Jobs, ask: Callable[[], tuple[Job, float, float] | None]) -> Iterator[Message]:
    """Run jobs on all workers, and give their outcomes as they end. `ask` gives the next one, with
    its timeout and the time that it has together with a worker's start (s), or None while there is
    none; it is called whenever a worker is free and all outcomes so far were taken. An interrupt
    ends those that run, without a word of them."""
    engine = jobs.engine
    while not jobs.stop.asked:
        while engine.free and (found := ask()) is not None:
            engine.submit(*found)
        if not engine.running:
            return
        for message in jobs.messages():
            if message.kind == "progress":
                jobs.log.progress(message)
            else:
                yield message
        jobs.heartbeat()
    engine.cancel()


def _default_memory(workers: int) -> int:
    """Bytes one worker may use: its share of nine tenths of what is free now."""
    import psutil

    return int(0.9 * psutil.virtual_memory().available / workers)


def check_target(recipe: Recipe, target: Target) -> None:
    """TargetError if the target cannot run here, or cannot realise the recipe's
    quantization plan."""
    runtime = target.load_runtime()
    for step in recipe.steps:
        problem = runtime.problem(target, step.plan()) if hasattr(step, "plan") else None
        if problem is not None:
            raise TargetError(f"{target} cannot run this candidate", got=problem)
