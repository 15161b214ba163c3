"""Opens the test split for the winners: which of them, in which order, against what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engine.messages import CertifyJob, Made
from ..records import Entry
from .clock import CERTIFY_AT_MOST
from .jobs import Jobs
from .state import StudyState, artifact_id

DROP = 0.01  # below the baseline's metric: what is certified of a search that has no floor


def certify(jobs: Jobs) -> None:
    """Certify the winners, at most CERTIFY_AT_MOST of them, in the order of `next_to_certify`,
    while time is left."""
    log, state, clock, stop = jobs.log, jobs.log.state, jobs.clock, jobs.stop
    log.record("phase", {"name": "certify"})
    max_drop = allowed_drop(state)
    left = state.ranked() or [e for e in [state.nearest()] if e is not None]
    while len(state.certificates) < CERTIFY_AT_MOST:
        left = [e for e in left if artifact_id(e) not in state.certificates]
        if not left:
            break
        entry = left.pop(next_to_certify([drop(state, e) for e in left], list(state.certificates.values()), max_drop))
        if clock.remaining() < 2.0 or stop.asked and state.certificates:
            break
        sides = {"baseline": _side(state.baseline, jobs.folder), "candidate": _side(entry, jobs.folder)}
        job = CertifyJob(**sides, max_drop=max_drop, timeout_s=max(60.0, min(clock.remaining(), 3600.0)))
        # "finish cleanly" includes the certificate of the best
        asked, stop.asked = stop.asked, False
        outcome = jobs.run_one(job, max(5.0, clock.remaining()) if clock.budget.minutes else 3600.0)
        stop.asked = stop.asked or asked
        if outcome.kind != "finished":
            log.warn(f"no certificate for {entry.label}: {outcome.reason}", entry.trial)
            continue
        certificate = {
            **outcome.result["certificate"],
            "valid_drop": drop(state, entry),
            "looks": len(state.certificates) + 1,
        }
        name, said = artifact_id(entry), {**entry.to_json(), "certificate": certificate}
        log.record(
            "certified", {"artifact": name, "certificate": certificate, "entry": said}, key=f"certificate {name}"
        )


def allowed_drop(state: StudyState) -> float:
    """The drop that a certificate has to exclude: the study's floor,
    as a distance from the baseline's metric."""
    bounds = {c.quantity: c.bound for c in reversed(state.constraints)}
    if "drop" in bounds:
        return bounds["drop"]
    return max(0.0, state.baseline.quantities["metric"] - bounds["metric"]) if "metric" in bounds else DROP


def drop(state: StudyState, entry: Entry) -> float:
    """How much worse the metric is than the baseline's, on the validation split."""
    return entry.metric.error - state.baseline.metric.error


def _side(entry: Entry, folder: Path) -> Made:
    name = artifact_id(entry).replace("/", "_")
    return Made(entry.artifact, entry.target, str(folder / "test-outputs" / f"{name}.npy"))


def next_to_certify(drops: list[float], certificates: list[dict[str, Any]], max_drop: float) -> int:
    """Which of the entries, best score first, is worth the next look at the test split. drops:
    on the validation split.

    The first look goes to the best. It shows how wide an interval on test is; after it, an entry
    whose drop leaves no room for that (nor for what test has so far shown beyond valid, in the mean
    over the looks) would only spend a look, so the best of those that leave room goes first.
    """
    if not certificates:
        return 0
    arm = sum(c["ci95"][1] - c["drop"] for c in certificates) / len(certificates)
    beyond = max(0.0, sum(c["drop"] - c["valid_drop"] for c in certificates if "valid_drop" in c) / len(certificates))
    room = [i for i, d in enumerate(drops) if d + beyond + arm <= max_drop]
    return room[0] if room else 0
