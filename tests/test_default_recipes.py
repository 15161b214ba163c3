"""A default recipe has no filling that must fail, whatever kind of model the task has."""

import dataclasses

import numpy as np
import pytest
from torch import nn

import featherweight as fw
from featherweight import recipes
from featherweight.engine.runner import Runner
from featherweight.recipe import Recipe
from featherweight.space import Choice, Maybe
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


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_tables_of_4_bits_run_with_every_arithmetic(runtime, tmp_path):
    task = kinds.task("two layers of attention")
    recipe, target = recipes.default(task), Target(runtime)
    step = next(s.item for s in recipe.steps if isinstance(s, Maybe))
    assert step.embeddings == Choice(4, 8)
    runner = Runner(task, ArtifactStore(tmp_path), 0)
    size = {}
    for scheme in step.scheme.items:
        for bits in step.embeddings.items:
            folder = runner.artifact(Recipe(dataclasses.replace(step, scheme=scheme, embeddings=bits)), target)
            size[scheme, bits] = sum(p.stat().st_size for p in folder.iterdir())
        assert size[scheme, 4] < size[scheme, 8]


def test_tables_that_4_bits_do_not_fit_stay_as_they_are():
    from torch import nn

    from featherweight.recipes.abilities import _small_tables

    tied = nn.ModuleDict({"table": nn.Embedding(10, 8), "out": nn.Linear(8, 10, bias=False)})
    assert _small_tables(tied)
    tied["out"].weight = tied["table"].weight
    assert not _small_tables(tied)
    assert not _small_tables(nn.Sequential(nn.Embedding(10, 7))) and not _small_tables(nn.Linear(3, 3))


def test_recurrent_nets_are_cut_distilled_and_quantized_by_each_input():
    from torch import nn

    from featherweight.task.accept import task_of

    class Net(nn.Module):
        def __init__(self, convolutional):
            super().__init__()
            self.before = nn.Conv1d(4, 16, 3, padding=1) if convolutional else None
            self.cells, self.head = nn.LSTM(16 if convolutional else 4, 24, batch_first=True), nn.Linear(24, 1)

        def forward(self, x):
            x = x if self.before is None else self.before(x).relu()
            return self.head(self.cells(x.transpose(1, 2))[0][:, -1])

    x = np.random.default_rng(0).normal(size=(80, 4, 12)).astype(np.float32)
    for convolutional in (False, True):
        task = task_of(Net(convolutional), (x, x[:, 0].mean(1, keepdims=True)))
        kinds_, space = [getattr(s, "kind", "") for s in recipes.default(task).steps], recipes.default(task).space()
        assert kinds_[:2] == ["prune", "distill"]
        scheme = next(h.domain for h in space if h.path.endswith("quantize.scheme"))
        assert {"int8-dynamic", "weight-only"} <= set(scheme.options(100))


@pytest.mark.parametrize(
    ("samples", "epochs", "recovery"), [(20_000, 12, 3), (300, 10, 6), (150, 5, 5), (2_000, 16, 4), (900, 3, 2)]
)
def test_a_recovery_has_some_steps(samples, epochs, recovery):
    """Nine steps at the learning rate of the training took a good net from an R^2 of 0.90 to 0.67
    with nothing cut; thirty left it at 0.88."""
    rng = np.random.default_rng(0)
    data = fw.ArraySplit({"x": rng.normal(size=(samples, 4)).astype(np.float32)}, np.arange(samples) % 3)
    parts = fw.Splits(data, data, data)
    train = fw.Train(epochs=epochs, batch_size=64, lr=1e-2)
    task = fw.Task(
        name="t",
        model=lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)),
        data=lambda: parts,
        baseline=Recipe(train),
    )
    (distill,) = (s for s in recipes.default(task).steps if getattr(s, "kind", "") == "distill")
    assert (distill.epochs, distill.lr) == (recovery, 1e-2)
