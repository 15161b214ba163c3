"""A default recipe has no filling that must fail, whatever kind of model the task has."""

import dataclasses

import numpy as np
import pytest

from featherweight import recipes
from featherweight.engine.runner import Runner
from featherweight.recipe import Recipe
from featherweight.store.artifacts import ArtifactStore
from featherweight.targets.base import Target
from tests import kinds


def fillings(space, n):
    """Up to n different ones, in an order that is the same each time."""
    rng, found = np.random.default_rng(1), {}
    for _ in range(20 * n):
        filling = space.sample(rng)
        found.setdefault(repr(filling), filling)
        if len(found) == n:
            break
    return list(found.values())


def failures(kind, n, folder, recipe=None):
    """{filling: why it failed} of n fillings of the recipe (the kind's default one), with one epoch
    each."""
    task, wrong = kinds.task(kind), {}
    recipe = recipe or recipes.default(task)
    steps = [dataclasses.replace(s, epochs=1) if hasattr(s, "epochs") else s for s in recipe.steps]
    recipe, runner = Recipe(*steps), Runner(task, ArtifactStore(folder), 0)
    for filling in fillings(recipe.space(), n):
        try:
            runner.artifact(recipe.fill(filling), Target("onnxruntime"))
        except Exception as e:
            wrong[repr(filling)] = f"{type(e).__name__}: {e}"
    return wrong


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_no_filling_fails(kind, tmp_path):
    assert failures(kind, 4, tmp_path) == {}


def test_a_recipe_that_does_not_fit_is_noticed(tmp_path):
    assert failures("mlp", 4, tmp_path, recipes.encoder())  # it has no blocks to drop


@pytest.mark.parametrize("kind", ["residual", "lstm", "two layers of attention", "numbers"])
def test_no_quantization_fails(kind, tmp_path):
    assert failures(kind, 6, tmp_path, recipes.ptq()) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_no_filling_of_many_fails(kind, tmp_path):
    assert failures(kind, 40, tmp_path) == {}
