"""Gradient and one-shot search: the natural gradient against its formulas,
what a supernet ranked, convergence."""

import json
import math

import numpy as np
import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Order, Space
from featherweight.space.space import key
from featherweight.strategies import gradient
from featherweight.strategies.gradient import Gradient, quantile
from featherweight.strategies.gradient.policy import NARROWEST, WIDEST, Policy
from featherweight.strategies.oneshot import Oneshot
from featherweight.strategies.random import Random
from featherweight.strategies.shared.ranked import guides, outcomes
from featherweight.testing import check_strategy
from featherweight.testing.strategies import Other, Step, check_replay, mixed_space
from tests.strategies.problems import quality, run, separable

NAMES = Space(Recipe(Step(mode=Choice("x", "y", "z"), inner=Recipe(Other(mode=Choice("p", "q"))))))
BOTH = (Gradient, Oneshot)


def reference(q, fillings, u, delta):
    """One update of ASNG from uniform q, s = 0, gamma = 0, Delta = 1, by the full Fisher matrix of
    the free parameters (section 3.2)."""
    paths = list(q)
    g = {
        p: np.mean(
            [w * (np.array([f[p] == o for o in o_s], float) - q[p][0]) for f, w in zip(fillings, u, strict=True)], 0
        )
        for p, (_, o_s) in q.items()
    }
    total = 0.0
    for p in paths:
        free, v = q[p][0][:-1], g[p][:-1]
        fisher = np.diag(1 / free) + 1 / q[p][0][-1]
        total += v @ fisher @ v
    return {p: q[p][0] + delta * g[p] / math.sqrt(total) for p in paths}


def test_a_step_is_the_natural_gradient_of_the_fisher_length():
    policy = Policy(NAMES, lr=0.05, delta=0.2)
    start = policy.start()
    fillings = [NAMES.sample(generator(0, i)) for i in range(4)]
    u = np.array([1.0, 0.3, -0.4, -0.9])
    got = policy.update(start, fillings, u)
    want = reference({p: (start.q[p], policy.names[p]) for p in start.q}, fillings, u, 0.2)
    for path, q in want.items():
        np.testing.assert_allclose(got.q[path], q, atol=1e-9)
    beta = 0.2 / math.sqrt(3)
    s = math.sqrt(beta * (2 - beta))
    # eq. 10, from s = 0, of a vector of length 1
    assert float((got.s**2).sum()) == pytest.approx(s * s)
    assert got.gamma == pytest.approx(beta * (2 - beta))
    assert got.shrink == max(1.0, math.exp(beta * (got.gamma - s * s / 1.5)))


def test_beliefs_stay_distributions_and_no_option_dies():
    space = mixed_space()
    policy, rng = Policy(space, lr=0.2, delta=3.0), generator(0)
    beliefs = policy.start()
    for _ in range(200):
        fillings = [policy.draw(beliefs, rng) for _ in range(2)]
        before = {p: q.copy() for p, q in beliefs.q.items()}
        after = policy.update(beliefs, fillings, np.array([1.0, -1.0]))
        assert all((beliefs.q[p] == before[p]).all() for p in before), "beliefs were changed in place"
        beliefs = after
        for q in beliefs.q.values():
            assert q.min() > 0.5 / len(policy.names) / max(len(q) - 1, 1) or len(q) == 1 or q.min() >= 0.5 / len(q)
            assert q.sum() == pytest.approx(1.0)
        assert (beliefs.mu >= 0).all() and (beliefs.mu <= 1).all()
        assert (beliefs.sigma >= NARROWEST).all() and (beliefs.sigma <= WIDEST).all()


def test_equal_utilities_of_zero_teach_nothing():
    policy = Policy(NAMES, 0.05, 1.0)
    start = policy.start()
    assert policy.update(start, [NAMES.sample(generator(0))], np.zeros(1)) is start


def test_every_value_can_be_drawn_and_read():
    space = Space(
        Recipe(
            Step(a=Float(1e-4, 1e-1, log=True), b=Int(1, 64, log=True), mode=Choice(8, 2, 4)),
            Order(Other(c=Float(0, 1, step=0.25)), Step(b=Int(0, 6, step=2))),
        )
    )
    policy = Policy(space, 0.05, 1.0)
    rng = generator(1)
    for _ in range(50):
        filling = space.sample(rng)
        cells, alive = policy._encode([filling])
        for path, at in policy.at.items():
            width = 2 if ">" in str(filling[path]) else 1
            back = policy._decode(path, space[path].domain, cells[0, at : at + width])
            assert back == (pytest.approx(filling[path]) if isinstance(filling[path], float) else filling[path])
        assert alive.all() and ((cells >= 0) & (cells <= 1)).all()


def test_quantiles_share_the_places_of_ties():
    scores = np.array([(0.0, 1.0), (0.0, 2.0), (0.0, 2.0), (1.0, 0.0), (math.inf, 0.0)])
    assert [quantile(scores, i) for i in range(5)] == pytest.approx([0, 0.375, 0.375, 0.75, 1])
    assert quantile(scores[:1], 0) == 0.5


def test_a_long_history_is_read_from_a_late_base_the_same_after_a_restart(monkeypatch):
    monkeypatch.setattr(gradient, "_STRIDE", 4)
    for workers in (1, 12):
        check_replay(Gradient(), mixed_space(), workers, 2, 60)


def ranked_of(space, n):
    some = [space.sample(generator(5, i)) for i in range(n)]
    return tuple(json.dumps(f) for f in some), some


@pytest.mark.parametrize("make", BOTH)
def test_ranked_fillings_come_first_and_once(make):
    space = mixed_space()
    texts, fillings = ranked_of(space, 3)
    strategy, history = make(ranked=(*texts, texts[0])), History()
    first = strategy.propose(space, history, 2, generator(0))
    assert [p.filling for p in first] == fillings[:2]
    for p in first:
        history.add(Trial(len(history), p.filling, note=p.note))
    rest = strategy.propose(space, history, 3, generator(1))
    assert rest[0].filling == fillings[2]
    assert not {key(p.filling) for p in rest[1:]} & {key(f) for f in fillings}


@pytest.mark.parametrize("make", BOTH)
def test_the_suite_passes_with_ranked_fillings(make):
    check_strategy(make())
    space = mixed_space()
    check_replay(make(ranked=ranked_of(space, 4)[0]), space, 2, 2, 30)


def test_a_partial_filling_is_completed_by_middles():
    path = next(iter(NAMES)).path
    assert guides(NAMES, (json.dumps({path: "z"}), json.dumps({path: "z"}))) == [
        {**{h.path: h.domain.options(None)[0] for h in NAMES}, path: "z"}
    ]
    assert guides(NAMES, ()) == []


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("ranked", [("no json",), ("[1]",), ({"a": 1},), "{}", (7,)])
def test_what_is_no_filling_is_refused(make, ranked):
    with pytest.raises(InputError):
        make(ranked=ranked)


@pytest.mark.parametrize("make", BOTH)
def test_a_filling_of_another_space_is_refused(make):
    for text in ('{"elsewhere": 1}', json.dumps({next(iter(NAMES)).path: "w"})):
        with pytest.raises(InputError):
            make(ranked=(text,)).propose(NAMES, History(), 1, generator(0))


@pytest.mark.parametrize("wrong", [{"generation": 0}, {"lr": 0.0}, {"delta": 0.0}])
def test_settings_of_gradient(wrong):
    with pytest.raises(InputError):
        Gradient(**wrong)


@pytest.mark.parametrize("wrong", [{"parents": 0}, {"rate": 0.0}])
def test_settings_of_oneshot(wrong):
    with pytest.raises(InputError):
        Oneshot(**wrong)


@pytest.mark.parametrize("make", BOTH)
def test_beats_random(make):
    mine = [quality(run(make(), separable, 100, s)) for s in range(8)]
    chance = [quality(run(Random(), separable, 100, s)) for s in range(8)]
    assert sum(mine) > 0.6 * sum(chance) and sum(a > b for a, b in zip(mine, chance, strict=True)) >= 6


def test_gradient_finds_the_one_option_of_each_of_ten_holes():
    space = Space(Recipe(*(Step(mode=Choice("a", "b", "c", "d")) for _ in range(10))))

    def wrong(filling):
        return (0.1 + sum(v != "c" for v in filling.values()),), 0.0

    found = [min(t.values[0] for t in run(Gradient(), wrong, 300, s, space)) for s in range(4)]
    chance = [min(t.values[0] for t in run(Random(), wrong, 300, s, space)) for s in range(4)]
    assert np.mean(found) < 1.2 and np.mean(chance) > 3


def test_good_guides_help_gradient_from_the_start():
    best = json.dumps(
        {p: v for p, v in min((run(Random(), separable, 200, 9)), key=lambda t: t.values[0]).filling.items()}
    )
    guided = [quality(run(Gradient(ranked=(best,)), separable, 15, s)) for s in range(5)]
    alone = [quality(run(Gradient(), separable, 15, s)) for s in range(5)]
    assert np.mean(guided) > np.mean(alone)


def test_outcomes_are_read_when_trials_finish_in_any_order():
    def told(order):
        history = History(Trial(i, {"i": i}) for i in range(4))
        for i in order:
            history[i].state, history[i].values = "complete", (1.0 + (i % 2), 2.0)
            outcomes(history)
        return outcomes(history).best(4, generator(0))

    assert told([0, 1, 2, 3]) == told([3, 1, 0, 2]) == [0, 2, 1, 3]
    with pytest.raises(InputError):
        outcomes(History([Trial(0, {}, "complete", (1.0,)), Trial(1, {"a": 1}, "complete", (1.0, 2.0))]))


def test_the_best_of_many_are_those_of_a_full_sort():
    rng = generator(2)
    for share in (0.0, 0.5, 1.0):
        history = History()
        for i in range(300):
            violation = float(rng.integers(1, 4)) if rng.random() < share else 0.0
            history.add(Trial(i, {"i": i}, "complete", (float(rng.integers(1, 30)),), violation))
        order = sorted(range(300), key=lambda i: (history[i].violation, history[i].values, i))
        assert outcomes(history).best(7, generator(0)) == order[:7]
