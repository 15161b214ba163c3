"""The winner's speed, measured afresh after it was chosen.

Of many candidates the one that looked fastest is, as a rule, one that was measured lucky. So those
that are certified run against the baseline once more before the best is chosen by that, and the
best once more after: what is reported of it was not part of any choice.

One process says little of the next (caches, memory, what else runs): on a busy machine the
interval of one missed the ratio of a file to its copy in 9 % of the measurements, where 5 % were
allowed, the luckiest of 20 in 25 %, five as one in 3 % (benchmarks/certificates/faster.py).
"""

from __future__ import annotations

from typing import Any

from ..engine.messages import timed_out
from ..recipe import Recipe
from ..records import Entry, Latency, Speedup
from .jobs import Jobs
from .known import artifact_id, proven
from .speeds import anew

RACERS = 3  # entries that run again before the best of them is chosen
PROCESSES = 5  # in which the best runs, in each anew


def race(jobs: Jobs) -> None:
    """Measure the best entries and then the chosen one again, while time is left."""
    log, state = jobs.log, jobs.log.state
    best = state.leader()
    leading = sorted(filter(proven, state.ranked()), key=state.score)[:RACERS]
    first = [e for e in leading if state.raced.get(artifact_id(e), 0) == 0] if len(leading) > 1 else []
    if best is None or not (first or artifact_id(best) not in state.settled) or not _may(jobs):
        return
    log.record("phase", {"name": "race"})
    for entry in first:
        _run(jobs, entry)
    for _ in range(RACERS):  # the one that it makes the best was measured for the choice only
        best = state.leader()
        if best is None or artifact_id(best) in state.settled or not _run(jobs, best, PROCESSES, last=True):
            break


def _run(jobs: Jobs, entry: Entry, processes: int = 1, last: bool = False) -> bool:
    """Time the entry in so many processes, fewer if time or patience ends, and record them as one
    measurement, if there is any. last: it is the one that will be reported."""
    latencies, speeds = [], []
    for _ in range(processes):
        told = _timed(jobs, entry)
        if told is None:
            break
        latencies.append(Latency.from_json(told["latency_ms"]))
        speeds.append(Speedup.from_json(told["speedup"]))
    if speeds:
        middle = sorted(latencies, key=lambda one: one.median)[len(latencies) // 2]
        body = {"latency_ms": middle.to_json(), "speedup": anew(speeds, jobs.log.state.speeds.spread).to_json()}
        told = {"artifact": artifact_id(entry), "last": last, **body}
        jobs.log.record("raced", told, trial=entry.trial)
    return bool(speeds)


def _may(jobs: Jobs) -> bool:
    """Is there time for one more process?"""
    return jobs.clock.remaining() >= 3.0 + 2 * jobs.config.measure_seconds and not jobs.stop.asked


def _timed(jobs: Jobs, entry: Entry) -> dict[str, Any] | None:
    """The entry as measured in a new process; None if there is no time for it, or it failed."""
    if not _may(jobs):
        return None
    time_s = min(jobs.clock.remaining(), 3600.0)
    more: dict[str, Any] = {"trial": entry.trial, "filling": entry.filling, "outputs": "", "timeout_s": time_s}
    job = jobs.trial_job(Recipe.from_json(entry.recipe), entry.target, entry.label, **more)
    outcome = jobs.run_one(job, time_s, within_s=time_s)
    if outcome.kind == "finished":
        return outcome.result["entry"]  # type: ignore[no-any-return]
    if not timed_out(outcome.reason):
        jobs.log.warn(f"{entry.label} was not timed again: {outcome.reason}", entry.trial)
    return None
