"""The adapter: holes to parameters and back, histories to studies, and the genetic operators."""

import warnings

import numpy as np
import optuna
import pytest

from featherweight.errors import InputError
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Order
from featherweight.strategies._optuna import distributions, mirror, names, params, quiet, value_of
from featherweight.strategies.nsga2 import Nsga2, better, child
from featherweight.strategies.tpe import Tpe
from featherweight.testing.strategies import Other, Step, finite_space, mixed_space
from tests.strategies.problems import SPACE, compression, run

DOMAINS = [
    Float(0, 1),
    Float(1e-5, 1e-1, log=True),
    Float(0, 1.1, step=0.25),
    Float(2, 2),
    Int(1, 9),
    Int(1, 64, log=True),
    Int(0, 10, step=3),
    Int(1, 50, log=True, step=7),
    Choice(1, 1.0, True, None, "1"),
    Choice(Step(), Other()),
    Maybe(Step()),
    Order(Step(), Other(), Step()),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_holes_go_to_optuna_and_back(domain):
    rng = generator(0)
    known = distributions("p", domain)
    assert list(known) == names("p", domain)
    for _ in range(20):
        value = domain.sample(rng)
        there = params("p", domain, value)
        for name, d in known.items():
            assert d._contains(d.to_internal_repr(there[name]))
        back = value_of("p", domain, there)
        assert back == value and type(back) is type(value)


def test_states_and_constraints_of_the_mirror():
    space = finite_space()
    states = ["complete", "running", "failed", "stopped", "complete", "complete"]
    history = History(Trial(i, space.at(i), s) for i, s in enumerate(states))
    history[0].values, history[0].violation = (1.0, 2.0), 0.5
    history[4].values = (float("nan"), 1.0)
    history[5].values, history[5].violation = (1.0, 2.0), float("inf")
    study = mirror(space, history).study
    found = [(t.state.name, t.constraints.get("violation")) for t in study.get_trials(deepcopy=False)]
    assert found == [("COMPLETE", 0.5), ("RUNNING", None), ("FAIL", None), ("FAIL", None), ("FAIL", 0.0), ("COMPLETE", 1e12)]
    assert len(study.directions) == 2
    history[1].state, history[1].values = "complete", (3.0, 4.0)
    t = mirror(space, history).study.get_trials(deepcopy=False)[1]
    assert (t.state.name, t.values, t.constraints) == ("COMPLETE", [3.0, 4.0], {"violation": 0.0})


def test_asking_leaves_no_trace():
    space, history = mixed_space(), History()
    Tpe().propose(space, history, 5, generator(0))
    assert mirror(space, history).study.get_trials(deepcopy=False) == []


def test_objectives_have_to_agree():
    space = finite_space()
    history = History([Trial(0, space.at(0), "complete", (1.0,)), Trial(1, space.at(1), "complete", (1.0, 2.0))])
    with pytest.raises(InputError):
        mirror(space, history)
    with pytest.raises(InputError):
        mirror(space, History([Trial(0, {"nowhere": 1})]))


def test_quiet_restores():
    level = optuna.logging.get_verbosity()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError), quiet():
            warnings.warn("x", optuna.exceptions.ExperimentalWarning, stacklevel=1)
            raise RuntimeError
        assert not seen
    assert optuna.logging.get_verbosity() == level


def test_no_output(capfd):
    run(Tpe(startup=2), compression, 6, 0)
    run(Nsga2(2), compression, 6, 0)
    out = capfd.readouterr()
    assert out.out == out.err == ""


def test_repeats_are_replaced_and_noted():
    space = finite_space()
    history = run(Tpe(startup=3), lambda f: ((len(str(f)),), 0.0), 24, 0, space)
    assert history.distinct == 24
    assert any(t.note.get("random") == "instead of a repeat" for t in history)


def test_generations_and_parents():
    history = run(Nsga2(4), compression, 20, 0)
    assert [t.note["generation"] for t in history] == [i // 4 for i in range(20)]
    first = [t for t in history if "parents" in t.note]
    assert [t.note["generation"] for t in first] == [1, 2, 3, 4]
    assert sorted(history[4].note["parents"]) == [0, 1, 2, 3]
    feasible = [t.number for t in history if t.number < 8 and t.violation == 0]
    assert set(feasible[:4]) <= set(history[8].note["parents"]) or len(feasible) > 4


def test_children_mix_their_parents():
    parents = [{"a": 1, "b": 1, "only one": 5}, {"a": 2, "b": 2}]
    ranks = [(0.0, (1.0, 2.0)), (0.0, (2.0, 1.0))]
    children = [child(parents, ranks, 1.0, np.random.default_rng(i)) for i in range(200)]
    assert {(c.get("a"), c.get("b")) for c in children} >= {(1, 1), (2, 2), (1, 2), (2, 1)}
    assert {c.get("only one") for c in children} == {5, None}
    mutated = sum(len({"a", "b"} - set(c)) for c in children) / 200
    assert 0.5 < mutated < 1.2  # one of a child's two or three parameters is drawn anew, on average


def test_constrained_domination():
    assert better((0.0, (9.0,)), (0.1, (1.0,))) and not better((0.1, (1.0,)), (0.0, (9.0,)))
    assert better((0.1, (1.0, 1.0)), (0.1, (1.0, 2.0)))
    assert not better((0.0, (1.0, 2.0)), (0.0, (2.0, 1.0)))


@pytest.mark.parametrize("make", [lambda: Tpe(startup=0), lambda: Tpe(candidates=0), lambda: Nsga2(1), lambda: Nsga2(8, 1.5)])
def test_bad_settings(make):
    with pytest.raises(InputError):
        make()


def test_a_history_of_another_strategy_is_welcome():
    rng, history = generator(0), History()
    for i in range(20):
        f = SPACE.sample(rng)
        history.add(Trial(i, f, "complete", *compression(f)))
    assert Nsga2(8).propose(SPACE, history, 1, rng)[0].note["generation"] == 1
    assert Tpe().propose(SPACE, history, 1, rng)
