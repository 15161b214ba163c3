import math

import numpy as np
import pytest

from featherweight.records import History, Trial
from featherweight.report.analysis_figures import credit_figures
from featherweight.report.credit import arm_of, arms, decisions
from featherweight.space import Choice, Float, Space
from featherweight.strategies.adaptive import Adaptive
from tests.report.fake_study import searched, study


def trial(number, arm, seconds=1.0, feasible=True, **why):
    entry = {"trial": number, "feasible": feasible}
    return {"number": number, "strategy_note": {"arm": arm, "why": why, "note": {}}, "entry": entry, "seconds": seconds}


def test_the_table_counts_what_each_found():
    trials = [
        trial(0, "greedy", 2.0),
        trial(1, "genetic", 3.0),
        trial(2, "greedy", 4.0, feasible=False),
        {**trial(3, "genetic"), "entry": None},
    ]
    front = {"front": [{"trial": 0}, {"trial": 1}, {"trial": None}]}
    greedy, genetic = sorted(arms(front, trials), key=lambda a: a.name, reverse=True)
    assert (
        greedy.name,
        greedy.trials,
        greedy.measured,
        greedy.feasible,
        greedy.front,
        greedy.front_share,
        greedy.seconds,
    ) == (
        "greedy",
        2,
        2,
        1,
        1,
        0.5,
        6.0,
    )
    assert (genetic.trials, genetic.measured, genetic.front, genetic.seconds) == (2, 1, 1, 4.0)


def test_shares_and_trials_add_up():
    found = searched(60)
    table = arms(found.front_json(), found.trials())
    assert sum(a.trials for a in table) == 60
    assert sum(a.front_share for a in table) == pytest.approx(1.0)
    assert sum(a.seconds for a in table) == pytest.approx(sum(t["seconds"] for t in found.trials()))


@pytest.mark.parametrize("note", [None, {}, {"climb": 0}, {"arm": None}, {"arm": 3}, {"arm": ""}, "greedy"])
def test_other_strategies_notes_name_no_arm(note):
    assert arm_of({"number": 0, "strategy_note": note}) is None
    assert decisions([{"number": 0, "strategy_note": note}]) == ()


def test_what_is_no_number_is_left_out_of_a_decision():
    broken = {"a": 0.5, "b": None, "c": math.nan, "d": math.inf, "e": "much", "f": True}
    (found,) = decisions([trial(0, "a", p=broken, credit="none")])
    assert found.probabilities == {"a": 0.5} and found.credits == {}


def test_no_portfolio_no_figures():
    assert arms(study(10).front_json(), study(10).trials()) == ()
    assert credit_figures(()) == []


def test_the_notes_of_the_adaptive_strategy_are_read():
    space, history, strategy = Space((Float(0.0, 1.0), Choice("a", "b"))), History(), Adaptive(start=1)
    rows = []
    for number in range(12):
        (p,) = strategy.propose(space, history, 1, np.random.default_rng(number))
        history.add(Trial(number, p.filling, "complete", (1.0 + p.filling["[0]"],), cost_s=1.0, note=p.note))
        rows.append({"number": number, "strategy_note": p.note, "entry": None, "seconds": 1.0})
    found = decisions(rows)
    assert [d.number for d in found] == list(range(12))
    told = [d for d in found if d.probabilities]
    assert told and all(
        sum(d.probabilities.values()) == pytest.approx(1.0, abs=0.01) and d.arm in d.credits for d in told
    )
    figures = {f["id"]: f for f in credit_figures(found)}
    assert set(figures) == {"given", "credits", "probabilities"}
    assert sum(t["y"][-1] for t in figures["given"]["data"]) == 12
    for before, after in zip(range(11), range(1, 12), strict=True):  # one trial more at each step
        assert sum(t["y"][after] - t["y"][before] for t in figures["given"]["data"]) == 1
