"""A search of architectures from end to end, for a task without a model."""

import json
from pathlib import Path

import pytest

import featherweight as fw
from featherweight.errors import InputError, RecipeError, StoreError, TaskError
from featherweight.limits import Constraint
from featherweight.recipe import Candidate
from featherweight.seeding import generator
from featherweight.study.config import Config, Settings
from featherweight.study.forecast import forecast
from featherweight.study.pauses import first_epochs
from featherweight.study.proxy import ProxyFilter
from featherweight.study.reading import read_config
from featherweight.study.request import configure
from featherweight.study.statics import Statics, sample_shape
from featherweight.study.words import proxy_of, stopper_of
from featherweight.task.load import load_task
from tests.lean import BASELINES, without_torch

BARE = str(Path(__file__).parents[1] / "tasks" / "bare.py")
NET = fw.ConvNet(
    in_channels=1, classes=4, stem=8, depths=(1,), widths=(fw.Int(8, 32, step=8),), block=fw.Choice("plain", "residual")
)
SPACE = fw.Recipe(fw.Build(net=NET), fw.Train(epochs=fw.Choice(2, 4), lr=fw.Float(1e-3, 1e-1, log=True)))
FAST = {"measure_seconds": 0.1, "strategy": "random"}


def run(out, **more):
    return fw.search(BARE, SPACE, out=out, **{"budget": fw.Budget(trials=4), **FAST, **more})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BASELINES, without_torch)
        patch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path_factory.mktemp("shared")))
        guess = fw.Guess({"build.net.widths[0]": 16, "train.lr": 0.01}, weight=0.0)
        return run(
            tmp_path_factory.mktemp("search"),
            constraints=[fw.max_params(4000)],
            guesses=[guess],
            stopper="asha(eta=2)",
            proxy="naswot",
        )


def test_a_task_without_a_model_gets_a_net_that_is_compared_with_a_fixed_one(study):
    front = study.front_json()
    assert front["baseline"]["label"] == "baseline" and front["reference"] == "fixed net"
    assert front["baseline"]["metric"]["value"] > 0.5  # it learns; guessing gives a quarter
    assert front["minimize"] == ["error"] and study.config["mode"] == "search"
    found = study.best or study.nearest
    assert found is not None and found.entry.params <= 4000
    for name in ("report.html", "front.json", "run.yaml", "best/MODEL_CARD.md", "best/recipe.json"):
        assert (study.out / name).is_file(), name


def test_limits_hold_before_anything_is_trained(study):
    space = Statics((1, 8, 8), 300, [Constraint("params", 4000)]).space(Candidate(SPACE, "onnxruntime"))
    for row in study.state.trials:
        over = space.refused(row.filling)
        if over is not None:
            assert row.state == "failed" and row.cost_s == 0 and "params <= 4000" in row.reason
        if row.entry is not None:
            assert (
                over is None and row.features["params"] == row.entry.params and row.features["macs"] == row.entry.macs
            )


def test_the_guess_comes_first(study):
    first = study.state.trials[0].filling
    assert first["build.net.widths[0]"] == 16 and first["train.lr"] == 0.01


def test_stopped_trials_tell_their_scores_and_the_proxy_is_known(study):
    assert any(row.reports for row in study.state.trials)
    assert all("naswot" in row.proxy for row in study.state.trials if row.entry is not None)
    assert sum(row.state == "complete" for row in study.state.trials) >= 1


@pytest.mark.usefixtures("one_baseline")
def test_going_on_repeats_nothing_and_learns_from_an_earlier_study(study, tmp_path):
    again = fw.Study.resume(study.out)
    assert [r.filling for r in again.state.trials] == [r.filling for r in study.state.trials]
    warm = run(
        tmp_path / "warm",
        constraints=[fw.max_params(4000)],
        earlier=[study.out],
        budget=fw.Budget(trials=1, enough=2.0),
    )
    assert warm.state.warm is not None and warm.state.warm["earlier"]
    best = min((r for r in study.state.trials if r.entry is not None), key=lambda r: r.entry.quantities["error"])
    # the best of before is this study's, too, at the price of a look into the store
    assert warm.state.trials[0].filling == best.filling
    with pytest.raises(StoreError, match="other settings"):
        run(tmp_path / "warm")


def test_what_cannot_be_asked_for_is_refused_before_it_runs(tmp_path):
    task = load_task(BARE)
    with pytest.raises(TaskError, match="no model to optimize"):
        configure(task, Settings(budget=fw.Budget(trials=1)))
    with pytest.raises(RecipeError, match="begins with Build"):
        configure(task, Settings(mode="search", recipe=fw.Recipe(fw.Train()), budget=fw.Budget(trials=1)))
    with pytest.raises(InputError, match="asah"):
        run(tmp_path, stopper="asah")
    with pytest.raises(InputError, match="etta"):
        run(tmp_path, stopper="asha(etta=2)")
    with pytest.raises(InputError, match="share"):
        run(tmp_path, proxy="naswot:1.5")
    with pytest.raises(InputError, match="supernet"):
        run(tmp_path, supernet="magic")
    with pytest.raises(InputError, match="widths"):
        run(tmp_path, guesses=[fw.Guess({"build.net.width": 3})])
    with pytest.raises(InputError, match="expects nothing"):
        run(tmp_path, budget=fw.Budget(trials=1, least_gain=0.01))
    with pytest.raises(StoreError, match="learn from"):
        run(tmp_path, earlier=[tmp_path / "nothing"])
    assert not (tmp_path / "study.db").exists()


def test_settings_as_text():
    assert stopper_of("asha(eta=2, min_budget=1)", SPACE) == {"kind": "asha", "eta": 2, "min_budget": 1}
    assert stopper_of(None, SPACE) is None and proxy_of("synflow:0.25", True) == {"kind": "synflow", "keep": 0.25}
    assert proxy_of("synflow", True) == {"kind": "synflow", "keep": 0.5}
    for steps in ((), (fw.Maybe(fw.Qat()),), (fw.Train(epochs=0),)):
        with pytest.raises(InputError, match="training that can pause"):
            stopper_of("asha", fw.Recipe(fw.Build(net=NET), *steps))
    for text in ("asha(eta=x)", "median(every=x)", "asha(type=3)", "asha(eta=[2])"):
        with pytest.raises(InputError, match="cannot be set like this"):
            stopper_of(text, SPACE)
    for step in (fw.Maybe(fw.Distill(epochs=fw.Choice(1, 2))), fw.Choice(fw.Qat(), fw.Train())):
        assert stopper_of("asha", fw.Recipe(fw.Build(net=NET), step)) == {"kind": "asha"}
    with pytest.raises(InputError, match="search of architectures"):
        proxy_of("synflow", False)


def test_the_default_space_suits_the_data_and_knows_its_size():
    task = load_task(BARE)
    config = configure(task, Settings(mode="search", budget=fw.Budget(trials=1), compress=True))
    paths = {h.path for h in fw.Recipe.from_json(config.recipe).space()}
    assert {"build.net.kernel", "train.lr", "train.optimizer", "quantize.scheme"} <= paths
    assert fw.Recipe.from_json(config.baseline).is_filled
    # trainings of one length, so that looks compare them
    stopped = configure(task, Settings(mode="search", budget=fw.Budget(trials=1), stopper="asha"))
    assert "train.epochs" not in paths
    assert first_epochs(fw.Recipe.from_json(stopped.recipe)) == 3 * first_epochs(fw.Recipe.from_json(config.recipe))
    assert stopped.baseline == config.baseline
    assert forecast(task, config)["trial_s"] > 0
    space = Statics(sample_shape(task.example()), 300, []).space(
        Candidate(fw.Recipe.from_json(config.recipe), "onnxruntime")
    )
    filling = space.sample(generator(0))
    assert space.refused(filling) is None and space.features(filling)["work"] > 0


def test_a_sieve_lets_its_share_of_random_nets_pass():
    task = load_task(BARE)
    space = Statics((1, 8, 8), 300, []).space(Candidate(SPACE, "onnxruntime"))
    sieve = ProxyFilter(task, "grad_norm", keep=0.5, seed=0)
    rng = generator(1)
    verdicts = [sieve.refuses(space.fill(space.sample(rng)), space) for _ in range(40)]
    assert 8 <= sum(v is None for v in verdicts) <= 32  # 8 nets in all, so a score comes often
    assert all("grad_norm" in v for v in verdicts if v is not None)


def test_a_sieve_refuses_what_its_proxy_cannot_score_and_objects_when_that_is_all():
    class Picky:
        def __init__(self, most):
            self.most = most

        def score(self, module, inputs, targets, loss_fn):
            if sum(p.numel() for p in module.parameters()) > self.most:
                raise InputError("the sums overflow")
            return 1.0

    space = Statics((1, 8, 8), 300, []).space(Candidate(SPACE, "onnxruntime"))
    fillings = [space.sample(generator(i)) for i in range(30)]
    sizes = sorted({space.features(f)["params"] for f in fillings})
    for most, verdicts in ((sizes[0], {True, False}), (0, None)):
        sieve = ProxyFilter(load_task(BARE), "grad_norm", keep=0.5, seed=0)
        sieve._proxy = Picky(most)
        if verdicts is None:
            with pytest.raises(InputError, match="no net of this space"):
                sieve.refuses(space.fill(fillings[0]), space)
        else:
            why = [sieve.refuses(space.fill(f), space) for f in fillings]
            assert {w is None for w in why} == verdicts and all("sums overflow" in w for w in why if w)
            assert sieve.score(space.fill(fillings[0]).recipe.steps[0].net) in (1.0, float("-inf"))


def test_run_yaml_repeats_the_search(study):
    config = read_config(study.out / "run.yaml")
    assert config == study.state.config == Config.from_json(config.to_json())
    asked = config.settings()
    assert asked.mode == "search" and asked.stopper == {"kind": "asha", "eta": 2} and asked.proxy == "naswot:0.5"
    assert json.loads(json.dumps(asked.guesses[0].values)) == {"build.net.widths[0]": 16, "train.lr": 0.01}
