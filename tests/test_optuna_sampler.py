"""Our strategies under Optuna: its own suite for samplers, conditions found in trials, values of
any sign, shared and resumed studies."""

import math
import pickle
import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from featherweight.errors import InputError
from featherweight.optuna_sampler import OptunaSampler, _positive, _scale, to_optuna
from featherweight.optuna_sampler.parameters import Parameters, conditions, domain, inside, outside
from featherweight.records import History, Trial
from featherweight.seeding import generator
from featherweight.testing.strategies import mishaps, mixed_space

optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestOptunasOwnSuite(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=["random", "greedy", "tpe"])
    def sampler(self, request):
        return lambda: OptunaSampler(request.param, seed=0)


def conditional(trial):
    """Layers 1 to 3, a width for each; an optimizer with a momentum of its own."""
    layers = trial.suggest_int("layers", 1, 3)
    widths = [trial.suggest_int(f"w{i}", 1, 64, log=True) for i in range(layers)]
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    kind = trial.suggest_categorical("kind", ["sgd", "adam", None])
    momentum = trial.suggest_float("momentum", 0.0, 1.0) if kind == "sgd" else 0.5
    return (
        (math.log10(rate) + 2) ** 2
        + (momentum - 0.9) ** 2
        + 0.1 * sum((w - 8) ** 2 / 64 for w in widths)
        - 5.0 * layers
    )


def studied(sampler, objective, trials, directions=("minimize",), storage=None, **settings):
    study = optuna.create_study(sampler=sampler, directions=list(directions), storage=storage)
    study.optimize(objective, n_trials=trials, **settings)
    return study


@pytest.mark.parametrize("strategy", ["random", "genetic", "quasirandom"])
def test_conditions_are_found_and_respected(strategy):
    sampler = OptunaSampler(strategy, seed=1)
    study = studied(sampler, conditional, 40)
    sampler.infer_relative_search_space(
        study, study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    )
    found = sampler._view.parameters
    assert set(found.paths) == {"layers", "w0", "w1", "w2", "lr", "kind", "momentum"}
    assert {v for _, v in found.conditions["w1"][1]} == {2, 3} and {v for _, v in found.conditions["w2"][1]} == {3}
    assert found.conditions["momentum"][0] == "kind" and {v for _, v in found.conditions["momentum"][1]} == {"choice 0"}
    late = study.trials[30:40]
    for t in late:  # every parameter was proposed by the strategy
        assert set(t.system_attrs["featherweight"]["row"]) == set(t.params)
    assert [t.state for t in sampler._view.history] == ["complete"] * 40
    for t, u in zip(study.trials[:39], study.trials[1:40], strict=True):
        mine = sampler._view.history
        assert (t.value < u.value) == (mine[t.number].values < mine[u.number].values)


def test_conditions_of_conditions_and_what_cannot_be_explained():
    known = {
        "a": CategoricalDistribution(["x", "y"]),
        "b": IntDistribution(0, 2),
        "c": FloatDistribution(0, 1),
        "d": FloatDistribution(0, 1),
    }
    rows = [{"a": "x"}, {"a": "y", "b": 0}, {"a": "y", "b": 1, "c": 0.5}, {"a": "x", "d": 0.1}]
    found = conditions(rows, known)
    assert found == {"b": ("a", frozenset({("str", "y")})), "c": ("b", frozenset({("int", 1)})), "d": None}
    made = Parameters(known, found)
    assert set(made.paths) == {"a", "b", "c"}
    assert made.space.size == math.inf
    for i in range(50):
        row = {made.names[p]: v for p, v in made.space.sample(generator(i)).items()}
        assert ("b" in row) == (row["a"] == "y") and ("c" in row) == (row.get("b") == 1)
        assert made.filling(row) is not None
    assert (
        made.filling({"a": "x", "b": 1}) is None
        and made.filling({"a": "y"}) is None
        and made.filling({"a": "z"}) is None
    )
    assert conditions([], known) == {} and conditions([{"a": "x"}], {"a": known["a"]}) == {}


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(-3, 4),
        FloatDistribution(1e-7, 1, log=True),
        FloatDistribution(-1, 1, step=0.1),
        IntDistribution(-5, 7, step=3),
        IntDistribution(1, 100, log=True),
        CategoricalDistribution([1, 1.0, True]),
        CategoricalDistribution(["a", None, 2.5]),
        CategoricalDistribution([math.inf, 1.0]),
    ],
    ids=repr,
)
def test_parameters_become_holes_and_come_back(distribution):
    for i in range(30):
        value = domain(distribution).sample(generator(i))
        there = outside(distribution, value)
        assert distribution._contains(distribution.to_internal_repr(there))
        assert inside(distribution, there) == value


def test_a_number_that_no_hole_can_be():
    with pytest.raises(InputError):
        domain(IntDistribution(0, 2**60))


def test_objectives_of_any_sign_keep_their_order():
    values = [-math.inf, -1e300, -5.0, -1e-9, 0.0, 1e-9, 3.0, 1e300, math.inf]
    scale = _scale([-5.0, 0.0, 3.0, math.nan, math.inf])
    told = [_positive(v, *scale) for v in values]
    assert told == sorted(told) and len(set(told[1:-1])) == len(told[1:-1]) and all(0 < v < math.inf for v in told)
    assert math.log(_positive(7.0, 5.0, 2.0)) == pytest.approx(math.asinh(1.0))
    assert (
        _scale([]) == (0.0, 1.0)
        and _scale([2.0, 2.0]) == (2.0, 1.0)
        and _scale([0.0, 1.0, 2.0, 3.0, 4.0]) == (2.0, 1.0)
    )


def test_maximised_objectives_states_and_constraints():
    sampler = OptunaSampler("random", seed=0, constraints_func=lambda t: (t.params["x"] - 0.5, -1.0))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number % 5 == 3:
            raise optuna.TrialPruned
        if trial.number % 5 == 4:
            raise RuntimeError
        return x, -x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(21):
            t = study.ask()
            try:
                study.tell(t, objective(t))
            except optuna.TrialPruned:
                study.tell(t, state=TrialState.PRUNED)
            except RuntimeError:
                study.tell(t, state=TrialState.FAIL)
    sampler.infer_relative_search_space(
        study, study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    )
    history = sampler._view.history
    assert [t.state for t in history][:10] == (["complete"] * 3 + ["stopped", "failed"]) * 2
    xs = [t.params["x"] for t in study.trials[:21]]
    for t in history:
        assert t.violation == pytest.approx(max(0.0, xs[t.number] - 0.5) if t.state != "failed" else 0.0)
        if t.state == "complete":
            assert all(
                (xs[t.number] > xs[u.number]) == (t.values[j] < u.values[j])
                for u in history.complete()
                for j in (0, 1)
                if u is not t
            )


@pytest.mark.parametrize("strategy", ["greedy", "tpe", "cmaes"])
def test_same_seed_and_resumed(strategy, tmp_path):
    fixed = {"x": FloatDistribution(-5, 5), "y": FloatDistribution(-5, 5), "n": IntDistribution(1, 9)}

    def objective(trial):
        return (
            (trial.suggest_float("x", -5, 5) - 2) ** 2
            + (trial.suggest_float("y", -5, 5) + 1) ** 2
            + trial.suggest_int("n", 1, 9)
            - 3
        )

    a = studied(OptunaSampler(strategy, seed=3, space=fixed), objective, 30)
    b = studied(OptunaSampler(strategy, seed=3, space=fixed), objective, 15)
    # another process reads what the first one wrote
    b.sampler = pickle.loads(pickle.dumps(OptunaSampler(strategy, seed=3, space=fixed)))
    b.optimize(objective, n_trials=15)
    assert [t.params for t in a.trials] == [t.params for t in b.trials]
    assert len({str(t.params) for t in a.trials}) == 30
    chance = studied(OptunaSampler("random", seed=3, space=fixed), objective, 30)
    assert a.best_value < chance.best_value


def test_pending_trials_are_seen_and_not_repeated():
    space = {"a": CategoricalDistribution(list("pqrst")), "b": IntDistribution(0, 3)}
    study = optuna.create_study(sampler=OptunaSampler("random", seed=0, space=space))
    asked = [study.ask(space) for _ in range(20)]  # none has finished
    assert len({str(t.params) for t in asked}) == 20
    for t in reversed(asked):
        study.tell(t, float(t.params["b"]))
    assert study.ask(space).params.keys() == space.keys()  # exhausted: at random


def test_enqueued_and_partial_trials():
    sampler = OptunaSampler("greedy", seed=0)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"layers": 3, "w0": 8})
    study.optimize(conditional, n_trials=8)
    study.enqueue_trial({"layers": 2})
    study.optimize(conditional, n_trials=8)
    assert study.trials[0].params["layers"] == 3 and study.trials[8].params["layers"] == 2
    assert len(study.trials) == 16
    assert [t.filling == {} for t in sampler._view.history] == [False] * 15


def test_threads_and_a_shared_storage(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = studied(OptunaSampler("greedy", seed=0), conditional, 8, storage=url, n_jobs=2)
    assert len(study.trials) == 8 and all(t.state == TrialState.COMPLETE for t in study.trials)
    again = optuna.load_study(study_name=study.study_name, storage=url, sampler=OptunaSampler("greedy", seed=1))
    again.optimize(conditional, n_trials=3)
    assert len(again.trials) == 11


def test_a_history_becomes_a_study():
    space, history, rng = mixed_space(), History(), generator(0)
    for i in range(30):
        t = Trial(i, space.sample(rng), note={"k": i}, reports={1: 0.5})
        mishaps(t, rng)
        history.add(t)
    history.add(Trial(30, space.sample(rng)))
    study = to_optuna(space, history)
    assert len(study.trials) == 31 and len(study.directions) == 2
    for ours, theirs in zip(history, study.trials, strict=True):
        good = ours.state == "complete" and not math.isnan(sum(ours.values))
        assert (theirs.state == TrialState.COMPLETE) == good
        assert theirs.values == (list(ours.values) if good else None)
        assert theirs.user_attrs["note"] == ours.note
        assert (not theirs.constraints) or theirs.constraints["violation"] == ours.violation
    assert to_optuna(space, History()).trials == []
    with pytest.raises(InputError):
        to_optuna(
            space,
            History(
                [Trial(0, space.sample(rng), "complete", (1.0,)), Trial(1, space.sample(rng), "complete", (1.0, 2.0))]
            ),
        )
