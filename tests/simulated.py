"""Studies on a simulated clock: jobs take the seconds that a test says,
and no process is started."""

import hashlib
import json
import math
from pathlib import Path

from featherweight.engine.messages import READY, Message
from featherweight.records import Entry

CLOCKS = [
    *(f"featherweight.study.{part}.time" for part in ("clock", "jobs", "log", "search")),
    "featherweight.store.events.time",
]  # what tells a study the time
ENGINE = "featherweight.study.jobs.LocalEngine"
HANGS = math.inf


class Clock:
    """Stands in for the `time` module."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now


class Engine:
    """takes: job -> seconds, `HANGS` for ever; every job that ends succeeds. start_s: what a worker
    takes to start, at first and after a job that was ended. submitted: (when, job, timeout_s) of
    each."""

    def __init__(self, clock, workers, takes, start_s=0.0):
        self.clock, self.workers, self.takes, self.start_s = clock, workers, takes, start_s
        # jobs: (when it ends, why it failed or None, job, when it began)
        self.jobs, self.submitted, self.ready, self.told = [], [], 0, []

    @property
    def free(self):
        return self.workers - len(self.jobs)

    @property
    def running(self):
        return {job.id for _, _, job, _ in self.jobs}

    def submit(self, job, timeout_s, within_s=math.inf):
        assert self.free > 0
        now, needs = self.clock.now, self.takes(job)
        began, self.ready = now + (0.0 if self.ready else self.start_s), max(0, self.ready - 1)
        end = min(began + timeout_s, now + within_s)
        reason = f"time limit: it was still running after {timeout_s:.0f} s" if began + needs > end else None
        self.jobs.append((min(began + needs, end), reason, job, began))
        self.submitted.append((now, job, timeout_s))
        if began > now and end > began:
            self.told.append(Message(kind="progress", id=job.id, facts={"step": READY, "start_s": self.start_s}))

    def wait(self, timeout_s):
        until = self.clock.now + timeout_s
        ends = min((end for end, *_ in self.jobs), default=math.inf)
        self.clock.now = min(until, ends)
        over = [j for j in self.jobs if j[0] <= self.clock.now]
        self.jobs = [j for j in self.jobs if j[0] > self.clock.now]
        self.ready += sum(reason is None for _, reason, _, _ in over)
        told, self.told = self.told, []
        return told + [self.message(*j) for j in over]

    def message(self, end, reason, job, began):
        told = {"kind": "failed", "reason": reason} if reason else {"kind": "finished", "result": outcome(job)}
        return Message(**told, id=job.id, seconds=end - began)

    def cancel(self):
        ids = [job.id for _, _, job, _ in self.jobs]
        self.jobs = []
        return ids

    def answer(self, job_id, answer):
        raise AssertionError("no job of this engine tells a score")

    def close(self):
        self.jobs = []


def outcome(job):
    """What a worker would send."""
    if job.kind == "trial":
        return {"entry": measured(job).to_json(), "steps": 1, "reused": 0}
    if job.kind == "certify":
        verdict = {"drop": 0.0, "ci95": [-0.01, 0.01], "n": 80, "split": "test", "verdict": "certified", "needs": None}
        return {"certificate": verdict}
    (Path(job.to)).mkdir(parents=True)
    return {"reload_error": 0.0}


def measured(job, latency_ms=10.0):
    """The entry of a candidate: the more is pruned, the smaller and the worse."""
    ratio = job.filling.get("prune.ratio", 0.0)
    bytes_ = json.dumps([job.recipe, job.target]).encode()
    digest = hashlib.sha256(bytes_).hexdigest()
    folder = Path(job.keep) / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(bytes_)
    told = {"target": job.target, "inputs": {"x": {"shape": ["batch", 1], "dtype": "float32"}}, "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps({**told, "files": {"model.onnx": digest}}))
    value, size = 0.9 - 0.02 * ratio, int(10_000 * (1 - ratio)) + len(job.recipe["recipe"])
    return Entry.from_json(
        dict(
            label=job.label,
            trial=job.trial,
            recipe=job.recipe,
            target=job.target,
            metric={
                "name": "accuracy",
                "value": value,
                "ci95": [value - 0.05, value + 0.05],
                "n": 80,
                "split": "valid",
                "higher_is_better": True,
            },
            latency_ms={"median": latency_ms, "p90": latency_ms, "n": 100, "cpu_median": latency_ms, "load": 0.0},
            speedup={"ratio": 1.0, "ci95": [1.0, 1.0], "clock": "cpu", "n": 10},
            size_bytes=size,
            peak_memory_bytes=10**7,
            params=size // 4,
            macs=size,
            artifact=str(folder),
            sha256=digest,
            filling=job.filling,
        )
    )
