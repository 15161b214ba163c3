import numpy as np
import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Maybe, Space
from featherweight.strategies.greedy import Greedy, centre, mutated
from featherweight.testing.strategies import Other, Step, mixed_space
from tests.counting import bytecodes, peak_bytes
from tests.strategies.problems import SPACE, compression, run


def differing(a, b):
    return {k for k in {*a, *b} if a.get(k) != b.get(k)}


def test_starts_in_the_middle():
    assert centre(SPACE) == {
        "cut.ratio": 0.4,
        "cut.criterion": "taylor",
        "tune.epochs": 3,
        "tune.lr": pytest.approx(10**-2.5),
        "shrink": True,
        "shrink.bits": 4,
        "shrink.scheme": "static",
    }
    assert run(Greedy(), compression, 1, 0)[0].filling == centre(SPACE)


def test_changes_late_holes_first_and_one_at_a_time():
    history = History([Trial(0, centre(SPACE), "complete", (1.0,), note={"climb": 0, "weights": None})])
    batch = Greedy(patience=99, starts=1).propose(SPACE, history, 6, generator(0))
    changed = [differing(p.filling, history[0].filling) for p in batch]
    assert changed[:3] == [{"shrink.scheme"}, {"shrink.bits"}, {"shrink.bits"}]
    assert changed[3] == {"shrink", "shrink.bits", "shrink.scheme"}
    assert changed[4] == {"tune.lr"}


def test_moves_to_the_better_and_goes_on_in_its_direction():
    space = Space(Recipe(Step(a=Float(0, 1)), Other(c=Float(0, 1))))
    history = History(
        [Trial(0, {"step.a": 0.5, "other.c": 0.5}, "complete", (1.0,), note={"climb": 0, "weights": None})]
    )
    first = Greedy(starts=1).propose(space, history, 2, generator(0))
    assert [p.filling["other.c"] for p in first] == pytest.approx([0.6, 0.4])
    for i, (p, value) in enumerate(zip(first, (1.5, 0.5), strict=True), start=1):
        history.add(Trial(i, p.filling, "complete", (value,), note=p.note))
    assert Greedy(starts=1).propose(space, history, 1, generator(1))[0].filling == {
        "step.a": 0.5,
        "other.c": pytest.approx(0.3),
    }


def test_a_step_back_is_no_news():
    space = Space(Recipe(Step(a=Float(0, 1))))
    history = History()
    for i in range(8):
        p = Greedy(restart=0.0, patience=99, starts=1).propose(space, history, 1, generator(i))[0]
        history.add(Trial(i, p.filling, "complete", (1.0 + abs(p.filling["step.a"] - 0.7),), note=p.note))
    values = sorted(t.filling["step.a"] for t in history)
    assert min(np.diff(values)) > 1e-3


def test_a_change_takes_living_values_from_the_best():
    space = Space(Recipe(Step(a=Float(0, 1)), Maybe(Other(c=Float(0, 1)))))
    trials = [
        ({"step.a": 0.2, "other": True, "other.c": 0.9}, 0.8, {}),
        ({"step.a": 0.3, "other": True, "other.c": 0.1}, 0.9, {}),
        ({"step.a": 0.5, "other": False}, 0.5, {"climb": 0, "weights": None}),
    ]
    history = History(Trial(i, f, "complete", (v,), note=n) for i, (f, v, n) in enumerate(trials))
    assert Greedy(starts=1).propose(space, history, 1, generator(0))[0].filling == {
        "step.a": 0.5,
        "other": True,
        "other.c": 0.9,
    }


def test_pending_and_failed_starts():
    history = History([Trial(0, centre(SPACE), "running", note={"climb": 0, "weights": None})])
    p = Greedy(starts=1).propose(SPACE, history, 1, generator(0))[0]
    assert p.note["climb"] == 0 and len(differing(p.filling, centre(SPACE))) == 1
    history[0].state = "failed"
    assert Greedy(starts=1).propose(SPACE, history, 1, generator(0))[0].note["climb"] == 1


def test_weights_of_later_climbs():
    history = run(Greedy(patience=2), compression, 40, 3)
    weights = {t.note["climb"]: t.note["weights"] for t in history}
    assert weights[0] is None and len(weights) > 3
    assert all(len(w) == 2 and sum(w) == pytest.approx(1.0, abs=1e-5) for k, w in weights.items() if k)


def test_feasible_counts_in_the_end():
    history = run(Greedy(), compression, 60, 0)
    assert any(t.violation == 0 for t in history)


def test_mutated_changes_and_stays_valid():
    space, rng = mixed_space(), generator(1)
    for i in range(20):
        filling = space.sample(generator(i))
        other = mutated(space, filling, rng)
        space.fill(other)
    assert mutated(Space(Recipe(Step())), {}, rng) == {}


def test_history_of_another_number_of_objectives_is_refused():
    history = History(
        [Trial(0, {"step.mode": 1}, "complete", (1.0,)), Trial(1, {"step.mode": 2}, "complete", (1.0, 2.0))]
    )
    with pytest.raises(InputError):
        Greedy().propose(Space(Recipe(Step(mode=Choice(1, 2, 3)))), history, 1, generator(0))


@pytest.mark.parametrize("settings", [{"restart": -0.1}, {"restart": 1.1}, {"patience": 0}, {"beam": 0}, {"starts": 0}])
def test_bad_settings(settings):
    with pytest.raises(InputError):
        Greedy(**settings)


def test_cost_does_not_grow_with_the_history():
    """Updating what is known costs what is new: with 3,000 trials a proposal takes no more steps
    and memory than with 300."""

    def cost(trials):
        rng, history = generator(0), History()
        for i in range(trials):
            f = SPACE.sample(rng)
            history.add(Trial(i, f, "complete", compression(f)[0], note={"climb": i // 30, "weights": None}))
        Greedy().propose(SPACE, history, 1, generator(1))
        out = []
        for count in (bytecodes, peak_bytes):
            f = SPACE.sample(rng)
            history.add(
                Trial(
                    len(history), f, "complete", compression(f)[0], note={"climb": (trials - 1) // 30, "weights": None}
                )
            )
            out.append(count(lambda: Greedy().propose(SPACE, history, 1, generator(2))))
        return out

    (few, few_bytes), (many, many_bytes) = cost(300), cost(3000)
    assert 0 < many < 1.5 * few and many_bytes < few_bytes + 5000


def test_the_first_climb_goes_on_from_the_best_of_its_starts():
    history = run(Greedy(starts=4), compression, 5, 0)
    assert [t.note.get("hole") is None for t in history] == [True] * 4 + [False] and {
        t.note["climb"] for t in history
    } == {0}
    assert history[0].filling == centre(SPACE)
    space = Space(Recipe(Step(a=Float(0, 1))))
    start = {"climb": 0, "weights": None}
    told = History(
        Trial(i, {"step.a": a}, "complete", (v,), note=start)
        for i, (a, v) in enumerate([(0.5, 3.0), (0.9, 2.0), (0.2, 1.0), (0.7, 4.0)])
    )
    assert Greedy().propose(space, told, 1, generator(0))[0].note["from"] == 2


def test_a_beam_changes_its_best_trials_in_turn():
    space = Space(Recipe(Step(a=Float(0, 1), mode=Choice("x", "y"))))
    start = {"climb": 0, "weights": None}
    trials = [(0.5, 3.0), (0.9, 2.0), (0.2, 1.0), (0.7, 4.0)]
    history = History(
        Trial(i, {"step.a": a, "step.mode": "x"}, "complete", (v,), note=start) for i, (a, v) in enumerate(trials)
    )
    origins = []
    for i in range(4, 10):
        p = Greedy(beam=3).propose(space, history, 1, generator(i))[0]
        origins.append(p.note["from"])
        history.add(Trial(i, p.filling, "complete", (9.0,), note=p.note))
    assert origins == [2, 1, 0, 2, 1, 0]
    assert [p.note["from"] for p in Greedy(beam=1).propose(space, history, 1, generator(0))] == [2]


def test_refused_fillings_are_passed_over():
    space = Space(
        Recipe(Step(a=Float(0, 1), mode=Choice("x", "y"))),
        refuses=lambda tree: "no" if tree.steps[0].mode == "x" else None,
    )
    history = run(Greedy(), lambda f: ((1.0 + f["step.a"],), 0.0), 25, 0, space)
    assert {t.filling["step.mode"] for t in history} == {"y"}
