"""What every stopper has to do: name rungs that a trial can reach, judge the same reports alike,
promote only what waits.

Use it in the tests of a plug-in: `check_stopper(MyStopper(...))`.
It raises AssertionError with what went wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..seeding import generator
from ..stoppers.base import Stopper

_EPOCHS = 27


def check_stopper(stopper: Stopper) -> None:
    """Run the whole suite (well under a second). Its trials have 27 epochs, or 1 to 27."""
    check_rungs(stopper)
    check_empty(stopper)
    for workers, mixed in ((1, False), (4, False), (3, True)):
        check_study(stopper, workers, 40, mixed)


def check_rungs(stopper: Stopper) -> None:
    """Rungs rise, are above 0, and lie below the trial's own budget;
    asked twice, they are the same."""
    for trial in range(30):
        for of in (0, 1, 2, 5, _EPOCHS):
            rungs = stopper.rungs(trial, of)
            assert rungs == stopper.rungs(trial, of) and list(rungs) == sorted(set(rungs)), (
                f"rungs {rungs} of trial {trial} do not rise"
            )
            assert all(0 < r < of for r in rungs), f"rungs {rungs} of trial {trial} are not between 0 and {of}"


def check_empty(stopper: Stopper) -> None:
    """Nothing is promoted where nothing waits."""
    some: list[dict[int, str]] = [{}, {0: "running"}, {0: "ended", 1: "running"}]
    for states in some:
        for closed in (False, True):
            assert stopper.promote({}, states, closed) is None, f"a trial was promoted out of {states}"


def check_study(stopper: Stopper, workers: int, trials: int, mixed: bool) -> None:
    """A study of `workers` workers, in which some trials fail and some scores are no numbers: each
    answer is that of a stopper that was never asked before, only waiting trials are promoted, and
    something is trained in full."""
    rng = generator(1, workers, trials)
    reports: dict[int, dict[float, float]] = {}
    states: dict[int, str] = {}
    epochs: dict[int, int] = {}
    at: dict[int, float] = {}  # epochs that the trial has run
    doomed: set[int] = set()  # trials that will fail, however many rungs they have
    full = 0
    for _ in range(50 * trials):
        running = [t for t, s in states.items() if s == "running"]
        if len(running) < workers:
            closed = len(states) == trials
            number = stopper.promote(reports, states, closed)
            assert number == stopper.promote(_shuffled(reports, rng), _shuffled(states, rng), closed), (
                "the order of the reports decides"
            )
            if number is not None:
                assert states.get(number) == "paused", f"trial {number} was promoted while it was {states.get(number)}"
                states[number] = "running"
                continue
            if not closed:
                number = len(states)
                states[number], at[number] = "running", 0
                doomed |= {number} if rng.random() < 0.15 else set()
                epochs[number] = int(rng.integers(1, _EPOCHS + 1)) if mixed else _EPOCHS
                continue
            if not running:
                break
        trial = running[int(rng.integers(len(running)))]
        following = [r for r in stopper.rungs(trial, epochs[trial]) if r > at[trial]]
        fate = rng.random()
        if trial in doomed and fate < 0.5:
            states[trial] = "ended"
        elif not following:
            states[trial], full = "ended", full + 1
        else:
            at[trial] = following[0]
            reports.setdefault(trial, {})[at[trial]] = float("nan") if fate < 0.1 else float(rng.normal())
            stops = stopper.decide(reports, trial, at[trial])
            assert stops == stopper.decide(_shuffled(reports, rng), trial, at[trial]), (
                "the order of the reports decides"
            )
            states[trial] = "paused" if stops else "running"
    assert "running" not in states.values(), "the study does not end"
    assert full > 0, "no trial was trained in full"


def _shuffled(table: dict[int, Any], rng: np.random.Generator) -> dict[int, Any]:
    """The same table, filled in another order."""
    names = list(table)
    return {names[i]: table[names[i]] for i in rng.permutation(len(names))}
