"""The portfolio: what trials are worth, who gets the next one,
and that all of it can be read again."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from featherweight.errors import InputError
from featherweight.pareto import dominates
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Space
from featherweight.space.space import key
from featherweight.strategies.adaptive import DROP, ENOUGH, RETRY, Adaptive
from featherweight.strategies.adaptive.arms import DISCOUNT, PRIOR, Account, Ledger, as_good, ledger
from featherweight.strategies.adaptive.chooser import screen
from featherweight.strategies.base import Fresh, Strategy
from featherweight.strategies.genetic import Genetic
from featherweight.strategies.random import Random
from featherweight.study.ends import expectation
from featherweight.testing import check_strategy
from featherweight.testing.strategies import mishaps, restarted
from tests.strategies.problems import SPACE, Cut, Tune, compression, quality, run, separable

LINE = Space(Recipe(Cut(Float(0, 1))))
FAST = ("greedy", "genetic", "random")


@dataclasses.dataclass(frozen=True)
class Good(Strategy):
    """Moves towards 0 with every trial of its own."""

    def propose(self, space, history, n, rng):
        mine = sum("step" in t.note for t in history)
        fresh = Fresh(space, history)
        return [
            fresh.take({"cut.ratio": 0.5 / (mine + i + 1) ** 2 + 1e-4 * float(rng.random())}, {"step": mine + i})
            for i in range(n)
        ]


@dataclasses.dataclass(frozen=True)
class Bad(Strategy):
    """Never below 0.9."""

    def propose(self, space, history, n, rng):
        fresh = Fresh(space, history)
        return [fresh.take({"cut.ratio": 0.9 + 0.1 * float(rng.random())}) for _ in range(n)]


@dataclasses.dataclass(frozen=True)
class Spy(Strategy):
    """Asserts that it sees its own notes alone, and the values of all."""

    def propose(self, space, history, n, rng):
        for t in history:
            assert t.note in ({}, {"spy": t.number})
            assert t.state == "running" or t.values is not None
        fresh = Fresh(space, history)
        return [fresh.take(fresh.sample(rng), {"spy": len(history) + i}) for i in range(n)]


@dataclasses.dataclass(frozen=True)
class Once(Strategy):
    """Has two proposals and no more."""

    def propose(self, space, history, n, rng):
        fresh = Fresh(space, history)
        two = [{"cut.ratio": 0.25}, {"cut.ratio": 0.75}]
        return [fresh.take(f) for f in two if f in fresh][:n]


def line(filling):
    return (0.1 + filling["cut.ratio"],), 0.0


def shares(history):
    arms = [t.note["arm"] for t in history]
    return {a: arms.count(a) / len(arms) for a in arms}


def told(*outcomes, note=None):
    """A history of trials with these (values, violation)."""
    out = History()
    for i, (values, violation) in enumerate(outcomes):
        state = "failed" if values is None else "complete"
        out.add(Trial(i, {"cut.ratio": i / 1000}, state, values, violation, note=note(i) if note else {}))
    return out


@pytest.mark.parametrize("strategy", [Adaptive(FAST, screen=1), Adaptive((Random(),)), Adaptive(("cmaes", "random"))])
def test_conformance_of_other_portfolios(strategy):
    check_strategy(strategy)


def brute_reward(trials, i):
    def usable(t):
        return t.state == "complete" and t.values is not None and not any(map(math.isnan, (*t.values, t.violation)))

    def stands(a, b):
        if a.violation > 0 or b.violation > 0:
            return a.violation <= b.violation if b.violation > 0 else False
        return a.values == b.values or dominates(a.values, b.values)

    if not usable(trials[i]):
        return 0.0
    return 1.0 / (1.0 + sum(usable(t) and stands(t, trials[i]) for t in trials[:i]))


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_rewards_as_counted_one_by_one_in_any_order_of_finishing(objectives):
    rng = generator(0, objectives)
    trials = [Trial(i, {"cut.ratio": i / 1000}, note={"arm": "ab"[i % 2]}) for i in range(80)]
    history = History(trials)
    book = Ledger(["a", "b"])
    book.update(history)
    ends = []
    for i in rng.permutation(80):
        mishaps(trials[i], rng, objectives)
        if trials[i].values is not None:
            trials[i].values = tuple(v if math.isnan(v) else round(v, 1) for v in trials[i].values)  # some are equal
        book.update(history)
        ends.append(i)
    again = Ledger(["a", "b"])
    again.update(restarted(history))
    reward = [brute_reward(trials, i) for i in range(80)]
    assert 0 < reward.count(0.0) < 80 and len(set(reward)) > 5
    for one in (book, again):
        got = np.where(np.isnan(one.rows[:80, 0]), 0.0, 1.0 / (1.0 + one.dominators[:80]))
        np.testing.assert_allclose(got, reward)
    assert book.accounts() == again.accounts()


def test_as_good_is_dominance_or_equality():
    rng = generator(1)
    points = rng.integers(0, 3, (60, 3)).astype(float)
    rows = np.hstack([np.zeros((60, 1)), points])
    for r in rows[:20]:
        want = [dominates(list(p), list(r[1:])) or bool((p == r[1:]).all()) for p in points]
        assert as_good(rows, r).tolist() == want
    infeasible, worse, unknown = np.array([0.5, 0.0]), np.array([0.7, 0.0]), np.array([np.nan, np.nan])
    assert (
        as_good(infeasible, worse)
        and as_good(np.array([0.0, 9.0]), infeasible)
        and not as_good(infeasible, np.array([0.0, 9.0]))
    )
    assert not as_good(unknown, infeasible) and not as_good(infeasible, unknown)


def test_credit_by_the_formula():
    """Values 1, 2, 0.5, 3, 2.5 have d = 0, 1, 0, 3, 3; arms a, b, a, b,
    and one that is none of theirs."""
    history = told(*(((v,), 0.0) for v in (1.0, 2.0, 0.5, 3.0, 2.5)), note=lambda i: {"arm": "ababx"[i]})
    got = ledger(history, ["a", "b", "c"]).accounts()
    w = DISCOUNT ** np.arange(4, -1, -1.0)
    r = 1 / np.array([1.0, 2.0, 1.0, 4.0])
    r /= r.mean()
    usual = {"a": (PRIOR + r[0] + r[2]) / (PRIOR + 2), "b": (PRIOR + r[1] + r[3]) / (PRIOR + 2)}
    assert got["a"] == Account(
        2, 2, pytest.approx((PRIOR * usual["a"] + w[0] * r[0] + w[2] * r[2]) / (PRIOR + w[0] + w[2]))
    )
    assert got["b"] == Account(
        2, 2, pytest.approx((PRIOR * usual["b"] + w[1] * r[1] + w[3] * r[3]) / (PRIOR + w[1] + w[3]))
    )
    assert got["c"] == Account(0, 0, pytest.approx(1.0))
    assert ledger(History(), ["a", "b"]).accounts() == {"a": Account(0, 0, 1.0), "b": Account(0, 0, 1.0)}
    failures = ledger(told(*[(None, 0.0)] * 9, note=lambda i: {"arm": "a"}), ["a", "b"]).accounts()
    assert failures["a"].ended == 9 and failures["a"].credit < 0.2 < failures["b"].credit == 1.0


def test_cost_divides_credit_and_wavering_does_not():
    def credits(cost):
        history = told(*(((1.0 + (i % 3),), 0.0) for i in range(20)), note=lambda i: {"arm": "ab"[i % 2]})
        for t in history:
            t.cost_s, t.propose_s = cost[t.number % 2]
        return ledger(history, ["a", "b"]).accounts()

    free, equal, near, dear = (
        credits([(0, 0)] * 2),
        credits([(1, 0)] * 2),
        credits([(1.1, 0), (0.9, 0.1)]),
        credits([(1, 0), (1, 15)]),
    )
    assert free == equal == near
    # the mean is 8.5 seconds: 1 is an eighth of it, 16 the double
    assert dear["a"].credit == pytest.approx(8 * free["a"].credit)
    assert dear["b"].credit == pytest.approx(free["b"].credit / 2)


def account(ended, credit):
    return Account(ended, ended, credit)


def test_probabilities():
    s = Adaptive(FAST, lead=0.05, floor=0.05, greed=3)
    p, dropped = s.probabilities(
        {"greedy": account(20, 4.0), "genetic": account(20, 2.0), "random": account(20, DROP * 1.01)}
    )
    assert sum(p.values()) == pytest.approx(1) and not dropped
    assert (p["greedy"] - 0.05) / (p["genetic"] - 0.05) == pytest.approx(8)
    assert min(p.values()) >= 0.05
    poor = {"greedy": account(20, 4.0), "genetic": account(20, 2.0), "random": account(ENOUGH, DROP * 0.99)}
    p, dropped = s.probabilities(poor)
    assert dropped == ["random"] and p["random"] == pytest.approx(0.05 * RETRY) and sum(p.values()) == pytest.approx(1)
    assert s.probabilities({**poor, "random": account(ENOUGH - 1, 0.01)})[1] == []  # too little evidence
    alike = {n: account(20, i + 1.0) for i, n in enumerate(FAST)}
    assert list(dataclasses.replace(s, greed=0).probabilities(alike)[0].values()) == pytest.approx([1 / 3] * 3)
    nothing = s.probabilities({n: account(30, 0.0) for n in FAST})  # all are dropped alike
    assert list(nothing[0].values()) == pytest.approx([1 / 3] * 3) and nothing[1] == list(FAST)
    assert Adaptive(("random",)).probabilities({"random": account(0, 1.0)}) == ({"random": pytest.approx(1)}, [])


def test_the_first_arm_leads_until_it_is_dropped():
    s = Adaptive(FAST, lead=0.5, floor=0.1, greed=1)
    p, _ = s.probabilities({n: account(20, 0.3) for n in FAST})
    assert list(p.values()) == pytest.approx([0.6, 0.2, 0.2])
    p, dropped = s.probabilities({"greedy": account(20, 0.1), "genetic": account(20, 1.2), "random": account(20, 1.2)})
    assert dropped == ["greedy"] and list(p.values()) == pytest.approx([0.05, 0.475, 0.475])
    history = run(Adaptive((Bad(), Good(), Random())), line, 150, 0, LINE)
    late = [t.note["arm"] for t in history][75:]
    assert late.count("bad") < 25 < late.count("good")


def test_the_best_arm_gets_most_and_the_worst_is_dropped():
    s = Adaptive((Random(), Good(), Bad()), start=1, lead=0.08, floor=0.08, greed=3)
    history = run(s, line, 300, 0, LINE)
    assert [t.note["arm"] for t in history][:3] == ["random", "good", "bad"]
    assert shares(history)["good"] > 0.7 > 0.15 > shares(history)["bad"]
    dropping = [t.number for t in history if "bad" in t.note["why"].get("dropped", [])]
    assert dropping and not any("good" in t.note["why"].get("dropped", []) for t in history)
    before = History(dataclasses.replace(history[i]) for i in range(dropping[0]))
    batch = [p.note["arm"] for p in s.propose(LINE, before, 1000, generator(1))]
    assert 0 < batch.count("bad") < 30  # it is retried now and then


def test_a_slow_arm_loses():
    """Two arms alike, but one takes ten times the seconds to propose."""

    @dataclasses.dataclass(frozen=True)
    class Slow(Random):
        pass

    s, history = Adaptive((Slow(), Random()), lead=0.05, floor=0.05, greed=3), History()
    for i in range(150):
        [p] = s.propose(LINE, history, 1, generator(3, i))
        seconds = 10.0 if p.note["arm"] == "slow" else 1.0
        history.add(Trial(i, p.filling, "complete", *line(p.filling), 0.0, p.note, {}, seconds))
    assert shares(history)["random"] > 0.8


def test_arms_see_their_own_notes_and_all_values():
    history = run(Adaptive((Spy(), "genetic", "random")), line, 40, 0, LINE)
    assert {"spy", "genetic"} <= set(shares(history))
    for t in history:
        if t.note["arm"] == "spy":
            assert t.note["note"] == {"spy": t.number}


def test_the_first_arm_starts_and_then_each_other_has_one():
    s = Adaptive((Random(), Good(), Bad()), start=4)
    assert [t.note["arm"] for t in run(s, line, 6, 0, LINE)] == ["random"] * 4 + ["good", "bad"]
    assert {p.note["arm"] for p in s.propose(LINE, History(), 3, generator(0))} == {"random"}
    assert [p.note["arm"] for p in s.propose(LINE, History(), 6, generator(0))].count("random") >= 4


def test_notes_say_why_and_can_be_replayed():
    s = Adaptive(start=1)
    history = run(s, separable, 24, 0)
    for number in (6, 12, 23):
        before = restarted(History(dataclasses.replace(history[i]) for i in range(number)))
        book = ledger(before, ["bayesian", "greedy", "genetic", "tpe", "random"])
        p, dropped = s.probabilities(book.accounts())
        why = history[number].note["why"]
        assert why["p"] == pytest.approx(p, rel=0.01) and why.get("dropped", []) == dropped
        [again] = s.propose(SPACE, before, 1, generator(0, number))
        assert json.dumps(again.note, sort_keys=True) == json.dumps(history[number].note, sort_keys=True)
        assert key(again.filling) == key(history[number].filling)
    guessed = [t for t in history if t.note["arm"] == "bayesian" and t.note["note"]]
    assert guessed and all(expectation(t.note) == t.note["note"]["ei"] for t in guessed)


def test_batches_are_fresh_and_shared():
    s, history = Adaptive(FAST, start=1), run(Adaptive(FAST, start=1), separable, 20, 0)
    proposals = s.propose(SPACE, history, 12, generator(5))
    assert len({key(p.filling) for p in proposals}) == 12 and not any(history.seen(p.filling) for p in proposals)
    assert len({p.note["arm"] for seed in range(4) for p in s.propose(SPACE, history, 12, generator(seed))}) > 1
    first = s.propose(SPACE, History(), 5, generator(5))
    assert {p.note["arm"] for p in first} == set(FAST)


def test_others_take_the_turn_of_an_arm_that_has_nothing_left():
    history = run(Adaptive((Once(), "random")), line, 30, 0, LINE)
    assert len(history) == 30 and [t.note["arm"] for t in history].count("once") == 2
    assert any("instead of" in t.note["why"] for t in history)
    assert len(run(Adaptive((Once(),)), line, 5, 0, LINE)) == 2


def test_a_surrogate_chooses_among_the_candidates():
    history = run(Random(), separable, 60, 2)
    model = screen(SPACE, history)
    good, poor = (sorted((t.filling for t in history), key=lambda f: separable(f)[0])[i] for i in (0, -1))
    scores, means = model.judge([good, poor])
    assert means[0] < means[1]
    s = Adaptive(("genetic",), screen=8)
    [picked] = s.propose(SPACE, history, 1, generator(9))
    offered = ledger(history, ["genetic"]).views["genetic"]
    # its first turn: nothing was drawn for it
    candidates = [p.filling for p in Genetic().propose(SPACE, offered, 8, generator(9))]
    assert key(picked.filling) == key(candidates[int(np.argmax(model.judge(candidates)[0]))])
    assert picked.note["why"]["screened"] == 8


def test_fewer_candidates_in_a_long_history():
    history = run(Random(), separable, 2000, 0)
    [picked] = Adaptive(("genetic",), screen=8).propose(SPACE, history, 1, generator(0))
    assert picked.note["why"]["screened"] == 4


def test_a_surrogate_that_is_wrong_is_not_followed():
    def history_with(sign):
        out = run(Random(), separable, 40, 2)
        for t in out:
            t.note = {"arm": "genetic", "why": {"believed": sign * t.values[0]}, "note": {}}
        return out

    s = Adaptive(("genetic",))
    right, wrong = (s.propose(SPACE, history_with(sign), 1, generator(9))[0] for sign in (1, -1))
    assert right.note["why"]["trust"] == 1 and wrong.note["why"]["trust"] == -1
    assert key(right.filling) != key(wrong.filling)
    alone = Adaptive(("genetic",), screen=1).propose(SPACE, history_with(-1), 1, generator(9))[0]
    assert "believed" in wrong.note["why"] and "believed" not in alone.note["why"]


def test_trust_is_spearmans_correlation():
    rng = generator(4)
    beliefs, values = rng.standard_normal(40), rng.uniform(0.5, 2, 40)
    violations = np.where(np.arange(40) % 5 == 0, 1.0, 0.0)
    history = told(
        *(((float(v),), float(b)) for v, b in zip(values, violations, strict=True)),
        note=lambda i: {"arm": "a", "why": {"believed": beliefs[i]}},
    )
    held = np.flatnonzero(violations == 0)[-30:]
    book = ledger(history, ["a"])
    assert book.trust(30, 10) == pytest.approx(spearmanr(beliefs[held], values[held]).statistic)
    assert book.trust(30, 33) is None
    assert (
        ledger(told(*[((1.0,), 0.0)] * 20, note=lambda i: {"arm": "a", "why": {"believed": i}}), ["a"]).trust(30, 10)
        is None
    )


def test_settings_that_are_none():
    for arms in ((), ("random", "random"), ("adaptive", "random"), ("random", Random()), ("nonsense",)):
        with pytest.raises(InputError):
            Adaptive(arms)
    for bad in ({"floor": 0.0}, {"floor": 0.3}, {"lead": 0.9}, {"lead": 0.01}, {"greed": -1}, {"screen": 0}):
        with pytest.raises(InputError, match="allowed"):
            Adaptive(**bad)


def test_another_number_of_objectives_is_an_error():
    with pytest.raises(InputError, match="objectives"):
        ledger(told(((1.0,), 0.0), ((1.0, 2.0), 0.0)), ["random"])


def test_a_paused_trial_that_goes_on_is_read_again():
    history = told(((1.0,), 0.0), ((2.0,), 0.0), note=lambda i: {"arm": "a"})
    history[1].state, history[1].values = "stopped", None
    book = ledger(history, ["a"])
    assert book.views["a"][1].state == "stopped"
    history[1].state = "running"
    assert ledger(history, ["a"]).views["a"][1].state == "running" and not book.ended[1]
    history[1].state, history[1].values = "complete", (0.5,)
    assert ledger(history, ["a"]).accounts() == ledger(restarted(history), ["a"]).accounts()
    assert book.views["a"][1].values == (0.5,)


@pytest.mark.parametrize("problem", [separable, compression])
def test_better_than_random(problem):
    mine = [quality(run(Adaptive(FAST), problem, 40, s)) for s in range(3)]
    chance = [quality(run(Random(), problem, 40, s)) for s in range(3)]
    assert sum(a > b for a, b in zip(mine, chance, strict=True)) >= 2 and sum(mine) > sum(chance)


def test_a_finite_space_is_exhausted():
    space = Space(Recipe(Cut(0.5, Choice("a", "b")), Tune(Choice(1, 2), 1e-3)))
    history = run(Adaptive(FAST), lambda f: ((1.0,), 0.0), 10, 0, space)
    assert len(history) == 4 == history.distinct
