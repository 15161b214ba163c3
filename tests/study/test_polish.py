"""Finalists are trained on by as many workers as there are."""

from types import SimpleNamespace

import pytest

from featherweight.engine.messages import Message
from featherweight.limits import Budget
from featherweight.study.clock import Clock
from featherweight.study.polish import polish
from tests.study.test_certify import counted, entry, state


class Workers:
    """Jobs and engine whose trainings end one after the other, the last begun first; one in three
    fails. With `stop_after`, patience ends then."""

    def __init__(self, study, count, stop_after=99):
        self.log = self.engine = self
        self.state, self.count, self.stop_after = study, count, stop_after
        self.config, self.stop = study.begun, SimpleNamespace(asked=False)
        self.clock = SimpleNamespace(for_finalists=lambda: 300.0, timeout=lambda finalist: 60.0)
        self.running, self.most, self.ended, self.cancelled, self.phases = [], 0, 0, False, 0

    @property
    def free(self):
        return self.count - len(self.running)

    def trial_job(self, recipe, target, label, **more):
        return SimpleNamespace(recipe=recipe, label=label, **more)

    def submit(self, job, timeout_s, within_s):
        assert self.free and job.trial not in {j.trial for j in self.running}
        self.running.append(job)
        self.most = max(self.most, len(self.running))

    def messages(self):
        job = self.running.pop()
        self.ended += 1
        self.stop.asked = self.ended >= self.stop_after
        if self.ended % 3 == 0:
            return [
                Message(kind="progress", id=job.id),
                Message(kind="failed", id=job.id, reason="it died", seconds=9.0),
            ]
        told = entry(job.trial, job.label, 2.0 + job.trial / 10, counted(20, 12), recipe=job.recipe.to_json())
        return [Message(kind="finished", id=job.id, seconds=9.0, result={"entry": told, "steps": 3, "reused": 0})]

    def record(self, kind, body, trial=None):
        self.phases += kind == "phase"
        self.state.apply({"kind": kind, "trial": trial, "time": 5000.0 + self.ended, **body})

    def progress(self, message):
        pass

    def heartbeat(self):
        pass

    def cancel(self):
        self.cancelled, self.running = True, []


@pytest.mark.parametrize("count", [1, 3])
def test_each_worker_trains_a_finalist_on(count):
    study = state((2.0, 24, 8), (2.1, 26, 8), (2.2, 28, 8), polish=1 / 3, minutes=10)
    jobs = Workers(study, count)
    polish(jobs)
    assert jobs.most == count and jobs.phases == 1 and not jobs.running and not jobs.cancelled
    assert len(study.polished) >= 3 and len(study.unpolished) >= 1
    assert all(e.trial == n and e.rung == rung for (n, rung), e in study.polished.items())
    assert "trained on for 6 epochs" in study.polished[0, 1].label


def test_an_interrupt_ends_them_all():
    study = state((2.0, 24, 8), (2.1, 26, 8), (2.2, 28, 8), polish=1 / 3, minutes=10)
    jobs = Workers(study, 3, stop_after=1)
    polish(jobs)
    assert jobs.cancelled and len(study.polished) == 1 and not study.unpolished


def test_while_nothing_is_complete_no_time_is_kept_for_finalists():
    """A first trial longer than the search's share was stopped at it, and then begun again."""
    budget = Budget(minutes=10)
    for study, share in ((state(), 0.0), (state((2.0, 8, 8)), 1 / 3)):
        clock = Clock(study, budget, polish=1 / 3, now=lambda: 0.0)
        assert clock.for_finalists() - clock.left() == pytest.approx(600 * share)
