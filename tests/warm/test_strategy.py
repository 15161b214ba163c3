"""The warm start as a strategy: conformance, order, the pull's decay,
and what the inner strategy sees."""

import dataclasses
import json
import math

import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Space
from featherweight.space.space import key
from featherweight.strategies.base import Proposal, Strategy
from featherweight.strategies.greedy import Greedy
from featherweight.strategies.random import Random
from featherweight.testing.strategies import (
    Step,
    check_batches,
    check_exhaustion,
    check_no_holes,
    check_replay,
    check_strategy,
    finite_space,
    mixed_space,
)
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from featherweight.warm.strategy import Warm


def told(space, inner, objectives=2, earlier=6):
    """A warm start with everything in it."""
    rng = generator(4)
    fillings = [space.sample(rng) for _ in range(12)]
    return Warm(
        inner,
        starts=tuple(key(f) for f in fillings[:3]),
        guesses=((key(fillings[3]), 2.0), ("{}", 1.0)),
        prior=json.dumps({p: [[v, 1.0], [v, 0.5]] for p, v in fillings[4].items()}),
        prior_weight=3.0,
        earlier=tuple(
            json.dumps({"filling": f, "values": [0.5 + i / 10] * objectives, "note": {"origin": "before"}})
            for i, f in enumerate({key(f): f for f in fillings[5 : 5 + earlier]}.values())
        ),
    )


@pytest.mark.parametrize("inner", [Random(), Greedy()])
def test_conformance(inner):
    check_strategy(Warm(inner))
    check_no_holes(Warm(inner, starts=("{}",), guesses=(("{}", 3.0),)))
    for workers, objectives in ((1, 1), (3, 2)):
        check_replay(told(mixed_space(), inner, objectives), mixed_space(), workers, objectives, trials=30)
    check_replay(told(finite_space(), inner), finite_space(), 2, 2, trials=20)
    check_batches(told(mixed_space(), inner))
    check_exhaustion(told(finite_space(), inner))


def run(strategy, space, value, trials, seed=0, batch=1):
    history = History()
    while len(history) < trials:
        for p in strategy.propose(space, history, batch, generator(seed, len(history))):
            history.add(Trial(len(history), p.filling, "complete", (value(p.filling),), note=p.note))
    return history


@dataclasses.dataclass(frozen=True)
class Spy(Strategy):
    """Random, which notes the numbers and notes of the history that it sees."""

    def propose(self, space, history, n, rng):
        seen = [[t.number, t.state, t.note.get("spy"), sorted(set(t.note) - {"spy"})] for t in history]
        return [Proposal(p.filling, {"spy": seen}) for p in Random().propose(space, history, n, rng)]


def numbers():
    return Space(Recipe(Step(a=Float(0.01, 1.0), mode=Choice(*range(50)))))


def test_starts_come_first_in_their_order_and_only_once():
    space = numbers()
    starts = [{"step.a": 0.5, "step.mode": m} for m in (3, 1, 2)]
    warm = Warm(Random(), starts=tuple(map(key, [*starts, starts[0]])))
    assert [t.filling for t in run(warm, space, lambda f: 1.0, 3)] == starts
    assert [t.filling for t in run(warm, space, lambda f: 1.0, 5, batch=5)][:3] == starts
    history = run(warm, space, lambda f: 1.0, 30)
    assert [t.note.get("warm") for t in history] == ["start"] * 3 + [None] * 27


def test_without_anything_told_it_is_the_inner_strategy():
    space = numbers()
    for inner in (Random(), Greedy()):
        plain, warm = (run(s, space, lambda f: f["step.a"], 20) for s in (inner, Warm(inner)))
        # the inner strategy asked through the wrapper draws from the same generator
        assert [(t.filling, t.note) for t in plain] == [(t.filling, t.note) for t in warm]


def test_inner_sees_its_own_notes_alone_and_earlier_trials_first():
    space = numbers()
    before = {"filling": {"step.a": 0.25, "step.mode": 7}, "values": [0.5], "note": {"origin": "before"}}
    warm = Warm(Spy(), starts=(key({"step.a": 0.5, "step.mode": 1}),), earlier=(json.dumps(before),))
    history = run(warm, space, lambda f: 1.0, 4)
    assert history[0].note == {"warm": "start"}
    seen = history[3].note["spy"]
    assert [s[0] for s in seen] == [0, 1, 2, 3] and [s[1] for s in seen] == ["complete"] * 4
    assert seen[0][3] == ["origin"] and seen[1][2:] == [None, []]  # the earlier study's, the start
    assert seen[2][2] == history[1].note["spy"] and seen[3][2] == history[2].note["spy"]


def test_inner_sees_running_trials_finish():
    space, history, warm = numbers(), History(), Warm(Spy())
    for _ in range(2):
        p = warm.propose(space, history, 1, generator(len(history)))[0]
        history.add(Trial(len(history), p.filling, note=p.note))
    history[1].state, history[1].values = "complete", (1.0,)
    assert [s[1] for s in warm.propose(space, history, 1, generator(9))[0].note["spy"]] == ["running", "complete"]
    # a stopper may pause a trial and let it go on
    for state in ("stopped", "stopped", "running", "failed"):
        history[0].state = state
        assert [s[1] for s in warm.propose(space, history, 1, generator(9))[0].note["spy"]] == [state, "complete"]


def test_the_pull_decays_as_weight_over_weight_plus_trials():
    space, weight, trials, runs = numbers(), 4.0, 30, 40
    guess = {"step.mode": 3}
    pulled = [0] * trials
    for seed in range(runs):
        for t in run(Warm(Random(), guesses=((key(guess), weight),)), space, lambda f: 1.0, trials, seed):
            pulled[t.number] += t.note == {"warm": "guess"}
    assert pulled[0] == runs  # W / (W + 0) = 1
    expected = [weight / (weight + t) for t in range(trials)]
    total, sd = sum(expected) * runs, math.sqrt(runs * sum(p * (1 - p) for p in expected))
    assert abs(sum(pulled) - total) < 4 * sd
    early, late = sum(pulled[:10]), sum(pulled[20:])
    assert early > 2 * late > 0


def test_a_pull_keeps_what_is_guessed_and_takes_the_rest_from_the_best():
    space = numbers()
    history = History(
        [
            Trial(0, {"step.a": 0.9, "step.mode": 1}, "complete", (2.0,)),
            Trial(1, {"step.a": 0.125, "step.mode": 9}, "complete", (1.0,)),
        ]
    )
    warm = Warm(Random(), guesses=((key({"step.mode": 3}), 1e9),))
    assert warm.propose(space, history, 1, generator(0))[0].filling == {"step.a": 0.125, "step.mode": 3}
    history[1].values = (math.nan,)  # re-read histories only: a finished trial stays as it is
    assert warm.propose(space, History(list(history)), 1, generator(0))[0].filling == {"step.a": 0.9, "step.mode": 3}


def test_the_prior_draws_its_values_by_weight_and_sometimes_others():
    space = numbers()
    warm = Warm(Random(), prior=json.dumps({"step.mode": [[3, 3.0], [8, 1.0]]}), prior_weight=1e9)
    drawn = [p.filling["step.mode"] for p in warm.propose(space, History(), 800, generator(0))]
    share = {m: drawn.count(m) / 800 for m in set(drawn)}
    assert share[3] == pytest.approx(0.9 * 0.75 + 0.1 / 50, abs=0.06) and share[8] == pytest.approx(
        0.9 * 0.25 + 0.1 / 50, abs=0.06
    )
    assert len(share) > 20  # any value can still come


def test_earlier_fillings_come_last_and_the_space_is_exhausted():
    space = Space(Recipe(Step(mode=Choice(*range(5)))))
    earlier = tuple(json.dumps({"filling": {"step.mode": m}, "values": [1.0]}) for m in (0, 1))
    history = History()
    while proposals := Warm(Random(), earlier=earlier).propose(space, history, 1, generator(len(history))):
        history.add(Trial(len(history), proposals[0].filling, "complete", (1.0,), note=proposals[0].note))
    order = [t.filling["step.mode"] for t in history]
    assert sorted(order[:3]) == [2, 3, 4] and order[3:] == [0, 1] and history[4].note == {"warm": "earlier"}


def test_refused_fillings_are_not_proposed():
    space = Space(Recipe(Step(mode=Choice(*range(6)))), refuses=lambda r: "odd" if r.steps[0].mode % 2 else None)
    warm = Warm(
        Random(), starts=(key({"step.mode": 1}), key({"step.mode": 2})), guesses=((key({"step.mode": 3}), 1e9),)
    )
    assert [p.filling["step.mode"] % 2 for p in warm.propose(space, History(), 3, generator(0))] == [0, 0, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"starts": ("no json",)},
        {"starts": ("[1]",)},
        {"guesses": (("{}", -1.0),)},
        {"guesses": (("{}", math.nan),)},
        {"prior_weight": math.inf},
        {"prior": "3"},
    ],
)
def test_refuses(wrong):
    with pytest.raises(InputError):
        Warm(Random(), **wrong)


@pytest.mark.parametrize(
    "start", [{"step.a": 0.5}, {"step.a": 0.5, "step.mode": 77}, {"step.a": 0.5, "step.mode": 1, "x": 1}]
)
def test_refuses_a_start_that_is_no_filling(start):
    with pytest.raises(InputError):
        Warm(Random(), starts=(key(start),)).propose(numbers(), History(), 1, generator(0))


def test_what_breaks_the_limits_is_halved_towards_what_met_them():
    """A start that breaks the limits, and a baseline that met them: the next lies halfway, while
    nothing of this study meets them."""
    space = Space(Recipe(Prune(ratio=Float(0.0, 0.8, step=0.1), criterion=Choice("taylor", "random"))))
    rest = {"prune.ratio": 0.0, "prune.criterion": "taylor"}
    seen = {"filling": rest, "values": [1.0], "violation": 0.0, "note": {"baseline": "baseline"}}
    start = {"prune.ratio": 0.8, "prune.criterion": "random"}
    warm = Warm(Random(), starts=(key(start),), earlier=(json.dumps(seen),))
    history, ratios = History(), []
    for number, violation in enumerate((3.0, 2.0, 1.0, 0.0, 0.0)):
        proposal = warm.propose(space, history, 1, generator(number))[0]
        ratios.append((proposal.filling["prune.ratio"], proposal.note.get("warm")))
        history.add(Trial(number, proposal.filling, "complete", (0.5,), violation, note=proposal.note))
    assert ratios[:4] == [(0.8, "start"), (0.4, "halfway"), (0.2, "halfway"), (0.1, "halfway")]
    assert ratios[4][1] is None  # it met them


def test_it_is_halved_four_times_at_most():
    space = Space(Recipe(Prune(ratio=Float(0.0, 0.8))))
    seen = {"filling": {"prune.ratio": 0.0}, "values": [1.0], "violation": 0.0, "note": {"baseline": "baseline"}}
    warm = Warm(Random(), starts=('{"prune.ratio":0.8}',), earlier=(json.dumps(seen),))
    history = History()
    for number in range(8):
        proposal = warm.propose(space, history, 1, generator(number))[0]
        history.add(Trial(number, proposal.filling, "complete", (0.5,), 9.0 - number, note=proposal.note))
    assert [t.note.get("warm") for t in history] == ["start", *["halfway"] * 4, None, None, None]


def test_what_has_no_middle_stays_by_turns_as_in_the_one_and_in_the_other():
    """4 bits may have cost nothing of what broke the limits, or all of it."""
    space = Space(Recipe(Prune(ratio=Float(0.0, 0.8)), Quantize(scheme="weight-only", embeddings=Choice(4, 8))))
    seen = {"filling": {"prune.ratio": 0.0, "quantize.embeddings": 8}, "values": [1.0], "violation": 0.0}
    warm = Warm(Random(), starts=('{"prune.ratio":0.8,"quantize.embeddings":4}',), earlier=(json.dumps(seen),))
    history = History()
    for number in range(4):
        proposal = warm.propose(space, history, 1, generator(number))[0]
        history.add(Trial(number, proposal.filling, "complete", (0.5,), 9.0 - number, note=proposal.note))
    assert [tuple(t.filling.values()) for t in history] == [(0.8, 4), (0.4, 4), (0.2, 8), (0.1, 8)]


def test_a_baseline_is_not_what_guesses_are_laid_over():
    space = Space(Recipe(Prune(ratio=Float(0.0, 0.8, step=0.1), criterion=Choice("taylor", "random"))))
    seen = {"filling": {"prune.ratio": 0.0, "prune.criterion": "taylor"}, "values": [0.1], "violation": 0.0}
    for note, ratio in (({"baseline": "baseline"}, 0.7), ({}, 0.0)):
        warm = Warm(
            Random(),
            guesses=(('{"prune.criterion":"random"}', 1e9),),
            earlier=(json.dumps({**seen, "note": note}),),
        )
        history = History()
        history.add(Trial(0, {"prune.ratio": 0.7, "prune.criterion": "taylor"}, "complete", (0.5,)))
        proposal = warm.propose(space, history, 1, generator(0))[0]
        assert proposal.note == {"warm": "guess"}
        assert proposal.filling == {"prune.ratio": ratio, "prune.criterion": "random"}
