import math
from collections import Counter

import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Space
from featherweight.space.vary import centre
from featherweight.strategies.genetic import LEAST, Genetic
from featherweight.strategies.random import Random
from featherweight.testing import check_strategy
from featherweight.testing.strategies import Step, restarted
from tests.strategies.problems import SPACE, compression, run, separable

LINE = Space(Recipe(Step(a=Float(0, 1))))


def told(*outcomes, state="complete"):
    """A history of trials with these (values, violation)."""
    return History(Trial(i, {"step.a": i / 1000}, state, v, b) for i, (v, b) in enumerate(outcomes))


def numbers(trials):
    return [t.number for t in trials]


@pytest.mark.parametrize("mode", ["aging", "nsga2"])
def test_each_mode_conforms(mode):
    check_strategy(Genetic(population=4, startup=3, mode=mode))


def test_aging_keeps_the_last_and_the_best():
    history = told(*(((float(v),), 0.0) for v in (5, 1, 3, 9, 8, 2, 7)))
    # the last three are 4, 5, 6; 1 is the best of all
    assert numbers(Genetic(population=3).members(history)) == [1, 5, 6, 4]
    assert numbers(Genetic(population=3, mode="nsga2").members(history)) == [1, 5, 2]


def test_of_many_equal_best_few_stay_when_aging():
    history = told(*((((1.0,), 0.0),) * 50))
    assert sorted(numbers(Genetic(population=10).members(history))) == list(range(40, 50))


def test_survival_is_by_front_then_crowding():
    points = [(1.0, 5.0), (2.0, 4.0), (2.1, 3.9), (5.0, 1.0), (6.0, 6.0), (3.0, 3.0)]
    history = told(*((p, 0.0) for p in points))
    # 1 and 2 crowd each other, 1 has more room: 0.55 against 0.5
    assert set(numbers(Genetic(population=4).members(history))) == {0, 3, 5, 1}
    assert numbers(Genetic(population=6).members(history))[-1] == 4


def test_feasible_come_before_infeasible_by_violation():
    history = told(((9.0, 9.0), 0.0), ((1.0, 1.0), 0.5), ((2.0, 2.0), 0.1), ((8.0, 9.5), 0.0))
    assert numbers(Genetic(population=4).members(history)) == [3, 0, 2, 1]


def test_what_failed_stopped_runs_or_is_no_number_does_not_breed():
    history = told(((1.0,), 0.0), ((math.nan,), 0.0), ((2.0,), math.inf), ((3.0,), 0.0))
    history.add(Trial(4, {"step.a": 0.9}, "failed"))
    history.add(Trial(5, {"step.a": 0.8}, "stopped", (0.1,)))
    history.add(Trial(6, {"step.a": 0.7}))
    for mode in ("aging", "nsga2"):
        assert numbers(Genetic(mode=mode).members(history)) == [0, 3]
    assert Genetic().members(told(((1.0,), 0.0), state="running")) == []


def test_population_is_the_same_whatever_order_trials_finish_in():
    rng = generator(0)
    final = [(tuple(rng.integers(1, 9, 2).astype(float)), float(rng.integers(3) == 0)) for _ in range(60)]
    strategy, histories = Genetic(population=8), []
    for seed in range(3):
        history = told(*final, state="running")
        for i in generator(seed).permutation(60):
            history[int(i)].state = "complete"
            strategy.members(history)  # what is kept of a history is brought up to date
        histories.append(numbers(strategy.members(history)))
    assert histories[0] == histories[1] == histories[2] == numbers(strategy.members(restarted(told(*final))))


def test_starts_in_the_middle_then_at_random():
    assert run(Genetic(), separable, 1, 0)[0].filling == centre(SPACE)
    notes = [t.note for t in run(Genetic(startup=5), separable, 9, 0)]
    assert all(n == {} for n in notes[:5]) and all({"rate", "parents"} == set(n) for n in notes[5:])


def test_children_come_from_the_best():
    history = run(Genetic(startup=10), separable, 60, 0)
    for t in history:
        for parent in t.note.get("parents", ()):
            assert parent < t.number and history[parent].state == "complete"
    parents = Counter(p for t in history for p in t.note.get("parents", ()))
    ordered = sorted(history, key=lambda t: t.values)
    assert sum(parents[t.number] for t in ordered[:20]) > 3 * sum(parents[t.number] for t in ordered[40:])


def test_rates_follow_their_parents():
    history = run(Genetic(), separable, 60, 1)
    bred = [t for t in history if "rate" in t.note]
    assert len({t.note["rate"] for t in bred}) > 30 and all(t.note["rate"] >= LEAST for t in bred)
    steps = [math.log(t.note["rate"] / history[t.note["parents"][0]].note.get("rate", 0.3)) for t in bred]
    # three standard deviations of 0.3
    assert sum(abs(s) < 0.9 + 1e-9 for s in steps) >= 0.97 * len(steps)


def test_foreign_trials_are_members():
    history = run(Random(), compression, 20, 0)
    for t in history:
        t.note = {"rate": "fast", "climb": 3}
    assert Genetic().propose(SPACE, history, 1, generator(0))[0].note["parents"]


def test_refused_fillings_are_not_bred():
    space = Space(
        Recipe(Step(a=Float(0, 1), mode=Choice("x", "y"))),
        refuses=lambda tree: "no" if tree.steps[0].mode == "y" else None,
    )
    history = History()
    for i in range(30):
        p = Genetic(startup=5).propose(space, history, 1, generator(i))[0]
        history.add(Trial(i, p.filling, "complete", (1.0 + p.filling["step.a"],), note=p.note))
    assert {t.filling["step.mode"] for t in history} == {"x"}


def test_history_of_another_number_of_objectives_is_refused():
    with pytest.raises(InputError):
        Genetic().propose(LINE, told(((1.0,), 0.0), ((1.0, 2.0), 0.0)), 1, generator(0))


@pytest.mark.parametrize(
    "settings", [{"population": 1}, {"sample": 0}, {"startup": 0}, {"crossover": 1.1}, {"mode": "best"}]
)
def test_bad_settings(settings):
    with pytest.raises(InputError):
        Genetic(**settings)


def test_a_small_violation_is_tolerated_for_every_second_trial():
    history = told(((9.0, 9.0), 0.0), ((1.0, 1.0), 0.1), ((0.5, 0.5), 0.3))
    assert numbers(Genetic(population=3).members(history)) == [0, 1, 2]
    assert numbers(Genetic(population=3).members(history, 0.2)) == [1, 0, 2]
