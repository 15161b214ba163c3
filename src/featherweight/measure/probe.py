"""Measures one artifact in a process of its own: `python -m featherweight.measure.probe
REQUEST.json`. Imports no torch.

A runtime can kill its process, keeps threads and memory, and should be measured as a deployment
starts it; so each measurement gets a fresh process, which ends when the one that asked for it does.
`run.measure` writes the request and reads the result.

Request: {"artifact", "target", "example", "inputs" | null, "reference": {"artifact", "target"} |
null, "seconds", "workdir", "parent", "batch", "quick_ms" (of `time_pair`, or null)}.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FeatherweightError, TargetError
from ..graphs.parity import close, run_rows
from ..graphs.session import Inputs, Session
from ..targets.base import Target
from . import latency

# processor time of one block: long against the clock's step and the switch between models
BLOCK_S = 0.002
MOST_IN_BLOCK = 2000
WARM_S = 0.05
PATIENCE = 2  # times as long as asked, a measurement waits for rounds that nothing disturbs
Run = Callable[[], Any]


def main(request_file: Path) -> int:
    """Do what the request says; 0 and `result.json` in its workdir, else a reason on stderr."""
    request = json.loads(request_file.read_text())
    _end_with(int(request["parent"]))
    workdir = Path(request["workdir"])
    try:
        result = _measure(request, workdir)
    except FeatherweightError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    part = workdir / "result.json.part"
    part.write_text(json.dumps(result))
    part.replace(workdir / "result.json")
    return 0


def _measure(request: dict[str, Any], workdir: Path) -> dict[str, Any]:
    def phase(name: str) -> None:
        (workdir / "phase").write_text(name)  # what run.py says if this process dies

    artifact, target = Path(request["artifact"]), Target.parse(request["target"])
    phase("loading the artifact")
    example = {p.stem: np.load(p, allow_pickle=False) for p in sorted(Path(request["example"]).glob("*.npy"))}
    feed = repeated(example, target.batch)
    session = target.load_runtime().load(artifact, target, target.batch)
    phase("running the artifact once")
    session.run(feed)
    result: dict[str, Any] = {"peak_memory_bytes": peak_memory_bytes(), "outputs": None, "outputs_batch": None}
    if request["inputs"] is not None:
        phase("computing the outputs")
        result |= write_outputs(
            session, artifact, target, Path(request["inputs"]), int(request["batch"]), workdir / "outputs.npy"
        )
    phase("timing")
    other = request["reference"]
    if other is None:
        return result | time_one(lambda: session.run(feed), float(request["seconds"]))
    reference = Target.parse(other["target"])
    if Path(other["artifact"]).resolve() == artifact.resolve() and reference == target:
        mine = time_one(lambda: session.run(feed), float(request["seconds"]))
        same = {"ratio": 1.0, "ci95": [1.0, 1.0]}
        return (
            result
            | mine
            | {
                "reference_ms": mine["latency_ms"],
                "speedup": {**same, "clock": clock(target, reference), "n": mine["rounds"], "wall": same, "cpu": same},
            }
        )
    phase("loading the baseline's artifact")
    base = reference.load_runtime().load(Path(other["artifact"]), reference, reference.batch)
    base_feed = repeated(example, reference.batch)
    phase("timing")
    return result | time_pair(
        lambda: base.run(base_feed),
        lambda: session.run(feed),
        clock(target, reference),
        float(request["seconds"]),
        request["quick_ms"],
    )


def repeated(example: Inputs, batch: int) -> Inputs:
    """The first sample `batch` times."""
    return {k: np.ascontiguousarray(np.repeat(v[:1], batch, axis=0)) for k, v in example.items()}


def clock(target: Target, reference: Target) -> str:
    """Which clock the headline is told by. Processor time is far steadier on a shared machine, but
    says nothing of a parallel or offloaded wait."""
    return "cpu" if target.threads == reference.threads == 1 and target.device == reference.device == "cpu" else "wall"


def write_outputs(
    session: Session, artifact: Path, target: Target, folder: Path, batch: int, file: Path
) -> dict[str, Any]:
    """All samples of the folder (one memory-mapped .npy per input) through the artifact into
    `file`, in order.

    In batches of `batch` for speed, unless the first rows then differ from what the target's own
    batch gives by more than 1e-3 of what a column spreads: dynamic quantization scales a whole
    batch alike, and what counts is the deployed batch. `outputs_batch` says which was used.
    """
    rows: Inputs = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("*.npy"))}
    sizes = {k: len(v) for k, v in rows.items()}
    if not rows or len(set(sizes.values())) != 1:
        raise TargetError(
            "the inputs are not usable",
            got=sizes or f"no .npy files in {folder}",
            allowed="one .npy per input name, all of one length",
        )
    used, n = target.batch, next(iter(sizes.values()))
    if batch > target.batch and n > target.batch:
        large = target.load_runtime().load(artifact, target, batch)
        head = {k: v[:batch] for k, v in rows.items()}
        many = run_rows(large, head, batch)[:16]
        own = run_rows(session, {k: v[:16] for k, v in rows.items()}, target.batch)
        if close(own, many):
            session, used = large, batch
    part = file.with_suffix(".part.npy")

    def store(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.lib.format.open_memmap(part, "w+", dtype=dtype, shape=shape)

    run_rows(session, rows, used, store)  # the map is written out when it is let go
    part.replace(file)
    return {"outputs": str(file), "outputs_batch": used}


class _Times:
    """The times of one model: wall ms of every inference by block, and processor ms an inference of
    every block."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.wall: list[list[float]] = []
        self.cpu: list[float] = []
        self.count = self._warm()

    def _warm(self) -> int:
        """Run until warm; how many inferences make a block of at least BLOCK_S
        of processor time."""
        start, n = time.perf_counter(), 0
        while n < 3 or time.perf_counter() - start < WARM_S:
            self.run()
            n += 1
        cpu = time.process_time()
        probes = max(1, n // 4)
        for _ in range(probes):
            self.run()
        each = max((time.process_time() - cpu) / probes, 1e-7)
        return min(MOST_IN_BLOCK, math.ceil(BLOCK_S / each))

    def block(self) -> tuple[list[float], float]:
        """(wall ms of each inference, processor ms of all). Before a block of several one runs
        untimed: who ran last has left its own data in the caches."""
        if self.count > 1:
            self.run()
        walls, clock_ms = [], time.process_time()
        for _ in range(self.count):
            t = time.perf_counter()
            self.run()
            walls.append((time.perf_counter() - t) * 1e3)
        cpu = (time.process_time() - clock_ms) * 1e3
        self.wall.append(walls)
        self.cpu.append(cpu / self.count)
        return walls, cpu

    def walls(self, kept: list[int], blocks: int) -> list[float]:
        """Wall ms of each inference in these rounds, of so many blocks each."""
        return [t for i in kept for walls in self.wall[i * blocks : (i + 1) * blocks] for t in walls]


def time_one(run: Run, seconds: float) -> dict[str, Any]:
    """Latency of one model alone: blocks until `seconds` are over, at least 10; of them those that
    nothing disturbed (`latency.undisturbed`)."""
    times, load, end = _Times(run), ForeignLoad(), time.perf_counter() + seconds
    while len(times.cpu) < 10 or (time.perf_counter() < end and len(times.cpu) < 200):
        times.block()
    kept = latency.undisturbed([times.cpu])
    return {
        "latency_ms": latency.summary(times.walls(kept, 1), [times.cpu[i] for i in kept], load.value()),
        "rounds": len(kept),
        "reference_ms": None,
        "speedup": None,
    }


def time_pair(
    reference: Run, candidate: Run, headline: str, seconds: float, quick_ms: float | None = None
) -> dict[str, Any]:
    """Interleaved timing: rounds of blocks A B B A and B A A B in turns (A the reference), so that
    a linear drift of the machine's speed cancels, and neither is always the one in the middle.

    Only rounds that nothing disturbed count (`latency.undisturbed`), by processor time: another
    user of the same core slows two models by different factors. quick_ms: the reference's processor
    time an inference where nothing did, if that is known.

    Ends when the 95 % interval of the headline ratio is within 2 % of it (at least 10 rounds;
    looked at every 5th, not at each: ending early then claims a difference that is not there in 2
    to 6 % of simulated A/A runs), or when `seconds` are over and at least 6 rounds count, without
    which there is no interval; after PATIENCE times `seconds` all rounds count, if fewer do.
    """
    a, b = _Times(reference), _Times(candidate)
    load, start = ForeignLoad(), time.perf_counter()
    wall: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    n = 0
    while True:
        walls: tuple[list[float], list[float]] = ([], [])
        spent = [0.0, 0.0]
        for side in (0, 1, 1, 0) if n % 2 == 0 else (1, 0, 0, 1):
            each, all_ms = (a, b)[side].block()
            walls[side].extend(each)
            spent[side] += all_ms
        for side, times in enumerate((a, b)):
            wall[side].append(float(np.median(walls[side])))
            cpu[side].append(spent[side] / (2 * times.count))
        n += 1
        passed = time.perf_counter() - start
        late = n >= latency.MIN_ROUNDS and passed >= seconds
        if not late and (n < 10 or n % 5 != 0):
            continue
        kept = latency.undisturbed(cpu, quick_ms)
        if late and (len(kept) >= latency.MIN_ROUNDS or passed >= PATIENCE * seconds):
            break
        if len(kept) >= 10 and latency.tight(_ratio(cpu if headline == "cpu" else wall, kept)):
            break
    kept = kept if len(kept) >= latency.MIN_ROUNDS else list(range(n))
    both = {"wall": _ratio(wall, kept), "cpu": _ratio(cpu, kept)}
    others = load.value()
    mine, base = (
        latency.summary(times.walls(kept, 2), [cpu[side][i] for i in kept], others) for side, times in ((1, b), (0, a))
    )
    return {
        "latency_ms": mine,
        "reference_ms": base,
        "rounds": len(kept),
        "speedup": {**both[headline], "clock": headline, "n": len(kept), **both},
    }


def _ratio(times: tuple[list[float], list[float]], kept: list[int]) -> dict[str, Any]:
    return latency.ratio(*([side[i] for i in kept] for side in times))


class ForeignLoad:
    """The share of the machine that others use, from construction until `value`:
    (busy - own processor time) / elapsed / cores."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        import psutil

        t = psutil.cpu_times()
        # guests are in user already
        busy = sum(t) - t.idle - getattr(t, "iowait", 0.0) - getattr(t, "guest", 0.0) - getattr(t, "guest_nice", 0.0)
        return busy, time.process_time(), time.perf_counter()

    def value(self) -> float:
        import psutil

        busy, own, elapsed = (y - x for x, y in zip(self._start, self._now(), strict=True))
        return min(1.0, max(0.0, (busy - own) / max(elapsed, 1e-9) / (psutil.cpu_count() or 1)))


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, interpreter and runtime included."""
    status = Path("/proc/self/status")
    if status.exists():  # not ru_maxrss: on Linux that begins with the parent's
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _end_with(parent: int) -> None:
    """End this process when `parent` ends, however that ends:
    by the kernel on Linux, by a watching thread anywhere."""
    if sys.platform == "linux":
        import ctypes

        # PR_SET_PDEATHSIG = 1, SIGKILL = 9. Its failure leaves the watching thread.
        ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
