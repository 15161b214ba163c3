"""The adapter: holes to parameters and back, histories to studies, and the genetic operators."""

import math
import warnings

import optuna
import pytest

from featherweight.errors import InputError
from featherweight.recipe import Recipe
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from featherweight.strategies.shared.optuna import Window, distributions, mirror, names, params, quiet, value_of
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
    assert found == [
        ("COMPLETE", 0.5),
        ("RUNNING", None),
        ("FAIL", None),
        ("RUNNING", None),
        ("FAIL", 0.0),
        ("COMPLETE", 1e12),
    ]
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
    out = capfd.readouterr()
    assert out.out == out.err == ""


def test_repeats_are_replaced_and_noted():
    space = finite_space()
    history = run(Tpe(startup=3, multivariate=False), lambda f: ((len(str(f)),), 0.0), 24, 0, space)
    assert history.distinct == 24
    assert {t.note.get("instead of a repeat") for t in history} >= {None, "neighbour"}


def test_tpe_passes_over_known_candidates():
    """On a flat finite space a model that is sure of the best filling still proposes new
    ones, without help."""
    space = Space(Recipe(Step(a=Float(0, 1, step=0.1), b=Int(1, 10), mode=Choice("x", "y"))))
    history = run(Tpe(), lambda f: ((0.1 + f["step.a"] + f["step.b"] / 10,), 0.0), 60, 0, space)
    assert history.distinct == 60
    assert sum("instead of a repeat" in t.note for t in history) <= 1


def test_a_window_shows_the_best_the_latest_and_the_running():
    space, history = finite_space(), History()
    for i in range(40):
        history.add(Trial(i, space.at(i % 24), "complete", (1.0 + (i * 17) % 40, 50.0 - (i * 17) % 40)))
    history[3].state, history[3].values = "running", None
    history[4].state, history[4].values = "failed", None
    history[38].violation = 1.0
    held = mirror(space, history)
    with held.view(Window(best=2, recent=3)):
        shown = [t.number for t in held.study.get_trials(deepcopy=False)]
    feasible = [t for t in history if t.values and not t.violation]
    low, middles = sorted(feasible, key=lambda t: t.values[0]), sorted(feasible, key=lambda t: t.score_key)
    assert shown == sorted({t.number for t in (*low[:2], *low[-2:], *middles[:2])} | {37, 38, 39, 3})
    assert len(held.study.get_trials(deepcopy=False)) == 40
    history[3].state, history[3].values = "complete", (0.5, 60.0)
    order = [list(ranked) for ranked in mirror(space, history).ranked]
    # whichever order they finish in
    assert order == mirror(space, History(history)).ranked and order[1][0][2] == 3
    assert Tpe().propose(space, history, 1, generator(0)) == []  # all 24 are known


def test_dead_holes_and_logarithms_of_a_flat_mirror():
    space = finite_space()
    history = History([Trial(0, space.at(0), "complete", (math.e,))])
    told = mirror(space, history, flat=True).study.get_trials(deepcopy=False)[0]
    assert set(told.params) == {h.path for h in space.holes} and told.values == [pytest.approx(1.0)]
    assert mirror(space, history).study.get_trials(deepcopy=False)[0].params.keys() == history[0].filling.keys()


@pytest.mark.parametrize("make", [lambda: Tpe(startup=0), lambda: Tpe(candidates=0)])
def test_bad_settings(make):
    with pytest.raises(InputError):
        make()


def test_a_history_of_another_strategy_is_welcome():
    rng, history = generator(0), History()
    for i in range(20):
        f = SPACE.sample(rng)
        history.add(Trial(i, f, "complete", *compression(f)))
    assert Tpe().propose(SPACE, history, 1, rng)
