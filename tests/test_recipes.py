import math

import numpy as np

import featherweight as fw
from featherweight import recipes
from featherweight.recipes.pace import Pace
from tests import toy


def least_epochs(task):
    """In which there are 30 steps."""
    return math.ceil(30 / math.ceil(len(task.splits().train) / task.baseline.steps[0].batch_size))


def test_the_default_recipe_fits_the_model_and_its_training():
    recipe = recipes.default(toy.task(n=1600, epochs=12))
    assert "prune.criterion" in {h.path for h in recipe.space()}
    assert [(s.epochs, s.lr) for s in recipe.steps if hasattr(s, "lr")] == [(3, 3e-3)]  # a quarter of the baseline's
    few = toy.task(epochs=12)  # whose epochs are of few steps
    assert [s.epochs for s in recipes.default(few).steps if hasattr(s, "lr")] == [least_epochs(few)]
    ready = toy.task(n=6400)
    ready.baseline = None
    assert [s.epochs for s in recipes.default(ready).steps if hasattr(s, "epochs")] == [8]  # about 500 steps


def test_recovery_fits_the_minutes_and_is_left_out_where_none_does(monkeypatch):
    task = toy.task(epochs=12)
    n = len(task.splits().train)

    def epochs(minutes, seconds_an_epoch):
        monkeypatch.setattr(recipes, "pace", lambda *_: Pace(seconds_an_epoch / n, 0.0, 64))
        return [getattr(s, "epochs", None) for s in recipes.default(task, minutes).steps]

    whole = least_epochs(task)
    assert whole > 3 and whole in epochs(10, 1.0)  # 20 trials of 12 seconds' training: all of it
    assert 1 in epochs(1, 1.0) and whole not in epochs(1, 1.0)
    assert epochs(1, 60.0) == [None]  # a choice of quantizations
    assert recipes.default(task, 1) == recipes.ptq()


def test_criteria_see_a_fifth_of_what_a_recovery_sees_at_most():
    def batches(task):
        return next(s.batches for s in recipes.default(task).steps if isinstance(s, fw.Prune))

    small, large = toy.task(n=400, epochs=8), toy.task(n=6400, epochs=8)  # two epochs of recovery
    assert batches(small) == round(0.2 * 2 * len(small.splits().train) / 64) < 3
    assert batches(large) == 8


def test_every_default_recipe_can_be_filled_legally_and_survives_a_round_trip():
    for recipe in (recipes.cnn(), recipes.encoder(), recipes.mlp(), recipes.ptq(), recipes.cnn((1, 2), lr=1e-3)):
        rng = np.random.default_rng(0)
        for _ in range(50):
            for step in recipe.fill(recipe.space().sample(rng)).steps:
                assert not hasattr(step, "plan") or step.plan()  # its fields go together
        assert fw.Recipe.from_json(recipe.to_json()) == recipe


def test_a_candidate_in_one_line_names_its_net():
    net = fw.ConvNet(1, 4, 8, depths=(1,), widths=(fw.Int(8, 32, step=8),), block=fw.Choice("plain", "residual"))
    recipe = fw.Recipe(fw.Build(net=net), fw.Train(epochs=2, lr=fw.Choice(1e-2, 1e-1)), fw.Maybe(fw.Quantize()))
    filling = {"build.net.widths[0]": 16, "build.net.block": "plain", "train.lr": 0.01, "quantize": False}
    assert recipes.one_line(recipe.fill(filling), filling) == "build(widths[0]=16, block=plain) > train(lr=0.01)"
    long = {"train.lr": 0.01802992325759265, "train.weight_decay": 1.2345678901e-05}
    free = fw.Recipe(fw.Train(lr=fw.Float(1e-3, 1e-1), weight_decay=fw.Float(0.0, 1.0)))
    assert recipes.one_line(free.fill(long), long) == "train(lr=0.01803, weight_decay=1.235e-05)"
    prune = fw.Recipe(fw.Prune(ratio=fw.Choice(0.25, 0.5)))
    assert recipes.one_line(prune.fill({"prune.ratio": 0.5}), {"prune.ratio": 0.5}) == "prune(ratio=0.5)"
