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
    import numpy as np

    for recipe in (recipes.cnn(), recipes.encoder(), recipes.cnn((1,), lr=1e-3)):
        rng = np.random.default_rng(0)
        for _ in range(50):
            recipe.fill(recipe.space().sample(rng))
        assert fw.Recipe.from_json(recipe.to_json()) == recipe
