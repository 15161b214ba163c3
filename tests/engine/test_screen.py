"""Limits before training: what is told of an untrained twin, and which candidates have one."""

from dataclasses import dataclass
from typing import Any

import pytest

import featherweight as fw
from featherweight.engine.jobs import run
from featherweight.engine.messages import RelaxJob, TrialJob
from featherweight.engine.runner import Runner
from featherweight.engine.screen import OverLimits, screen, twin, unchecked
from featherweight.errors import FeatherweightError, InputError
from featherweight.measure.ops import params
from featherweight.nets.conv_net import ConvNet
from featherweight.recipe import Recipe, Shape, Transform
from featherweight.store.artifacts import ArtifactStore
from featherweight.targets.base import Target
from featherweight.task.task import Task
from featherweight.transforms.base import Trained
from featherweight.transforms.build import Build
from featherweight.transforms.train import Train
from tests import toy
from tests.waiting import GENEROUS_S

NET = ConvNet(in_channels=1, classes=4, stem=8, depths=(1,), widths=(8,))
TRAINED = Recipe(Build(NET), Train(epochs=3, lr=0.1, batch_size=32))


def without_model(loss="cross_entropy"):
    return Task(name="bare", model=None, data=toy.task().data, loss=loss)


def test_the_twin_is_the_recipe_untrained_and_one_for_all_ways_to_train():
    assert [s.kind for s in twin(TRAINED).steps] == ["build", "train"] and twin(TRAINED).steps[1].epochs == 0
    assert twin(TRAINED) == twin(Recipe(Build(NET), Train(epochs=9, optimizer="sgd")))
    assert twin(TRAINED + fw.Quantize()).steps[-1] == fw.Quantize()
    assert twin(TRAINED + fw.Prune(ratio=0.5, allocation="uniform")) is not None
    for none in (
        Recipe(),
        Recipe(Build(NET)),
        Recipe(fw.Prune(ratio=0.5), Train()),
        TRAINED + fw.Prune(ratio=0.5, allocation="global"),
        TRAINED + fw.Factorize(rank_by="energy"),
        TRAINED + fw.MixedPrecision(),
        TRAINED + fw.Gate(fw.Prune(granularity="weight")),
        TRAINED + NewStep(),
    ):
        assert twin(none) is None, none


@dataclass(frozen=True)
class NewStep(Transform):
    """Of a plug-in; it says nothing."""


@dataclass(frozen=True)
class Turn(Transform):
    """Of a plug-in; it says that the structure stays."""

    shape = Shape.KEEPS
    inner: Any = None


@dataclass(frozen=True)
class Slow(Trained):
    """A training of a plug-in."""

    pace: float = 0.5


def test_a_step_is_untrained_by_what_it_says_of_itself():
    steps = twin(Recipe(Build(NET), Slow(epochs=9, lr=0.5, pace=0.1), Turn(), fw.Train())).steps
    assert steps[1] == Slow(epochs=0, pace=0.1) and steps[2] == Turn() and steps[3].epochs == 0
    assert twin(Recipe(Build(NET), Slow(), fw.Prune(granularity="weight"))).steps[-1] == fw.Prune(granularity="weight")
    cut = fw.Prune(ratio=0.5, allocation="uniform", steps=3, recover=Recipe(Train(epochs=5), Slow(epochs=5)))
    assert [s.epochs for s in twin(TRAINED + cut).steps[-1].recover.steps] == [0, 0]
    assert twin(TRAINED + Turn(inner=(Slow(epochs=5), 3))).steps[-1].inner == (Slow(epochs=0), 3)
    teacher = Recipe(Build(NET), Train(epochs=7))
    assert twin(Recipe(Build(NET), fw.Distill(epochs=2, teacher=teacher))).steps[-1] == fw.Distill(
        epochs=0, lr=1e-3, teacher=teacher
    )


@pytest.mark.parametrize(
    "step",
    [
        fw.Prune(ratio=0.5, allocation="uniform", round_to=2, criterion="taylor"),
        fw.Prune(ratio=0.75, allocation="uniform", round_to=1, steps=2, recover=Train(epochs=1)),
        fw.Factorize(ratio=0.4, round_to=1),
        fw.Factorize(ratio=0.4, round_to=1, form="activation", convolutions="none"),
        fw.Quantize(scheme="weight-only", equalize="none", rounding="gptq"),
    ],
    ids=str,
)
def test_the_twin_has_the_trained_ones_structure(tmp_path, step):
    net = ConvNet(in_channels=1, classes=4, stem=8, depths=(2,), widths=(16,))
    recipe = Recipe(Build(net), Train(epochs=2, lr=0.1), step)
    runner = Runner(without_model(), ArtifactStore(tmp_path), 0)
    trained, untrained = runner.model(recipe)[0], runner.model(twin(recipe))[0]
    assert {n: p.shape for n, p in trained.module.named_parameters()} == {
        n: p.shape for n, p in untrained.module.named_parameters()
    }
    assert params(trained.module) != params(net.build(0)) or step.shape is Shape.KEEPS


def test_limits_that_cannot_be_checked_are_named_with_the_step_and_the_reason():
    limits = ("params", "drop", "latency")
    for none in (
        TRAINED,
        TRAINED + fw.Quantize(),
        TRAINED + fw.Prune(allocation="uniform"),
        Recipe(fw.Prune()),
        Recipe(),
        TRAINED + Slow(),
    ):
        assert unchecked(none, limits) == {}
    assert unchecked(TRAINED + fw.Prune(), ("drop",)) == {}
    cut = unchecked(TRAINED + fw.Prune(), limits)
    assert list(cut) == ["prune"] and cut["prune"].startswith(
        "latency, params cannot be checked before training where prune is used so: "
    )
    assert cut["prune"].endswith("the structure that it leaves follows from the trained weights")
    assert (
        "it does not say what it does to the structure"
        in unchecked(TRAINED + NewStep() + fw.Train(), limits)["new_step"]
    )
    mixed = unchecked(TRAINED + fw.MixedPrecision(), limits)["mixed_precision"]
    assert mixed.startswith("latency cannot be checked") and "the number formats that it leaves follow" in mixed
    both = unchecked(TRAINED + fw.Prune() + fw.MixedPrecision(), limits)
    assert both["prune"].startswith("latency, params cannot") and both["mixed_precision"].startswith("latency cannot")
    # the twin would have been counted
    even = unchecked(TRAINED + fw.Prune(allocation="uniform") + fw.MixedPrecision(), limits)
    assert list(even) == ["mixed_precision"] and even["mixed_precision"].startswith("latency, params cannot")


def check(runner, *limits, recipe=TRAINED):
    plain = {"trial": None, "filling": {}, "reference": None, "keep": "", "label": "", "target": "onnxruntime"}
    job = TrialJob(**plain, recipe=recipe.to_json(), screen=limits, seconds=0.2, timeout_s=GENEROUS_S)
    screen(runner, job, recipe, Target.parse("onnxruntime"))


def test_what_is_too_large_is_refused_untrained_with_its_excess(tmp_path):
    heard = []
    runner = Runner(without_model(), ArtifactStore(tmp_path), 0, report=heard.append)
    n = params(NET.build(0))
    check(runner, fw.max_params(n), fw.max_params(n / 1.09))  # over by less than a tenth
    with pytest.raises(OverLimits, match="over the limits before training: params") as over:
        check(runner, fw.max_params(n / 2), fw.max_macs(1e12))
    assert over.value.violation == pytest.approx(1.0) and over.value.over == {
        "params": {"value": n, "bound": n / 2, "unit": ""}
    }
    assert not [e for e in heard if "epoch" in e] and (runner.steps, runner.reused) == (0, 0)
    # nothing is trained, so nothing is saved
    check(runner, fw.max_params(1), recipe=Recipe(Build(NET)))


def test_memory_is_measured(tmp_path):
    runner = Runner(without_model(), ArtifactStore(tmp_path), 0)
    check(runner, fw.max_memory("64GB"))
    with pytest.raises(OverLimits, match=r"memory \S+ bytes \(allowed 1e\+06 bytes\)"):
        check(runner, fw.max_memory("1MB"))


def test_a_task_without_a_model_is_built_for_and_trained(tmp_path):
    fixed = Recipe(Build(ConvNet(in_channels=1, classes=4, stem=4, depths=(1,), widths=(4,))), Train(epochs=1))
    runner = Runner(without_model(), ArtifactStore(tmp_path), 0, baseline=fixed)
    baseline, _ = runner.model(Recipe())
    candidate, _ = runner.model(TRAINED)
    assert params(baseline.module) < params(candidate.module)
    assert runner.full(Recipe()) == fixed and runner.full(TRAINED) == TRAINED
    with pytest.raises(FeatherweightError, match="no model"):
        Runner(without_model(), ArtifactStore(tmp_path), 0).model(Recipe())


@pytest.mark.parametrize(
    ("loss", "classes", "match"),
    [
        ("cross_entropy", 3, "no output for every class"),
        (lambda out, y: out[:, 5].mean(), 4, "loss does not take"),
        (lambda out, y: out, 4, "one number"),
    ],
)
def test_outputs_that_the_loss_cannot_take_are_refused(tmp_path, loss, classes, match):
    net = ConvNet(in_channels=1, classes=classes, stem=8, depths=(1,), widths=(8,))
    with pytest.raises(InputError, match=match):
        Runner(without_model(loss), ArtifactStore(tmp_path), 0).model(Recipe(Build(net)))


def test_a_supernet_job_ranks_fillings_of_the_space(tmp_path):
    net = ConvNet(in_channels=1, classes=4, stem=8, depths=(1,), widths=(fw.Choice(4, 8),))
    recipe = Recipe(Build(net), Train(epochs=1))
    settings = {"method": "oneshot", "epochs": 1, "pool": 4, "top": 2, "prefix": "build.net"}
    job = RelaxJob(net=recipe.to_json()["recipe"][0]["build"]["net"], settings=settings, seed=0)
    got = run(Runner(without_model(), ArtifactStore(tmp_path), 0), job.to_json())["relaxed"]
    assert got["ranked"] and all(set(f) == {h.path for h in recipe.space()} for f in got["ranked"])
