import numpy as np

import featherweight as fw
from featherweight import recipes
from tests import toy


def test_the_default_recipe_fits_the_model_and_its_training():
    space = {h.path: h.domain for h in recipes.default(toy.task(epochs=12)).space()}
    assert "prune.criterion" in space and space["distill.epochs"].options(None) == [3, 6, 12]
    assert [s.lr for s in recipes.default(toy.task(epochs=12)).steps if hasattr(s, "lr")] == [3e-3]
    ready = toy.task(n=6400)
    ready.baseline = None
    assert {h.path: h.domain for h in recipes.default(ready).space()}["distill.epochs"].options(None) == [8, 17, 33]


def test_every_default_recipe_can_be_filled_legally_and_survives_a_round_trip():
    for recipe in (recipes.cnn(), recipes.encoder(), recipes.cnn((1,), lr=1e-3)):
        rng = np.random.default_rng(0)
        for _ in range(50):
            recipe.fill(recipe.space().sample(rng))
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
