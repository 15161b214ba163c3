"""A pool of worker processes on this machine. A job has a time and a memory limit; a job's death is
an outcome, never an error.

Interface of every engine: `submit`, `wait`, `answer`, `close`, `free` (how many jobs it would take
now) and `running` (their ids).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO, Any

from ..child import command, environment
from ..store.places import opened
from .family import Family, said
from .messages import GOING_ON, KINDS, READY, Job, Message, Setup

_CHECK_S = 0.2
_START_S = 60.0  # that a new worker may take to start, besides its first job's time limit
LOG_BYTES = 64 * 10**6  # that a worker's log may have; then what it holds is cut
TAIL_BYTES, REASON = 64 * 1024, 2000  # of a log, that its last line is looked for in; characters of a reason
PRINTED_BYTES = 10**6  # of what one job printed, that are kept
_MESSAGE_BYTES = 256 * 10**6  # of one message, at most


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    log: IO[bytes]
    family: Family
    job: Job | None = None
    printed: int = 0  # bytes of its log when its job began
    timeout_s: float = 0.0
    deadline: float = 0.0
    started: float = 0.0


class LocalEngine:
    """memory_bytes: limit of one worker with its children; logs:
    the folder of what workers print."""

    def __init__(self, setup: Setup, workers: int, memory_bytes: int, logs: Path) -> None:
        self._setup, self._memory, self._logs = setup, memory_bytes, logs
        logs.mkdir(parents=True, exist_ok=True)
        self._workers: list[_Worker] = []
        self._size = workers
        self._count = 0

    @property
    def free(self) -> int:
        return self._size - sum(w.job is not None for w in self._workers)

    @property
    def running(self) -> set[Any]:
        """The ids of the jobs that have not ended."""
        return {w.job.id for w in self._workers if w.job is not None}

    def answer(self, job_id: Any, answer: str) -> None:
        """Answer the report of a running job: "go" or "pause"."""
        for w in self._workers:
            if w.job is not None and w.job.id == job_id:
                with contextlib.suppress(OSError):  # it died meanwhile: `wait` says so
                    w.pipe.send_bytes(json.dumps({"answer": answer}).encode())

    def submit(self, job: Job, timeout_s: float, within_s: float = math.inf) -> None:
        """Start a job in a free worker; a worker is started when none is idle. timeout_s: of the
        job itself; within_s: from now, the worker's start included."""
        ready = next((w for w in self._workers if w.job is None and w.process.poll() is None), None)
        worker = ready or self._start()
        worker.job, worker.started, worker.timeout_s = job, time.monotonic(), timeout_s
        worker.printed = os.fstat(worker.log.fileno()).st_size
        worker.deadline = worker.started + min(timeout_s + (_START_S if ready is None else 0.0), within_s)
        # it died between two jobs: `wait` finds its pipe closed and says so
        with contextlib.suppress(OSError):
            worker.pipe.send_bytes(json.dumps(job.to_json()).encode())

    def wait(self, timeout_s: float) -> list[Message]:
        """What happened, at most `timeout_s` from now: progress and outcomes, each with the job's
        id. Enforces the limits."""
        until = time.monotonic() + timeout_s
        out: list[Message] = []
        while not out:
            busy = {w.pipe: w for w in self._workers if w.job is not None}
            for pipe in wait(list(busy), timeout=max(0.0, min(_CHECK_S, until - time.monotonic()))):
                out += self._receive(busy[pipe])  # type: ignore[index]
            for w in [w for w in self._workers if w.job is not None]:
                reason = self._over_limit(w)
                if reason is not None:
                    out.append(self._kill(w, reason))
                elif w.process.poll() is not None and not _waiting(w.pipe):
                    out.append(self._kill(w, None))  # though a child of its own may hold the pipe
            if time.monotonic() >= until:
                break
        return out

    def cancel(self) -> list[Any]:
        """Kill the jobs that are running; returns their ids."""
        ids = []
        for w in [w for w in self._workers if w.job is not None]:
            ids.append(self._kill(w, "cancelled").id)
        return ids

    def close(self) -> None:
        """End every worker."""
        for w in list(self._workers):
            self._end(w)

    def _start(self) -> _Worker:
        ours, theirs = Pipe()
        self._count += 1
        log = open(self._logs / f"worker-{os.getpid()}-{self._count}.log", "ab", opener=opened)
        env = {
            "OMP_WAIT_POLICY": "PASSIVE",
            # on a busy machine, threads that spin while they wait made training 4x slower
            "GOMP_SPINCOUNT": "0",
            **environment(users=True),
            "OMP_NUM_THREADS": str(self._setup.threads),
            "TOKENIZERS_PARALLELISM": "false",
        }
        process = subprocess.Popen(
            command("featherweight.engine.worker", str(theirs.fileno()), str(os.getpid())),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )  # Ctrl-C is for the coordinator alone
        theirs.close()
        worker = _Worker(process, ours, log, Family(process.pid))
        ours.send_bytes(json.dumps(self._setup.to_json()).encode())
        self._workers.append(worker)
        return worker

    def _receive(self, w: _Worker) -> list[Message]:
        assert w.job is not None
        try:
            message = Message.from_json(json.loads(w.pipe.recv_bytes(_MESSAGE_BYTES)))
            if message.kind not in KINDS or not isinstance(message.reason, str) or not isinstance(message.facts, dict):
                raise ValueError(f"kind {message.kind!r:.50}")
        except (EOFError, ConnectionError):
            return [self._kill(w, None)]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            return [self._kill(w, f"the worker sent what is no message ({type(e).__name__}: {str(e)[:200]})")]
        if message.facts.get("step") == READY:  # what came before is not the job's
            now = time.monotonic()
            message.facts["start_s"] = now - w.started
            w.deadline, w.started = min(w.deadline, now + w.timeout_s), now
        told = dataclasses.replace(
            message, id=w.job.id, seconds=time.monotonic() - w.started, reason=_capped(message.reason)
        )
        if told.kind not in GOING_ON:
            self._keep_printed(w, w.job)
            w.job = None
            if message.facts.get("leaving"):
                self._end(w)
        return [told]

    def _over_limit(self, w: _Worker) -> str | None:
        if time.monotonic() > w.deadline:
            return f"time limit: it was still running after {w.timeout_s:.0f} s"
        if os.fstat(w.log.fileno()).st_size > LOG_BYTES:
            os.ftruncate(w.log.fileno(), 0)
            os.write(w.log.fileno(), f"[what was printed before this was cut: over {LOG_BYTES} bytes]\n".encode())
        used = w.family.used_bytes()
        if used > self._memory:
            return f"memory limit: it used {used / 1e9:.2f} GB, {self._memory / 1e9:.2f} GB are allowed"
        return None

    def _kill(self, w: _Worker, reason: str | None) -> Message:
        """End a worker; `reason` None: it ended by itself, and how it did is the reason."""
        assert w.job is not None
        job, seconds = w.job, time.monotonic() - w.started
        code = self._end(w) if reason is not None else self._reap(w)
        if reason is None:
            reason = f"the worker was killed by {said(-code)}" if code < 0 else f"the worker exited with code {code}"
            if code == -signal.SIGKILL:
                reason += " (out of memory, or someone killed it)"
            reason += _tail(w.log.name)
        self._keep_printed(w, job)
        return Message(kind="failed", id=job.id, reason=reason, error="WorkerDied", seconds=seconds)

    def _keep_printed(self, w: _Worker, job: Job) -> None:
        """Put what the worker printed during a job beside its log, by the job's name."""
        with Path(w.log.name).open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            begin = max(w.printed if size >= w.printed else 0, size - PRINTED_BYTES)
            f.seek(begin)
            text = f.read()
        if text.strip():
            cut = b"[what was printed before this was cut]\n" if begin > w.printed or size < w.printed else b""
            with open(printed(self._logs, job.id), "ab", opener=opened) as to:
                to.write(cut + text)

    def _reap(self, w: _Worker) -> int:
        try:
            code = w.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return self._end(w)
        self._end(w)
        return code

    def _end(self, w: _Worker) -> int:
        """Kill the worker and all that it has started, and wait for it."""
        w.family.end()
        try:
            os.killpg(w.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            w.process.poll()
        code = w.process.wait()
        w.pipe.close()
        w.log.close()
        if w in self._workers:
            self._workers.remove(w)
        w.job = None
        return code


def printed(logs: Path, name: Any) -> Path:
    """Where it is that a job printed: a trial's by its number, another's by its name."""
    kind = "trial-" if isinstance(name, int) else ""
    return logs / f"{kind}{re.sub(r'[^A-Za-z0-9_-]+', '-', str(name))}.log"


def _waiting(pipe: Connection) -> bool:
    """Is there something to read?"""
    try:
        return pipe.poll(0)
    except OSError:
        return False


def _capped(reason: str) -> str:
    """A reason of a length that a log is for."""
    return reason if len(reason) <= REASON else f"{reason[:REASON]} [.. {len(reason) - REASON} characters more]"


def _tail(path: str) -> str:
    """The last line of a worker's log, if it left one."""
    with Path(path).open("rb") as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = [x for x in f.read().decode(errors="replace").splitlines() if x.strip()]
    return f": {lines[-1][:300]}" if lines else ""
