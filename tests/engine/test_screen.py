"""Limits before training: what is told of an untrained twin, and which candidates have one."""

import pytest

import featherweight as fw
from featherweight.engine.jobs import run
from featherweight.engine.messages import RelaxJob, TrialJob
from featherweight.engine.runner import Runner
from featherweight.engine.screen import OverLimits, screen, twin
from featherweight.errors import FeatherweightError, InputError
from featherweight.measure.ops import params
from featherweight.nets.conv_net import ConvNet
from featherweight.recipe import Recipe
from featherweight.store.artifacts import ArtifactStore
from featherweight.targets.base import Target
from featherweight.task.task import Task
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
        TRAINED + fw.Factorize(),
    ):
        assert twin(none) is None, none


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
    assert over.value.violation == pytest.approx(1.0) and over.value.over == {"params": {"value": n, "bound": n / 2, "unit": ""}}
    assert not [e for e in heard if "epoch" in e] and (runner.steps, runner.reused) == (0, 0)
    check(runner, fw.max_params(1), recipe=Recipe(Build(NET)))  # nothing is trained, so nothing is saved


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
