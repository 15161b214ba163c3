"""Stoppers in a study on a simulated clock: an epoch takes a second, no worker sleeps."""

import heapq

import pytest

from featherweight.stoppers.asha import Asha
from featherweight.stoppers.hyperband import Hyperband
from featherweight.stoppers.median import Median
from featherweight.stoppers.successive_halving import SuccessiveHalving
from tests.stoppers.test_oracles import curve

EPOCHS = 27


class Study:
    """`workers` workers until `seconds` are over, with new trials without end; counts what each
    trained and how long workers had no job."""

    def __init__(self, stopper, workers, seconds):
        self.stopper, self.states, self.reports = stopper, {}, {}
        self.trained, self.idle, self.full = {}, 0.0, {}
        queue = [(0.0, w, None) for w in range(workers)]
        heapq.heapify(queue)
        while queue:
            now, worker, ended = heapq.heappop(queue)
            if now > seconds:
                continue
            trial = self.after(ended, now)
            if trial is None:
                trial = self.stopper.promote(self.reports, self.states)
                trial = len(self.states) if trial is None else trial
            self.states[trial] = "running"
            done = self.trained.get(trial, 0)
            until = next((r for r in stopper.rungs(trial, EPOCHS) if r > done), EPOCHS)
            self.trained[trial] = until  # goes on from `done`
            heapq.heappush(queue, (now + until - done, worker, (trial, until)))
        self.workers, self.seconds = workers, seconds

    def after(self, ended, now):
        """What becomes of the trial whose job has ended; itself, if it goes on at once."""
        if ended is None:
            return None
        trial, epochs = ended
        if epochs == EPOCHS:
            self.states[trial], self.full[trial] = "ended", now
            return None
        self.reports.setdefault(trial, {})[epochs] = curve(trial, epochs)
        if not self.stopper.decide(self.reports, trial, epochs):
            return trial
        self.states[trial] = "paused"
        return None

    def best(self):
        return min((curve(t, EPOCHS) for t in self.full), default=float("inf"))


@pytest.mark.parametrize(
    "stopper",
    [Asha(), Asha(type="stopping"), Hyperband(max_budget=27), Median(), SuccessiveHalving(trials=27)],
    ids=repr,
)
def test_no_epoch_is_trained_twice_and_no_worker_waits(stopper):
    study = Study(stopper, workers=4, seconds=500)
    at_work = sum(study.trained.values())
    # every second of every worker is an epoch that no other job has trained
    assert 4 * 500 <= at_work <= 4 * (500 + EPOCHS)
    assert study.full


@pytest.mark.parametrize(
    "stopper",
    [Asha(), Hyperband(max_budget=27), SuccessiveHalving(trials=27), Asha(type="stopping"), Median()],
    ids=repr,
)
def test_stopping_finds_a_better_trial_than_full_training_in_equal_time(stopper):
    """Among curves whose early scores say something of their ends: what full training finds in
    600 s on 4 workers is the best of the first 88 or so."""
    ours = Study(stopper, 4, 600)
    plain = Study(Asha(min_budget=EPOCHS), 4, 600)
    assert len(plain.states) < len(ours.states) and ours.best() <= plain.best()


def test_asha_does_not_wait_for_a_slow_trial():
    """Of 27 trials one never comes back: synchronous halving promotes nobody, ASHA goes on."""
    reports = {t: {1: curve(t, 1)} for t in range(26)}
    states = dict.fromkeys(range(26), "paused") | {26: "running"}
    assert SuccessiveHalving(trials=27).promote(reports, states) is None
    assert Asha().promote(reports, states) == min(reports, key=lambda t: reports[t][1])
