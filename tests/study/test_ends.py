"""When a search ends early."""

import pytest

from featherweight.errors import InputError
from featherweight.limits import Budget
from featherweight.records import Entry, History, Latency, Quality, Speedup, Trial
from featherweight.study.ends import expectation, none_finished, reason


def entry(value, higher=True):
    quality, latency = Quality("accuracy", value, None, 1, higher), Latency(1.0, 1.0, 1, 1.0, 0.0)
    return Entry("x", 0, None, "t", quality, latency, Speedup(1.0, (1.0, 1.0), "cpu", 1), 1, 1, 1, 1, "a", "s")


def history(*values, state="complete", violation=0.0):
    return History(
        Trial(i, {"a": i}, state, v if isinstance(v, tuple) else (v,), violation) for i, v in enumerate(values)
    )


def test_no_rule_no_end():
    assert reason(Budget(trials=1), history(1.0, 1.0, 1.0), entry(1.0)) is None


def test_enough_looks_at_the_direction_of_the_metric():
    assert "reached 0.9" in reason(Budget(trials=9, enough=0.9), History(), entry(0.9))
    assert reason(Budget(trials=9, enough=0.9), History(), entry(0.89)) is None
    assert reason(Budget(trials=9, enough=0.9), History(), None) is None
    assert reason(Budget(trials=9, enough=0.2), History(), entry(0.1, higher=False)) is not None
    assert reason(Budget(trials=9, enough=0.2), History(), entry(0.3, higher=False)) is None


def test_stall_counts_finished_trials_since_the_last_gain():
    budget = Budget(trials=99, stall=3)
    assert reason(budget, history(3.0, 2.0, 2.0, 2.5), None) is None
    assert "last 3 trials" in reason(budget, history(3.0, 2.0, 2.0, 2.5, 9.0), None)
    # a new corner of the front
    assert reason(budget, history((1.0, 3.0), (1.0, 3.0), (1.0, 3.0), (3.0, 1.0)), None) is None


def test_stall_sees_a_trial_once_it_has_finished():
    budget, trials = Budget(trials=99, stall=2), history(1.0, 2.0, 0.5)
    trials[2].state, trials[2].values = "running", None
    assert reason(budget, trials, None) is None
    trials[2].state, trials[2].values = "complete", (0.5,)
    trials.add(Trial(3, {"a": 3}, "failed"))
    assert reason(budget, trials, None) is None
    trials.add(Trial(4, {"a": 4}, "complete", (float("nan"),)))
    assert reason(budget, trials, None) is not None
    # a history that was read anew says the same
    assert reason(budget, History(trials), None) is not None


def test_less_infeasible_is_a_gain_and_feasible_comes_first():
    trials = History()
    for i, (value, violation) in enumerate([(1.0, 2.0), (5.0, 1.0), (0.1, 1.5), (9.0, 0.0), (0.1, 0.5)]):
        trials.add(Trial(i, {"a": i}, "complete", (value,), violation))
    assert reason(Budget(trials=99, stall=1), trials, None) is not None
    assert reason(Budget(trials=99, stall=2), trials, None) is None


def test_least_gain_needs_three_doubts_in_a_row():
    def noted(*gains):
        return History(
            Trial(i, {"a": i}, note={"note": {"ei": g}} if g is not None else {}) for i, g in enumerate(gains)
        )

    budget = Budget(trials=99, least_gain=1e-3)
    assert reason(budget, noted(1.0, 1e-4, None, 1e-5, 1e-4), None) is not None
    assert reason(budget, noted(1e-4, 1e-4, 0.1), None) is None
    assert reason(budget, noted(1e-4, 1e-4), None) is None
    assert (
        expectation({"ei": 1}) == 1.0
        and expectation({"note": {"note": {"ei": 2.0}}}) == 2.0
        and expectation({}) is None
    )


@pytest.mark.parametrize("wrong", [{"stall": 0}, {"stall": 1.5}, {"enough": float("inf")}, {"least_gain": 0.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Budget(trials=1, **wrong)
    assert Budget(trials=1, enough=-3.5).enough == -3.5


def failed(*reasons, state="failed"):
    return History(Trial(i, {"a": i}, state, reason=why) for i, why in enumerate(reasons))


def test_that_no_trial_finished_is_said_with_the_commonest_reason():
    """Reasons that differ in their numbers are one; lines become one line."""
    diverged = "training diverged\n  got: loss nan in epoch {}\n  fix: lower the learning rate (now {})"
    trials = failed("no memory", diverged.format(1, 0.5), diverged.format(2, 3e-4))
    assert none_finished(trials) == (
        "no trial finished: 2 of 3 failed with: training diverged; got: loss nan in epoch 1; "
        "fix: lower the learning rate (now 0.5)"
    )
    assert none_finished(History()) is None
    for state in ("complete", "stopped", "running"):
        some = failed("no memory", "no memory")
        some.add(Trial(2, {"a": 2}, state))
        assert none_finished(some) is None


def test_a_study_whose_every_trial_fails_says_why_and_is_no_success(tmp_path, one_baseline):
    from typer.testing import CliRunner

    from featherweight.cli import app

    file = tmp_path / "diverges.py"
    file.write_text(DIVERGES)
    options = ["--trials", "2", "--out", str(tmp_path / "out"), "--workers", "1", "--strategy", "random"]
    result = CliRunner().invoke(app, ["optimize", str(file), *options])
    assert result.exit_code == 1, result.output
    assert "The search ended: no trial finished: 2 of 2 failed with: training diverged" in " ".join(
        result.output.split()
    )


DIVERGES = """
import numpy as np
import featherweight as fw
from torch import nn

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets.long()) / 0.0

def data():
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    return fw.split(fw.ArraySplit({"x": x}, np.arange(200) % 2))

recipe = fw.Recipe(fw.Train(epochs=2, lr=fw.Float(1e-4, 1e-1, log=True)))
task = fw.Task("nan", model=lambda: nn.Linear(6, 2), data=data, loss=loss, recipe=recipe)
"""
