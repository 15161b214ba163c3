"""Long recovery for the finalists. The search compares candidates after a short recovery; here
those that could win are trained on, some times as long, and measured again.

Notation: drop the drop on validation, score the mean log of the objectives (less is better; 0 is
the baseline), chance that of being certified.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .. import pareto
from ..engine.messages import TrialJob
from ..limits import objectives, of_floor
from ..proof.chance import recovered
from ..recipe import Recipe
from ..records import Entry, Paired, Trial
from ..transforms.base import Trained
from .jobs import Jobs, run_each, told
from .state import StudyState

LONGER = 3  # times the recovery that it had as searched: the first time; three times as much the next
RUNGS = 3  # longer recoveries of one candidate, at most
LEAST = 0.001  # that has to be expected of a recovery, as a gain
KEPT = 0.7  # of the error is still there after longer training, before any finalist has shown it
_SURE = 0.8  # of the time that is left, what a recovery may be expected to take
_FIXED_S = 5.0  # seconds of a trial that are no training: export and measurement


def polish(jobs: Jobs) -> None:
    """Train those on that are most worth it, one on each worker, while the share of the budget that
    is kept for it lasts. What comes of it stands beside the candidate as it was searched."""
    log, state, clock = jobs.log, jobs.log.state, jobs.clock
    if not jobs.config.polish:
        return
    busy: dict[int, tuple[int, int]] = {}  # the trials that are trained on, with rung and epochs
    announced = False

    def ask() -> tuple[TrialJob, float, float] | None:
        nonlocal announced
        left_s, minutes = clock.for_finalists(), jobs.config.budget.minutes
        found = next_finalist(state, left_s, jobs.config.polish, minutes, {n: e for n, (_, e) in busy.items()})
        if found is None:
            return None
        if not announced:
            log.record("phase", {"name": "polish"})
            announced = True
        entry, epochs = found
        busy[entry.trial if entry.trial is not None else -1] = entry.rung + 1, epochs
        return _job(jobs, entry, epochs), clock.timeout(finalist=True), left_s

    for message in run_each(jobs, ask):
        rung, epochs = busy.pop(message.id)
        body: dict[str, Any] = {"rung": rung, "epochs": epochs, "seconds": message.seconds}
        if message.kind == "finished":
            found = told(message)
            found["entry"] |= {"rung": rung}
            log.record("polished", {**body, **found}, trial=message.id)
        else:
            log.record("unpolished", {**body, "reason": message.reason}, trial=message.id)


def _job(jobs: Jobs, entry: Entry, epochs: int) -> TrialJob:
    """The job that trains an entry on for so many epochs."""
    state = jobs.log.state
    trial = state.trials[entry.trial if entry.trial is not None else -1]
    done = sum(state.polish_epochs[trial.number, k] for k in range(1, entry.rung + 1))
    label = f"{trial.entry.label if trial.entry else ''}, trained on for {done + epochs} epochs"
    more: dict[str, Any] = {"id": trial.number, "trial": trial.number, "filling": trial.filling}
    more["timeout_s"] = jobs.clock.timeout(finalist=True)
    return jobs.trial_job(longer(Recipe.from_json(entry.recipe), epochs), entry.target, label, **more)


def next_finalist(
    state: StudyState, left_s: float, share: float, minutes: float | None, busy: Mapping[int, int] | None = None
) -> tuple[Entry, int] | None:
    """(who is trained on next, epochs); None if nothing is worth it, or affordable. busy: epochs of
    the trials that are being trained on.

    What a candidate promises is its chance times its gain over the baseline; who promises most
    leads. The next is the one of which most is expected after longer training: that it is better
    than the leader, times its chance then, or that its promise exceeds the leader's."""
    trials = {t.number: t for t in state.trials if t.state == "complete" and t.entry is not None}
    latest: dict[int, Entry] = {n: t.entry for n, t in trials.items() if t.entry is not None}
    latest |= {n: e for (n, _), e in sorted(state.polished.items())}
    able = [e for e in latest.values() if all(map(of_floor, e.violations))]
    ready = [e for e in state.baselines.values() if state.takeable(e) and all(map(of_floor, e.violations))]
    now, leads = max(
        ((chance * gain, gain) for e in [*able, *ready] for chance, gain in [_prospect(state, e)]), default=(0.0, 0.0)
    )
    best: tuple[float, Entry, int] | None = None
    for e in _undominated(state, able):
        if e.trial in (busy or {}):
            continue
        epochs = affordable(state, e, trials[e.trial or 0], left_s, share, minutes, sum((busy or {}).values()))
        if epochs == 0 or e.rung == RUNGS or (e.trial, e.rung + 1) in state.unpolished:
            continue
        left = remainder(state, e.trial if e.rung else None)
        kept = remaining_error(state, e.trial if e.rung else None)
        chance, gain = _prospect(state, e, recovered(e.paired, left, state.lacking) if e.paired else None, kept)
        worth = max(chance * (gain - leads), chance * gain - now)
        if worth > LEAST and (best is None or worth > best[0]):
            best = worth, e, epochs
    return None if best is None else best[1:]


def affordable(
    state: StudyState,
    entry: Entry,
    trial: Trial,
    left_s: float,
    share: float,
    minutes: float | None,
    promised: int = 0,
) -> int:
    """Epochs of the next recovery of this entry: LONGER times those that it had, or less if time
    is short; 0 if there is no recovery to lengthen, or no budget. Without minutes the budget is
    counted in epochs: `share` of all, the search's and these. promised: epochs that others are
    being trained for."""
    step = recovery(Recipe.from_json(trial.recipe))
    if step is None:
        return 0
    wanted = step.epochs * LONGER ** (entry.rung + 1)
    pace = max(trial.cost_s - _FIXED_S, 0.05 * trial.cost_s) / step.epochs  # seconds an epoch, at most
    able = wanted if left_s == math.inf else int((_SURE * left_s - _FIXED_S) / max(pace, 1e-9))
    if minutes is None:
        searched = sum(_epochs(t) for t in state.trials if t.state == "complete")
        able = min(able, int(searched * share / (1 - share)) - sum(state.polish_epochs.values()) - promised)
        return wanted if able >= wanted else 0
    return min(wanted, able) if able >= step.epochs else 0


def remainder(state: StudyState, trial: int | None = None) -> float:
    """The share of a drop that longer recovery leaves: of all drops so far together (of this
    trial's alone, if one is named), and of one as large as the floor, of which RECOVERED was
    left."""
    floor = max(state.max_drop or 0.0, 1e-6)
    before, after = floor, state.RECOVERED * floor
    for was, now in _before_and_after(state, trial):
        lacked = state.lacking
        if was.paired and now.paired and was.paired.drop > lacked:
            before, after = before + was.paired.drop - lacked, after + now.paired.drop - lacked
    return min(1.0, max(0.0, after / before))


def remaining_error(state: StudyState, trial: int | None = None) -> float:
    """The share of the error that longer recovery leaves: the geometric mean of what it left so far
    (of this trial's, if one is named), and of KEPT."""
    logs = [math.log(KEPT)]
    for pair in _before_and_after(state, trial):
        before, after = (objectives(e, state.baseline, ["error"])[0] for e in pair)
        logs.append(math.log(after / before))
    return math.exp(sum(logs) / len(logs))


def _before_and_after(state: StudyState, trial: int | None) -> Iterator[tuple[Entry, Entry]]:
    """Each candidate whose recovery was made longer (this one, if one is named), as it was before
    and as it was after."""
    for (number, rung), after in state.polished.items():
        if trial not in (None, number):
            continue
        before = state.polished.get((number, rung - 1)) if rung > 1 else state.trials[number].entry
        if before is not None:
            yield before, after


def recovery(recipe: Recipe) -> Any:
    """The training whose continuation helps: the last one that can stop and go on, and trains the
    weights as they are deployed; None if there is none."""
    steps = [s for s in recipe.steps if isinstance(s, Trained) and s.pauses and s.epochs > 0]
    return steps[-1] if steps else None


def longer(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with so many epochs of the same recovery after the last one: a new schedule, from
    the weights that the short one gave."""
    at = max(i for i, s in enumerate(recipe.steps) if s is recovery(recipe))
    more = dataclasses.replace(recipe.steps[at], epochs=epochs)
    return Recipe(*recipe.steps[: at + 1], more, *recipe.steps[at + 1 :])


def _prospect(state: StudyState, entry: Entry, paired: Paired | None = None, kept: float = 1.0) -> tuple[float, float]:
    """(the chance that the entry is certified, its gain over the baseline: the mean log of the
    objectives), if this had been seen on validation (None: what was), and the error were this
    share of what it is."""
    score = state.score(entry)
    if "error" in state.minimize:
        score += math.log(kept) / len(state.minimize)
    proof = state.proof(entry, paired)
    if proof is None:  # no floor: it may be said of each, and one that is worse than the baseline may be the best
        return 1.0, -score
    return proof.chance, max(0.0, -score)


def _undominated(state: StudyState, entries: list[Entry]) -> list[Entry]:
    """Those that no other is as good as in score and error, and better in one."""
    return [entries[i] for i in pareto.front([(state.score(e), e.metric.error) for e in entries])]


def _epochs(trial: Trial) -> int:
    step = recovery(Recipe.from_json(trial.recipe))
    return step.epochs if step is not None else 0
