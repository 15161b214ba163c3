import pytest
import torch

from featherweight.engine.runner import Runner
from featherweight.errors import InputError, RecipeError
from featherweight.measure.accuracy import evaluate, metric
from featherweight.models.package import Package
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.mlp import Mlp
from featherweight.recipe import Recipe
from featherweight.space import Choice
from featherweight.store.artifacts import ArtifactStore
from featherweight.testing import check_transform
from featherweight.train.loop import predict
from featherweight.transforms.build import Build
from featherweight.transforms.distill import Distill
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.train import Train
from tests import toy

NET = ConvNet(in_channels=1, classes=4, stem=8, depths=(1, 1), widths=(8, 16))


@pytest.mark.parametrize("net", [NET, Mlp(features=64, classes=4, hidden=(16,))])
def test_conformance(net):
    check_transform(Build(net), toy.task())


def test_a_new_model_whatever_came_before():
    t = toy.task()
    package = Build(NET).apply(Package(t.build(), edits=({"edit": "x"},), sparse=("y",)), toy.context(t, seed=5))
    assert (
        package.edits == ()
        and package.sparse == ()
        and package.net == {"conv_net": {**package.net["conv_net"], "widths": [8, 16]}}
    )
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(package.module(x), NET.build(5)(x))
        assert not torch.equal(
            package.module(x), Build(NET).apply(Package(t.build()), toy.context(t, seed=6)).module(x)
        )


@pytest.mark.parametrize(
    "net, message",
    [
        (None, "description of an architecture"),
        (Recipe(), "description of an architecture"),
        (ConvNet(in_channels=3, classes=4), "does not take this task's inputs"),
        (Mlp(features=63, classes=4), "does not take this task's inputs"),
        (ConvNet(in_channels=1, classes=5), "another shape"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(net, message):
    t = toy.task()
    with pytest.raises(InputError, match=message):
        Build(net).apply(Package(t.build()), toy.context(t))


def test_it_is_the_first_step():
    with pytest.raises(RecipeError, match="as the first step"):
        Recipe(Train(), Build(NET)).check()
    space = Recipe(Build(Choice(NET, Mlp(features=64, classes=4))), Train())
    assert space.fill({"build.net": "mlp"}).steps[0].net.kind == "mlp"


def test_a_student_learns_from_the_baseline_end_to_end(tmp_path):
    t = toy.task(epochs=3)
    runner = Runner(t, ArtifactStore(tmp_path / "store"), seed=0)
    recipe = Recipe(Build(NET), Distill(epochs=6, lr=1e-2, batch_size=16, alpha=1.0))
    assert runner.full(recipe) == recipe  # the baseline's training is not put before it
    package, key = runner.model(recipe)
    assert [n["step"] for n in package.notes] == ["build", "distill"]
    baseline, _ = runner.model(Recipe())
    valid, targets = t.splits().valid, runner.targets("valid")

    def accuracy(module):
        return evaluate(metric(t.metric), predict(module, valid), targets, seed=0).value

    assert accuracy(package.module) >= accuracy(baseline.module) - 0.1 and accuracy(package.module) > 0.8
    assert sum(p.numel() for p in package.module.parameters()) < 0.5 * sum(
        p.numel() for p in baseline.module.parameters()
    )
    # from the store: built from its description
    again, second = Runner(t, ArtifactStore(tmp_path / "store"), seed=0).model(recipe)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert second == key and again.net == package.net and torch.equal(again.module(x), package.module(x))
    slim, _ = runner.model(recipe + Factorize(ratio=0.3, round_to=2))
    slim.save(tmp_path, t.build)
    with torch.no_grad():
        assert slim.edits and torch.equal(Package.load(tmp_path, t.build).module(x), slim.module(x))
