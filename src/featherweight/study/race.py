"""The winner's speed, measured afresh after it was chosen.

Of many candidates the one that looked fastest is, as a rule, one that was measured lucky. So those
that are certified run against the baseline once more before the best is chosen by that, and the
best once more after: what is reported of it was not part of any choice.
"""

from __future__ import annotations

from typing import Any

from ..recipe import Recipe
from ..records import Entry
from .jobs import Jobs
from .state import artifact_id, proven

RACERS = 3  # entries that run again before the best of them is chosen


def race(jobs: Jobs) -> None:
    """Measure the best entries and then the chosen one again, while time is left."""
    log, state = jobs.log, jobs.log.state
    if state.best() is None:
        return
    log.record("phase", {"name": "race"})
    leading = sorted(filter(proven, state.ranked()), key=state.score)[:RACERS]
    if len(leading) > 1:
        for entry in leading:
            if state.raced.get(artifact_id(entry), 0) == 0:
                _run(jobs, entry)
    best = state.best()
    if best is not None and state.raced.get(artifact_id(best), 0) < (2 if len(leading) > 1 else 1):
        _run(jobs, best)


def _run(jobs: Jobs, entry: Entry) -> None:
    if jobs.clock.remaining() < 3.0 + 2 * jobs.config.measure_seconds or jobs.stop.asked:
        return
    time_s = min(jobs.clock.remaining(), 3600.0)
    more: dict[str, Any] = {"trial": entry.trial, "filling": entry.filling, "outputs": "", "timeout_s": time_s}
    job = jobs.trial_job(Recipe.from_json(entry.recipe), entry.target, entry.label, **more)
    outcome = jobs.run_one(job, time_s)
    if outcome.kind != "finished" and outcome.reason.startswith("time limit"):
        return
    if outcome.kind != "finished":
        jobs.log.warn(f"{entry.label} was not timed again: {outcome.reason}", entry.trial)
        return
    told = outcome.result["entry"]
    body = {"artifact": artifact_id(entry), "latency_ms": told["latency_ms"], "speedup": told["speedup"]}
    jobs.log.record("raced", body, trial=entry.trial)
