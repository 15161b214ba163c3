"""Opens the test split for the winners: which of them, in which order, against what.

The order goes by chances and gains on the validation split, and is not changed by what test
says: that, and a level that is passed on from a certificate to the next look (see
`proof.levels`), is what lets all certificates of a study hold together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..engine.messages import CertifyJob, Made
from ..limits import of_floor
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
    best = state.leader()
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
        if not jobs.restored(entry, max(5.0, clock.remaining()) if clock.budget.minutes else 3600.0):
            continue
        sides = {"baseline": _side(jobs, state.baseline), "candidate": _side(jobs, entry)}
        time_s = max(60.0, min(clock.remaining(), 3600.0))
        most, least = state.to_show(entry)
        job = CertifyJob(**sides, max_drop=most, min_metric=least, timeout_s=time_s, level=state.level)
        time_s = max(5.0, clock.remaining()) if clock.budget.minutes else 3600.0
        outcome = jobs.run_one(job, time_s, closing=not state.certificates, within_s=time_s)
        if outcome.kind != "finished":
            log.warn(f"no certificate for {entry.label}: {outcome.reason}", entry.trial)
            continue
        certificate = {**outcome.result["certificate"], "chance": entry.chance, "looks": len(state.certificates) + 1}
        name, said = artifact_id(entry), {**entry.to_json(), "certificate": certificate}
        body = {"artifact": name, "certificate": certificate, "entry": said}
        outputs = {"outputs": told} if (told := outcome.result.get("outputs")) else {}
        log.record("certified", body | outputs, key=f"certificate {name}")


def to_certify(state: StudyState) -> list[Entry]:
    """The entries that are still to be looked at on test, in their order: those of `chain`, then
    what else is likely (at least LEAST) and not dominated among the rest, greatest chance first; at
    most LOOKS, and then of the others those stay that score best where chances are alike. All of it
    goes by validation, whatever test has said of some before the study went on."""
    able = {artifact_id(e): e for e in reversed(state.entries()) if e is not state.baseline and _may(state, e)}
    found = [(_likely(state, e), state.score(e), e) for e in reversed(able.values())]
    begun = chain([(likely, -score) for likely, score, _ in found])
    rest = sorted((one for i, one in enumerate(found) if i not in begun), key=lambda one: (-one[0], one[1]))
    top = set(map(id, state.outstanding([e for *_, e in rest])))
    others = [one for one in rest if id(one[2]) in top]
    while len(begun) + len(others) > LOOKS and others:
        # of two neighbours in chance that are most alike in it, the one with the worse score goes
        gaps = [a[0] - b[0] for a, b in itertools.pairwise(others)]
        i = gaps.index(min(gaps)) if gaps else 0
        del others[i if not gaps or others[i][1] > others[i + 1][1] else i + 1]
    order = [*(found[i][2] for i in begun[:LOOKS]), *(e for *_, e in others)]
    return [e for e in order if artifact_id(e) not in state.certificates]


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
    if proof is not None:
        return proof.chance
    return entry.chance if entry.chance is not None else float(entry.feasible)


def _may(state: StudyState, entry: Entry) -> bool:
    """Might it be certified, and meets it all other limits?"""
    return all(map(of_floor, entry.violations)) and _likely(state, entry) >= min(LEAST, state.begun.confidence)


def _side(jobs: Jobs, entry: Entry) -> Made:
    return jobs.made(entry, f"test-outputs/{artifact_id(entry).replace('/', '_')}.npy")
