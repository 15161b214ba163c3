"""A step that fills zeros which its package still claims is a failed step, wherever it stands;
nothing of it is stored."""

import copy
from dataclasses import dataclass

import pytest
import torch

import featherweight as fw
from featherweight.engine.runner import Runner
from featherweight.errors import FeatherweightError
from featherweight.models.zeros import holding
from featherweight.recipe import Recipe, Transform
from featherweight.space import param
from featherweight.store.artifacts import ArtifactStore
from tests import toy

SPARSE = fw.Prune(granularity="weight", ratio=0.5)


@dataclass(frozen=True)
class Noise(Transform):
    """As a plug-in may have it: the zeros are gone, and it says so (`honest`) or does not."""

    honest: bool = param(False, doc="claim them no more")
    in_place: bool = param(False, doc="on the model that it was given")

    def apply(self, model, context):
        module = model.module if self.in_place else copy.deepcopy(model.module)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.01)
        claims = holding(module, model.sparse) if self.honest else model.sparse
        return model.edited(module=module, sparse=claims).noted(step=self.kind)


def runner(folder):
    return Runner(toy.task(epochs=1), ArtifactStore(folder), 0)


@pytest.mark.parametrize("step", [Noise(), Noise(in_place=True)], ids=str)
@pytest.mark.parametrize(
    "recipe",
    [
        lambda step: Recipe(SPARSE, step),
        lambda step: Recipe(SPARSE, fw.Train(epochs=1), step, fw.Train(epochs=1)),
        lambda step: Recipe(SPARSE, fw.Gate(step, knob="honest", values=(False,), max_drop=1.0)),
        lambda step: Recipe(fw.Prune(granularity="weight", steps=2, recover=step)),
    ],
    ids=["last", "between", "in a gate", "as recovery"],
)
def test_a_step_that_fills_zeros_fails_by_its_name(tmp_path, recipe, step):
    made = runner(tmp_path)
    full = recipe(step)
    with pytest.raises(FeatherweightError, match="noise gives a model that claims zeros which are not there") as e:
        made.model(full)
    assert (
        "zeros are zero no more" in e.value.got and "Package.sparse" in e.value.allowed and "Noise.apply" in e.value.fix
    )
    assert made.store.get(made.keys(full)[-1]) is None


def test_a_step_that_claims_them_no_more_goes_on(tmp_path):
    made = runner(tmp_path)
    assert made.model(Recipe(SPARSE))[0].sparse
    assert made.model(Recipe(SPARSE, Noise(honest=True)))[0].sparse == ()
    assert made.model(Recipe(Noise()))[0].sparse == ()  # of a dense model it claims nothing


def test_zeros_of_the_builtin_steps_are_there_after_a_run(tmp_path):
    package, _ = runner(tmp_path).model(
        Recipe(SPARSE, fw.Prune(ratio=0.25, round_to=4), fw.Train(epochs=1), fw.DropBlocks(drop=1))
    )
    assert package.sparse and holding(package.module, package.sparse) == package.sparse
