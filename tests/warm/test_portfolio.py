"""Guesses and earlier studies: what is taken from them, and what they buy."""

import json
import math

import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Space
from featherweight.strategies.random import Random
from featherweight.testing.strategies import Other, Step, mixed_space
from featherweight.warm.earlier import Earlier, imported
from featherweight.warm.guess import Guess
from featherweight.warm.portfolio import credits, portfolio, prior, starting, warmed


def space():
    return Space(Recipe(Step(a=Float(0, 1), b=Int(1, 9), mode=Choice("x", "y", "z")), Maybe(Other(c=Float(0, 1)))))


def study(values, name="s", same=False, notes=None, make=lambda i: {"step.mode": i}):
    notes = notes or [{}] * len(values)
    return Earlier(
        name, History(Trial(i, make(i), "complete", (v,), note=notes[i]) for i, v in enumerate(values)), same
    )


def modes(n):
    return Space(Recipe(Step(mode=Choice(*range(n)))))


def test_a_guess_is_completed_by_the_middles():
    found = starting(
        space(), [Guess({"step.b": 2}), Guess({"step.mode": "z", "other": False}, 3.0)], [], 5, generator(0)
    )
    assert found == [
        {"step.a": 0.5, "step.b": 5, "step.mode": "z", "other": False},
        {"step.a": 0.5, "step.b": 2, "step.mode": "x", "other": True, "other.c": 0.5},
    ]
    assert starting(space(), [Guess({})], [], 0, generator(0)) == []


def test_a_guess_brings_the_choices_that_its_holes_need():
    conditional = Space(Recipe(Step(), Choice(Recipe(Other(c=Float(0, 1))), Recipe(Step(b=Int(1, 3))), name="which")))
    deep = next(h for h in conditional if h.path.endswith("step.b"))
    filling = starting(conditional, [Guess({deep.path: 3})], [], 1, generator(0))[0]
    assert filling[deep.path] == 3 and all(filling[p] == v for p, v in deep.when)
    with pytest.raises(InputError, match="lives only where"):
        Guess({deep.path: 3, deep.when[0][0]: conditional[deep.when[0][0]].domain.options(None)[0]}).checked(
            conditional
        )


def test_refused_centres_give_way_but_not_the_guess():
    refusing = Space(
        Recipe(Step(a=Float(0, 1), mode=Choice("x", "y"))),
        refuses=lambda r: "too little" if r.steps[0].a < 0.7 else None,
    )
    found = starting(refusing, [Guess({"step.mode": "y"})], [], 1, generator(0))
    assert found[0]["step.mode"] == "y" and found[0]["step.a"] >= 0.7


@pytest.mark.parametrize(
    ("guess", "says"),
    [
        (Guess({"step.mod": "x"}), "step.mode"),
        (Guess({"nonsense": 1}), "lacks"),
        (Guess({"step.b": 10}), r"\[1, 9\]"),
        (Guess({"step.mode": "w"}), "'x', 'y', 'z'"),
        (Guess({}, -1.0), "weight"),
        (Guess({}, math.nan), "weight"),
        (Guess({"other": False, "other.c": 0.5}), "lives only where"),
    ],
)
def test_a_wrong_guess_is_named(guess, says):
    with pytest.raises(InputError, match=says):
        guess.checked(space())


def test_ranks_are_within_the_study_feasible_first_each_filling_once():
    done = [
        Trial(0, {"step.mode": 0}, "complete", (3.0,)),
        Trial(1, {"step.mode": 1}, "complete", (1.0,), violation=0.5),
        Trial(2, {"step.mode": 2}, "complete", (2.0,)),
    ]
    odd = [
        Trial(3, {"step.mode": 2}, "complete", (9.0,)),  # again, and worse
        Trial(4, {"step.mode": 3}, "failed"),
        Trial(5, {"step.mode": 4}, "complete", (math.nan,)),
        Trial(6, {"step.mode": 99}, "complete", (0.1,)),  # not in this space
        Trial(7, {"step.mode": 5}),
    ]
    ranked = Earlier("s", History([*done, *odd])).ranked(modes(6))
    assert [(r, t.number) for r, t in ranked] == [(0.0, 2), (0.5, 0), (1.0, 1)]
    with pytest.raises(InputError, match="no finished trial"):
        Earlier("s", History(odd[1:2] and [Trial(0, {"step.mode": 3}, "failed")])).ranked(modes(6))


def test_imported_trials():
    first = study([2.0, 1.0], "first", True)
    second = study([5.0, 6.0, 7.0], "second", True)
    found = imported(modes(3), [first, second])
    assert [(t.number, t.filling["step.mode"], t.values, t.note) for t in found] == [
        (0, 0, (2.0,), {"origin": "first"}),
        (1, 1, (1.0,), {"origin": "first"}),
        (2, 2, (7.0,), {"origin": "second"}),
    ]
    assert len(History(found)) == 3 and imported(modes(3), []) == []
    with pytest.raises(InputError, match="different objectives"):
        imported(modes(3), [first, Earlier("two", History([Trial(0, {"step.mode": 2}, "complete", (1.0, 1.0))]), True)])


def test_the_best_of_the_same_task_come_after_the_guesses():
    found = starting(modes(9), [Guess({"step.mode": 6})], [study([4.0, 1.0, 3.0, 2.0], same=True)], 4, generator(0))
    assert [f["step.mode"] for f in found] == [6, 1, 3, 2]


def test_the_portfolio_is_the_greedy_cover():
    """Three tasks; 0 is good on two, 1 on the third, 2 is second everywhere.
    Greedy by the formula, written out."""
    values = [[0.0, 9.0, 1.0, 5.0], [0.0, 9.0, 1.0, 6.0], [9.0, 0.0, 1.0, 5.0]]
    ranks = [[sorted(v).index(x) / 3 for x in v] for v in values]
    picked = []
    for _ in range(4):
        picked.append(
            min(
                (c for c in range(4) if c not in picked),
                key=lambda c: (
                    round(sum(min(r[i] for i in [*picked, c]) for r in ranks) / 3, 9),
                    sum(r[c] for r in ranks),
                ),
            )
        )
    found = portfolio(modes(4), [study(v) for v in values], 4)
    assert [f["step.mode"] for f in found] == picked
    assert picked[:2] in ([0, 1], [2, 0]) and len(portfolio(modes(4), [study(values[0])], 2)) == 2


def test_the_portfolio_predicts_what_a_study_lacks():
    """One study saw even, one odd modes; both get better with a rising mode,
    so the best of each is good for the other."""
    even = Earlier("even", History(Trial(i, {"step.mode": 2 * i}, "complete", (100.0 - i,)) for i in range(20)))
    odd = Earlier("odd", History(Trial(i, {"step.mode": 2 * i + 1}, "complete", (1.0 / (i + 1),)) for i in range(20)))
    assert portfolio(modes(40), [even, odd], 1)[0]["step.mode"] in (38, 39)


def test_prior_weights_are_the_recombination_weights():
    found = prior(modes(4), [study([1.0, 4.0, 2.0, 3.0])])
    raw = [math.log(2.5) - math.log(i) for i in (1, 2)]  # eq. 49, m = 4
    assert found == {"step.mode": [[0, pytest.approx(raw[0] / sum(raw))], [2, pytest.approx(raw[1] / sum(raw))]]}
    assert prior(modes(4), [study([7.0])]) == {"step.mode": [[0, 1.0]]} and prior(modes(4), []) == {}
    two = prior(modes(4), [study([1.0, 4.0, 2.0, 3.0]), study([100.0, 400.0, 200.0, 300.0])])
    assert json.dumps(two) == json.dumps(found) or two["step.mode"] == [
        [m, pytest.approx(w)] for m, w in found["step.mode"]
    ]  # scale does not count


def test_credits_are_earned_per_second():
    notes = [{"arm": "a"}, {"arm": "b"}, {"arm": "a"}, {}]
    found = credits(modes(4), [study([1.0, 2.0, 3.0, 4.0], notes=notes)])
    w = [math.log(2.5) - math.log(i) for i in (1, 2)]
    a, b = w[0] / sum(w) / 0.5, w[1] / sum(w) / 0.25
    assert found == {"a": pytest.approx(a / (a + b)), "b": pytest.approx(b / (a + b))}
    slow = study([1.0, 2.0, 3.0, 4.0], notes=notes)
    for t in slow.history:
        t.cost_s = 100.0 if t.note.get("arm") == "a" else 1.0
    assert credits(modes(4), [slow])["a"] < found["a"] and credits(modes(4), [study([1.0])]) == {}


def test_warmed_tells_all_and_leaves_the_rest_alone():
    assert warmed(Random(), modes(9), [], [], generator(0)) == Random()
    both = [study([4.0, 1.0], same=True), study([3.0, 4.0, 1.0])]
    made = warmed(Random(), modes(9), [Guess({"step.mode": 6}, 2.0)], both, generator(0), prior_weight=3.0)
    assert [json.loads(s)["step.mode"] for s in made.starts][:3] == [6, 1, 0] and made.guesses == (
        ('{"step.mode":6}', 2.0),
    )
    assert [json.loads(e)["note"] for e in made.earlier] == [{"origin": "s"}] * 2 and json.loads(made.prior)[
        "step.mode"
    ][0][0] == 2
    assert made == warmed(Random(), modes(9), [Guess({"step.mode": 6}, 2.0)], both, generator(0), prior_weight=3.0)
    plain = warmed(Random(), modes(9), [], both, generator(0))
    assert (plain.prior, plain.prior_weight) == ("{}", 0.0) and made.prior_weight == 3.0 and len({made, plain}) == 2


def regret(strategy, where, target, trials, seed):
    history = History()
    while len(history) < trials:
        p = strategy.propose(where, history, 1, generator(seed, len(history)))[0]
        off = sum(p.filling[k] != v for k, v in target.items())
        history.add(Trial(len(history), p.filling, "complete", (1.0 + off,), note=p.note))
    return min(t.values[0] for t in history) - 1.0


def test_a_right_guess_helps_and_a_wrong_one_costs_little():
    where = Space(Recipe(*(Step(b=Choice(1, 2, 3, 4), mode=Choice("p", "q", "r", "s")) for _ in range(3))))
    target = where.sample(generator(77))
    wrong = {p: next(v for v in where[p].domain.options(None) if v != target[p]) for p in target}
    right = dict(list(target.items())[:5])

    def mean(guesses):
        return (
            sum(regret(warmed(Random(), where, guesses, [], generator(s)), where, target, 30, s) for s in range(20))
            / 20
        )

    cold, warm, misled, stubborn = mean([]), mean([Guess(right, 5.0)]), mean([Guess(wrong)]), mean([Guess(wrong, 1e9)])
    assert warm < cold - 1 and misled < cold + 0.5 and misled < stubborn - 0.5, (cold, warm, misled, stubborn)


def test_every_domain_survives():
    """Conditional and mixed, told as text and read again."""
    where, rng = mixed_space(), generator(3)
    history = History(Trial(i, where.sample(rng), "complete", (1.0 + i, 2.0)) for i in range(8))
    for same in (True, False):
        made = warmed(
            Random(), where, [Guess({}, 4.0)], [Earlier("before", history, same)], generator(0), prior_weight=9.0
        )
        proposals = made.propose(where, History(), 12, generator(1))
        assert len(proposals) == 12
        for p in proposals:
            assert where.walk(lambda path, domain, given=p.filling: given[path]) == p.filling, "no filling of the space"
