"""The stoppers against their papers' algorithms, written out, and against published tables."""

import math
import statistics

import numpy as np
import pytest

from featherweight.stoppers.asha import Asha
from featherweight.stoppers.hyperband import Hyperband
from featherweight.stoppers.median import Median
from featherweight.stoppers.successive_halving import SuccessiveHalving


def curve(trial, epochs):
    """A falling score with crossings: depends on the trial and the epochs only."""
    rng = np.random.default_rng([3, trial])
    end, speed = rng.uniform(0, 1), rng.uniform(0.1, 1)
    return float(end + math.exp(-speed * epochs) + 0.01 * rng.normal())


class Algorithm2:
    """ASHA as in arXiv:1810.05934, Algorithm 2: rungs of finished jobs,
    and which of them were promoted."""

    def __init__(self, r, R, eta):
        self.eta, self.budgets = eta, []
        while r < R:
            self.budgets.append(r)
            r *= eta
        self.budgets.append(R)
        self.rungs = [{} for _ in self.budgets]
        self.promoted = [set() for _ in self.budgets]
        self.count = 0

    def get_job(self):
        for k in range(len(self.budgets) - 2, -1, -1):
            rung = self.rungs[k]
            candidates = sorted(rung, key=lambda t: (rung[t], t))[: len(rung) // self.eta]
            promotable = [t for t in candidates if t not in self.promoted[k]]
            if promotable:
                self.promoted[k].add(promotable[0])
                return promotable[0], k + 1
        self.count += 1
        return self.count - 1, 0

    def run(self, jobs):
        out = []
        for _ in range(jobs):
            trial, k = self.get_job()
            self.rungs[k][trial] = curve(trial, self.budgets[k])
            out.append((trial, self.budgets[k]))
        return out


@pytest.mark.parametrize(("r", "R", "eta"), [(1, 27, 3), (2, 20, 2), (1, 81, 4)])
def test_asha_gives_the_jobs_of_algorithm_2(r, R, eta):
    stopper, reports, states, jobs = Asha(min_budget=r, eta=eta), {}, {}, []
    while len(jobs) < 400:
        trial = stopper.promote(reports, states)
        trial = len(states) if trial is None else trial
        done = max(reports.get(trial, {0: 0}))
        budget = next((b for b in stopper.rungs(trial, R) if b > done), R)
        jobs.append((trial, budget))
        if budget == R:
            states[trial] = "ended"
        else:
            reports.setdefault(trial, {})[budget] = curve(trial, budget)
            assert stopper.decide(reports, trial, budget)
            states[trial] = "paused"
    assert jobs == Algorithm2(r, R, eta).run(400)
    assert sum(b == R for _, b in jobs) > 1


def test_asha_that_stops_keeps_who_is_in_the_top_share_so_far():
    stopper, reports = Asha(type="stopping", eta=3), {}
    stopped = []
    for trial, score in enumerate([0.5, 0.9, 0.7, 0.6, 0.4, 0.3]):
        reports[trial] = {1: score}
        stopped.append(stopper.decide(reports, trial, 1))
    # with 3 to 5 trials one is in the top third, with 6 two are
    assert stopped == [False, False, True, True, False, False]
    assert stopper.final and stopper.promote(reports, dict.fromkeys(reports, "paused"), True) is None


def test_asha_in_a_study_that_ends_trains_the_best_in_full():
    stopper = Asha()
    reports, states = {0: {1: 0.5}, 1: {1: 0.2}}, {0: "paused", 1: "paused"}
    assert stopper.promote(reports, states) is None  # 2 // 3 = 0
    assert stopper.promote(reports, states, closed=True) == 1
    assert stopper.promote(reports, {**states, 2: "running"}, closed=True) is None  # that one may still tell
    reports[1][3] = 0.2
    assert stopper.promote(reports, states, closed=True) == 1
    assert stopper.promote(reports, {0: "paused", 1: "ended"}, closed=True) is None


def halving(scores, n, r, R, eta):
    """Successive halving with 1/eta kept: (rung, survivors in order of score) for each rung,
    by the definition."""
    alive, out = list(range(n)), []
    while r < R:
        alive = sorted(alive, key=lambda t: (scores(t, r), t))[: max(1, len(alive) // eta)]
        out.append((r, alive))
        r *= eta
    return out


@pytest.mark.parametrize(("n", "eta", "R"), [(9, 3, 9), (16, 2, 8), (10, 3, 27), (1, 3, 9)])
def test_successive_halving_keeps_the_survivors_of_the_definition(n, eta, R):
    stopper, reports, states = SuccessiveHalving(eta=eta, trials=n), {}, dict.fromkeys(range(n), "paused")
    for t in range(n):
        if t < n - 1:
            reports[t] = {1: curve(t, 1)}
            # the rung is not full
            assert stopper.promote(reports, {u: "paused" if u <= t else "running" for u in range(n)}) is None
    reports[n - 1] = {1: curve(n - 1, 1)}
    promoted = []
    while (t := stopper.promote(reports, states)) is not None:
        at = max(reports[t])
        promoted.append((at, t))
        if at * eta < R:
            reports[t][at * eta] = curve(t, at * eta)
        else:
            states[t] = "ended"
    assert promoted == [(r, t) for r, alive in halving(curve, n, 1, R, eta) for t in alive]


def test_successive_halving_does_not_wait_for_what_failed_or_never_comes():
    stopper = SuccessiveHalving(trials=3)
    reports = {0: {1: 0.5}, 1: {1: 0.4}}
    assert stopper.promote(reports, {0: "paused", 1: "paused"}) is None
    assert stopper.promote(reports, {0: "paused", 1: "paused"}, closed=True) == 1
    assert stopper.promote(reports, {0: "paused", 1: "paused", 2: "running"}, closed=True) is None
    assert stopper.promote(reports, {0: "paused", 1: "paused", 2: "ended"}) == 1
    # the next three are a group of their own
    assert stopper.promote({3: {1: 0.1}}, {0: "ended", 1: "ended", 2: "ended", 3: "paused"}) is None


def test_rungs_within_an_epoch_are_written_without_rounding_errors():
    assert Asha(min_budget=0.1).rungs(0, 9) == (0.1, 0.3, 0.9, 2.7, 8.1)
    assert Median(min_budget=0.1, every=0.1).rungs(0, 1)[:4] == (0.1, 0.2, 0.3, 0.4)
    assert Asha(min_budget=0.5, eta=2).rungs(0, 5) == (0.5, 1, 2, 4)
    assert [r for _, _, r in Hyperband(min_budget=0.5, max_budget=5).brackets] == [
        (0.555556, 1.666667),
        (1.666667,),
        (),
    ]


def test_hyperbands_brackets_are_those_of_the_paper():
    """R = 81, eta = 3: n and r of arXiv:1603.06560, Algorithm 1, lines 1 to 5."""
    brackets = Hyperband(max_budget=81).brackets
    assert [s for s, _, _ in brackets] == [4, 3, 2, 1, 0]
    assert [n for _, n, _ in brackets] == [math.ceil(5 / (s + 1) * 3**s) for s in (4, 3, 2, 1, 0)] == [81, 34, 15, 8, 5]
    assert [r for _, _, r in brackets] == [(1, 3, 9, 27), (3, 9, 27), (9, 27), (27,), ()]
    assert Hyperband(max_budget=1).brackets == ((0, 1, ()),)
    assert [r for _, _, r in Hyperband(min_budget=3, max_budget=10).brackets] == [(3,), ()]


def test_hyperband_gives_trials_to_brackets_by_number_and_halves_in_each():
    stopper = Hyperband(max_budget=9)  # n = 9, 5, 3
    assert [stopper.bracket(t) for t in range(18)] == [0] * 9 + [1] * 5 + [2] * 3 + [0]
    assert [stopper.rungs(t, 9) for t in (0, 9, 14, 17)] == [(1, 3), (3,), (), (1, 3)]
    reports = {t: {1: 0.1 * t} for t in range(3)} | {t: {3: 0.01 * t} for t in (9, 10)}
    states = dict.fromkeys(reports, "paused")
    # one in three of its bracket; the two in the other bracket are better and too few
    assert stopper.promote(reports, states) == 0
    assert stopper.promote(reports, {**states, 0: "running"}) is None
    reports[11] = {3: 0.5}
    assert stopper.promote(reports, {**states, 0: "running", 11: "paused"}) == 9


def vizier(reports, trial, step):
    """Golovin et al. 2017, section 3.2.2, by its words."""
    best = min(v for s, v in reports[trial].items() if s <= step)
    means = [
        statistics.fmean(v for s, v in told.items() if s <= step)
        for t, told in reports.items()
        if t != trial and step in told
    ]
    return best > statistics.median(means)


def test_median_is_the_rule_of_vizier():
    rng, stopper, seen = np.random.default_rng(0), Median(trials=4), set()
    for _ in range(200):
        n, step = int(rng.integers(5, 12)), int(rng.integers(1, 6))
        reports = {t: {s: float(rng.normal()) for s in range(1, int(rng.integers(1, 8)))} for t in range(n)}
        trial = n
        reports[trial] = {s: float(rng.normal(0.3)) for s in range(1, step + 1)}
        enough = sum(step in told for t, told in reports.items() if t != trial) >= 4
        assert stopper.decide(reports, trial, step) == (enough and vizier(reports, trial, step))
        seen.add((enough, stopper.decide(reports, trial, step)))
    assert seen == {(True, True), (True, False), (False, False)}


def test_median_has_a_grace_period_and_a_pace():
    assert Median(min_budget=3, every=2).rungs(0, 9) == (3, 5, 7)
    assert Median(max_budget=3).rungs(0, 9) == (1, 2)
    assert Median().final


def test_a_score_that_is_no_number_is_worse_than_any():
    nan = float("nan")
    reports = {0: {1: nan}, 1: {1: 9.0}, 2: {1: nan}, 3: {1: 8.0}, 4: {1: 7.0}, 5: {1: nan}}
    assert Asha().promote(reports, dict.fromkeys(reports, "paused")) == 4
    assert Median().decide({**reports, 6: {1: nan}, 2: {1: 1.0}}, 6, 1)
