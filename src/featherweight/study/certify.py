"""Opens the test split for the winners: which of them, in which order, against what.

The order goes by chances and gains on the validation split, and is not changed by what test
says: that, and a level that is passed on from a certificate to the next look (see
`proof.levels`), is what lets all certificates of a study hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
    """The entries that are looked at on test, in their order, by what validation says (in a study
    that goes on, what was refuted is left out): those of `chain`, then what else is on the front or
    likely (at least LEAST), greatest chance first; at most LOOKS, and then of the others those stay
    that score best where chances are alike."""
    able = [e for e in state.entries() if _may(e) and e is not state.baseline]
    fresh: dict[str, Entry] = {}
    first = chain([(_likely(state, e), -state.score(e)) for e in able])
    rest = sorted([*state.front(), *able], key=lambda e: (-(e.chance or 0.0), state.score(e)))
    for entry in (*(able[i] for i in first), *(e for e in rest if e is not state.baseline)):
        if artifact_id(entry) not in state.certificates:
            fresh.setdefault(artifact_id(entry), entry)
    leading = {artifact_id(able[i]) for i in first}
    begun = [e for name, e in fresh.items() if name in leading]
    after = [e for name, e in fresh.items() if name not in leading]
    top = set(map(id, state.outstanding(after)))
    others = [e for e in after if id(e) in top]
    while len(begun) + len(others) > LOOKS and others:
        # of two neighbours in chance that are most alike in it, the one with the worse score goes
        gaps = [(others[i].chance or 0.0) - (others[i + 1].chance or 0.0) for i in range(len(others) - 1)]
        i = gaps.index(min(gaps)) if gaps else 0
        del others[i if not gaps or state.score(others[i]) > state.score(others[i + 1]) else i + 1]
    return [*begun[:LOOKS], *others]


def chain(entries: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the entries, (chance c, gain g over the original), are looked at first, surest
    first: the sequence from which most is expected. A look that certifies passes its level on, one
    that fails leaves a tenth, which is next to nothing; so a sequence is worth the sum over its
    looks of c_1 .. c_k (g_k - g_k-1), and more looks are no gain in themselves: what is a little
    worse and a little surer than the next may spoil it."""
    order = sorted(
        (i for i, (c, g) in enumerate(entries) if c > 0 and g > 0), key=lambda i: (-entries[i][0], -entries[i][1])
    )
    top: list[int] = []  # those that gain more than all that are surer
    for i in order:
        if not top or entries[i][1] > entries[top[-1]][1]:
            top.append(i)
    worth, after = [0.0] * len(top), [-1] * len(top)

    def best(gained: float, start: int) -> tuple[float, int]:
        """What can be expected of the looks from `start` on, and the first of them."""
        found = [(entries[top[k]][0] * (entries[top[k]][1] - gained + worth[k]), k) for k in range(start, len(top))]
        return max(found, default=(0.0, -1), key=lambda one: one[0])

    for k in reversed(range(len(top))):
        worth[k], after[k] = best(entries[top[k]][1], k + 1)
    out, k = [], best(0.0, 0)[1]
    while k >= 0:
        out.append(top[k])
        k = after[k]
    return out


def _likely(state: StudyState, entry: Entry) -> float:
    """The chance of a certificate at a first look, whatever test has said since."""
    proof = state.proof(entry, entry.paired) if entry.paired is not None else None
    return proof.chance if proof is not None else entry.chance or 0.0


def _may(entry: Entry) -> bool:
    """Might it be certified, and meets it all other limits?"""
    others = [v for v in entry.violations if "chance" not in v]
    return not others and (entry.chance if entry.chance is not None else float(entry.feasible)) >= LEAST


def _side(entry: Entry, folder: Path) -> Made:
    name = artifact_id(entry).replace("/", "_")
    return Made(entry.artifact, entry.target, str(folder / "test-outputs" / f"{name}.npy"))
