"""Starts the probe on an artifact, holds it to its limits, and turns its death into an
error with a reason."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..child import command, environment
from ..errors import InputError, TargetError
from ..graphs.session import Inputs
from ..records import TOO_LONG, Measured
from ..targets.base import Target

POLL_S = 0.05
LARGE_BATCH = 64  # of the pass that computes all outputs


def measure(
    artifact: Path,
    target: Target,
    *,
    reference: tuple[Path, Target] | None,
    example: Inputs,
    inputs: Path | None,
    seconds: float,
    timeout_s: float,
    workdir: Path,
    memory_bytes: int | None = None,
    quick_ms: float | None = None,
) -> Measured:
    """Measure an artifact in a fresh process.

    reference: the baseline's artifact and its target, to be timed side by side; example: one sample
    per input [1, ...]; inputs: a folder with one .npy [n, ...] per input name, whose outputs are
    wanted; seconds: for the timing (it ends earlier when the interval is tight); timeout_s and
    memory_bytes (resident) limit the whole process; quick_ms: processor time of one inference of
    the reference where nothing disturbed it, if that is known; workdir: a folder for the request,
    outputs.npy and the log.

    TargetError with the reason if the process dies, fails, or goes over a limit.
    """
    _check(target, reference, example, seconds, timeout_s)
    workdir = workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "phase", "outputs.npy"):
        (workdir / name).unlink(missing_ok=True)
    shutil.rmtree(workdir / "example", ignore_errors=True)
    (workdir / "example").mkdir()
    for name, value in example.items():
        np.save(workdir / "example" / f"{name}.npy", value, allow_pickle=False)
    request = {
        "artifact": str(artifact.resolve()),
        "target": str(target),
        "example": str(workdir / "example"),
        "inputs": None if inputs is None else str(inputs.resolve()),
        "reference": None
        if reference is None
        else {"artifact": str(reference[0].resolve()), "target": str(reference[1])},
        "seconds": seconds,
        "workdir": str(workdir),
        "parent": os.getpid(),
        "batch": LARGE_BATCH,
        "quick_ms": quick_ms,
    }
    (workdir / "request.json").write_text(json.dumps(request))
    with open(workdir / "probe.log", "w+b") as log:
        code = _supervised(workdir, log, target, timeout_s, memory_bytes)
        if code != 0:
            raise _failure(code, target, workdir)
    return Measured.from_json(json.loads((workdir / "result.json").read_text()))


def _check(
    target: Target, reference: tuple[Path, Target] | None, example: Inputs, seconds: float, timeout_s: float
) -> None:
    if reference is not None and reference[1].batch != target.batch:
        raise InputError(
            "latencies of different batches cannot be compared",
            got=f"{target} and {reference[1]}",
            allowed="targets of one batch size",
        )
    if not seconds > 0 or not timeout_s > 0:
        raise InputError(
            "a measurement needs time", got=f"seconds={seconds}, timeout_s={timeout_s}", allowed="positive numbers"
        )
    if not example or any(v.ndim < 1 or len(v) < 1 for v in example.values()):
        raise InputError(
            "the example input is not usable",
            got={k: v.shape for k, v in example.items()},
            allowed="an array [1, ...] per input name",
        )
    odd = [k for k in example if not k or set(k) & set("/\\\0") or k.startswith(".")]
    if odd:
        raise InputError(
            "inputs are stored in files of their names",
            got=odd,
            allowed="names without / and \\ that do not begin with a dot",
        )


def _supervised(workdir: Path, log: IO[bytes], target: Target, timeout_s: float, memory_bytes: int | None) -> int:
    """Run the probe to its end; its exit code. TargetError if it goes over a limit,
    after it is killed."""
    import psutil

    start = time.monotonic()
    process = subprocess.Popen(
        command("featherweight.measure.probe", str(workdir / "request.json")),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment(),
    )
    try:
        while True:
            # still at work: look at the limits
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_S)
            if time.monotonic() - start > timeout_s:
                raise TargetError(
                    f"measuring on {target} {TOO_LONG}",
                    got=f"over {timeout_s:g} s, while {_phase(workdir)}",
                    fix="give it more time: the study's minutes, the limit of one trial if it has one, or --timeout",
                )
            used = _resident(psutil, process.pid) if memory_bytes is not None else 0
            if memory_bytes is not None and used > memory_bytes:
                raise TargetError(
                    f"measuring on {target} took too much memory",
                    got=f"{used:,} bytes, while {_phase(workdir)}",
                    allowed=f"{memory_bytes:,} bytes",
                    fix="raise the limit (--max-memory), if you know where it comes from",
                )
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _resident(psutil: Any, pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0  # it has just ended; its exit code says how


def _phase(workdir: Path) -> str:
    try:
        return (workdir / "phase").read_text() or "starting"
    except OSError:
        return "starting"


def _failure(code: int, target: Target, workdir: Path) -> TargetError:
    """The error for a probe that ended with `code`: a refusal in its own words, else signal or code
    with the last lines of its log."""
    lines = [line for line in (workdir / "probe.log").read_text(errors="replace").splitlines() if line.strip()]
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        what = f"{target.runtime} killed its process ({name}) while {_phase(workdir)}"
    elif code == 2:
        what = f"measuring on {target} failed while {_phase(workdir)}"
    else:
        what = f"measuring on {target} ended with code {code} while {_phase(workdir)}"
    return TargetError(what, got=" | ".join(lines[-6:])[-1500:] or "no message")
