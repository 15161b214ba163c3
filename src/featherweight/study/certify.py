"""Opens the test split for the winners: which of them, in which order, against what.

The order is the order of their chance on the validation split, and is not changed by what test
says: that, and a level that is passed on from a certificate to the next look (see
`proof.levels`), is what lets all certificates of a study hold together.
"""

from __future__ import annotations

from pathlib import Path

from .. import pareto
from ..engine.messages import CertifyJob, Made
from ..records import Entry
from .clock import LOOKS
from .jobs import Jobs
from .known import artifact_id
from .state import StudyState

LEAST = 0.1  # chance of an entry that is looked at, after all others


def certify(jobs: Jobs) -> None:
    """Look at the entries of `to_certify`, while time is left; at none if nothing meets the limits,
    for the study may go on, and what failed on test lowers the level of what comes after; at the
    best alone if the study is interrupted. Without a floor: measure the drop of the best on test,
    and certify nothing."""
    log, state, clock, stop = jobs.log, jobs.log.state, jobs.clock, jobs.stop
    best = state.best()
    order = to_certify(state) if state.max_drop is not None else []
    if best is not None and stop.asked:
        order = [best]  # the study is likely to go on, and each look leaves less to those after it
    elif not order and best is not None:
        order = [best]  # without a floor: what it is like on test
    order = [e for e in order if artifact_id(e) not in state.certificates]
    if not order or best is None:
        return
    log.record("phase", {"name": "certify"})
    for entry in order:
        if clock.remaining() < 2.0 or stop.asked and state.certificates:
            break
        sides = {"baseline": _side(state.baseline, jobs.folder), "candidate": _side(entry, jobs.folder)}
        time_s = max(60.0, min(clock.remaining(), 3600.0))
        most, least = state.to_show(entry)
        job = CertifyJob(**sides, max_drop=most, min_metric=least, timeout_s=time_s, level=state.level)
        time_s = max(5.0, clock.remaining()) if clock.budget.minutes else 3600.0
        outcome = jobs.run_one(job, time_s, closing=not state.certificates)
        if outcome.kind != "finished":
            log.warn(f"no certificate for {entry.label}: {outcome.reason}", entry.trial)
            continue
        certificate = {**outcome.result["certificate"], "chance": entry.chance, "looks": len(state.certificates) + 1}
        name, said = artifact_id(entry), {**entry.to_json(), "certificate": certificate}
        log.record(
            "certified", {"artifact": name, "certificate": certificate, "entry": said}, key=f"certificate {name}"
        )


def to_certify(state: StudyState) -> list[Entry]:
    """The entries that are looked at on test, in their order: greatest chance first.

    Those of the front, baselines among them, and those that no other beats in both the objectives
    and the chance (Pareto Testing), if that is at least LEAST: what is a little worse and more
    likely comes first, for if what is better fails it is all that there is. At most LOOKS, and then
    those stay that score best where chances are alike."""
    able = [e for e in state.entries() if _may(e) and e is not state.baseline]
    sides = [(*state.point(e)[: len(state.minimize)], -round(e.chance or 0.0, 2)) for e in able]
    front = [*state.front(), *(able[i] for i in pareto.front(sides))]
    fresh: dict[str, Entry] = {}
    for entry in sorted(front, key=lambda e: (-(e.chance or 0.0), state.score(e))):
        if artifact_id(entry) not in state.certificates and entry is not state.baseline:
            fresh.setdefault(artifact_id(entry), entry)
    chosen = list(fresh.values())
    while len(chosen) > LOOKS:
        # of two neighbours in chance that are most alike in it, the one with the worse score goes
        gaps = [(chosen[i].chance or 0.0) - (chosen[i + 1].chance or 0.0) for i in range(len(chosen) - 1)]
        i = gaps.index(min(gaps))
        del chosen[i if state.score(chosen[i]) > state.score(chosen[i + 1]) else i + 1]
    return chosen


def _may(entry: Entry) -> bool:
    """Might it be certified, and meets it all other limits?"""
    others = [v for v in entry.violations if "chance" not in v]
    return not others and (entry.chance if entry.chance is not None else float(entry.feasible)) >= LEAST


def _side(entry: Entry, folder: Path) -> Made:
    name = artifact_id(entry).replace("/", "_")
    return Made(entry.artifact, entry.target, str(folder / "test-outputs" / f"{name}.npy"))
