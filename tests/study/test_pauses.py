"""Which waiting trial goes on when time runs out: one that can train to its end, or the search
would have nothing to show."""

from types import SimpleNamespace

import pytest

import featherweight as fw
from featherweight.records import Trial
from featherweight.stoppers.asha import Asha
from featherweight.stoppers.median import Median
from featherweight.study.pauses import Pauses


def row(number, epochs, done, seconds, score, **more):
    recipe = fw.Recipe(fw.Train(epochs=epochs)).to_json()
    return Trial(
        number,
        {},
        **{"state": "stopped", "paused": True, "recipe": recipe, "reports": {done: score}, "before_s": seconds, **more},
    )


ROWS = [
    row(0, 10, 1, 100.0, 0.1),  # the best, but 1080 s from its end
    row(1, 2, 1, 100.0, 0.2),  # 120 s
    row(2, 2, 1, 10.0, 0.3),  # 12 s
    row(3, 2, 1, 1.0, 0.05, state="failed", paused=False),
]


def pauses(tmp_path, rows=ROWS, stopper=None):
    return Pauses(stopper or Asha(eta=2), SimpleNamespace(trials=rows), tmp_path)


def test_the_best_that_can_still_end_goes_on_when_nothing_new_will_start(tmp_path):
    p = pauses(tmp_path)
    assert [p.next(True, left).number for left in (2000.0, 1000.0, 100.0)] == [0, 1, 2]
    assert p.next(True, 10.0) is None
    assert p.next(False, 10.0).number == 0  # while new trials come, the best of the rung goes on


def test_so_much_time_is_kept_that_the_best_can_end(tmp_path):
    p = pauses(tmp_path)
    longest = 100.0  # between two looks: so long no worker may come free
    assert [p.to_end(left) for left in (2000.0, 1000.0, 100.0, 10.0)] == [
        pytest.approx(x) for x in (1080 + longest, 120 + longest, 12 + longest, 0)
    ]
    running = row(4, 2, 1, 5.0, 0.0, state="running", paused=False)
    # a worker that is busy does not count
    assert pauses(tmp_path, [*ROWS, running]).to_end(1000.0) == pytest.approx(120.0 + longest)
    assert pauses(tmp_path, ROWS[3:]).to_end(1000.0) == 0.0
    assert pauses(tmp_path, stopper=Median()).to_end(1000.0) == 0.0  # what it stops never goes on


def test_the_longest_stretch_is_between_two_looks(tmp_path):
    # 12 s from its end; 60 s from 3 to 9 epochs
    far = row(0, 10, 9, 90.0, 0.1, reports={1: 0.3, 3: 0.2, 9: 0.1})
    assert pauses(tmp_path, [far], Asha(eta=3)).to_end(100.0) == pytest.approx(12.0 + 60.0)


def test_a_free_worker_does_not_wait_for_another_when_time_is_short(tmp_path):
    running = row(3, 2, 1, 5.0, 0.5, state="running", paused=False, reports={})
    p = pauses(tmp_path, [*ROWS[:3], running], Asha(eta=4))
    assert p.next(True, 1000.0).number == 1
    assert p.next(True) is None  # without a limit it may be a better one


def test_a_running_trial_gives_way_to_one_that_can_end(tmp_path):
    slow = row(4, 100, 1, 100.0, 0.0, state="running", paused=False, reports={})
    p = pauses(tmp_path, [ROWS[2], slow], Asha(eta=3))
    assert not p.goes_on(4, 1, 0.5, True, 100.0) and p.goes_on(4, 1, 0.01, True, 1e9)
