"""Layers whose weights are computed or frozen, or that the model never calls, in every transform
that writes weights."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.computed import WHY, computed, settle
from featherweight.models.coupling import couple
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.transforms.base import applied
from featherweight.transforms.cut_randomly import CutRandomly
from featherweight.transforms.distill import Distill
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.mixed_precision import MixedPrecision
from featherweight.transforms.prune import Prune
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import odd_nets, odd_ways, toy

NORMS = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "old weight norm": nn.utils.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
}
WRITE = {
    "prune": Prune(granularity="weight", ratio=0.5, batches=1),
    "sparsegpt": Prune(granularity="weight", criterion="obs", update=True, batches=1),
    "gptq": Quantize(rounding="gptq", samples=64),
    "bias": Quantize(correct_bias=True, samples=64),
    "qat": Qat(epochs=1, samples=64),
    "mixed": MixedPrecision(samples=64),
    "factorize": Factorize(),
}
IGNORED = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of the old norms


def seeded(build):
    def made():
        torch.manual_seed(0)
        return build()

    return made


def run(step, build, before=()):
    """(the package that the step makes, the task)."""
    t = toy.task(seeded(build), n=96)
    package = Package(t.build().eval())
    context = toy.context(t, teacher=np.zeros((len(t.splits().train), 4), "float32"), model=package)
    for s in (*before, step):
        package = applied(s, package, context)
    return package, t


@IGNORED
@pytest.mark.parametrize("step", WRITE)
@pytest.mark.parametrize("norm", NORMS)
def test_computed_weights_are_left_whole_by_name_or_handled(norm, step, tmp_path):
    def build():
        return odd_nets.Computed(NORMS[norm])

    package, t = run(WRITE[step], build)
    note = package.notes[-1]
    named = note.get("whole", {}) | note.get("left", {})
    if step != "mixed":
        assert named.keys() >= {"b", "c"} and all("weight" in named[p] for p in "bc")
    assert all(bool((package.module.get_parameter(name) == 0).any()) for name in package.sparse)
    assert "zeros" not in note or note["zeros"].keys() == {"a"}
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    package.save(tmp_path, t.build)
    with torch.no_grad():
        assert torch.equal(Package.load(tmp_path, t.build).module(x), package.module(x))
        if step in ("prune", "sparsegpt", "factorize"):
            fresh = t.build().eval()
            fresh(x)
            assert torch.equal(package.module.b.weight, fresh.b.weight)
    if package.plan is not None:
        (tmp_path / "out").mkdir()
        target = Target.parse("onnxruntime")
        target.load_runtime().export(package, {"image": x[:1]}, {"image": x}, target, tmp_path / "out")


@IGNORED
@pytest.mark.parametrize("norm", NORMS)
def test_a_trained_norm_can_be_worked_on(norm):
    package, _ = run(Prune(granularity="weight", batches=1), lambda: odd_nets.Computed(NORMS[norm]), [Train(epochs=1)])
    assert package.notes[-1]["whole"] == {"b": WHY, "c": WHY}


@IGNORED
@pytest.mark.parametrize("norm", NORMS)
def test_settling_keeps_the_values_and_no_copy_feels_it(norm):
    torch.manual_seed(0)
    net = odd_nets.Computed(NORMS[norm]).eval()
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        net(x)
        small, want = copy.deepcopy(net), net(x)
        for path in "bc":
            assert computed(small.get_submodule(path))
            settle(small.get_submodule(path))
            assert not computed(small.get_submodule(path)) and computed(net.get_submodule(path))
        torch.testing.assert_close(small(x), want)
        assert torch.equal(net(x), want) and type(small.b) is nn.Conv2d
        small.b.weight.zero_()
        assert not torch.allclose(small(x), want)


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_frozen_layers_are_cut_alike_reload_and_stay_frozen(criterion, tmp_path):
    step = Prune(ratio=0.4, criterion=criterion, round_to=1, batches=1)
    package, t = run(step, odd_nets.Frozen)
    free, _ = run(step, lambda: odd_nets.Frozen(False))
    assert package.notes[-1] == free.notes[-1] and package.module.a.out_channels < 16
    package.save(tmp_path, t.build)
    loaded = Package.load(tmp_path, t.build)
    want = {"out.weight", "out.bias"}
    assert {n for n, p in loaded.module.named_parameters() if p.requires_grad} == want
    trained = Train(epochs=1).apply(loaded, toy.context(t)).module
    before = dict(package.module.named_parameters())
    assert {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])} == want


def test_factors_of_a_frozen_layer_are_frozen():
    package, _ = run(Factorize(ratio=0.6, round_to=1), odd_nets.Frozen)
    assert any(isinstance(m, nn.Sequential) for m in package.module.children()), "a test that cannot fail"
    assert {n for n, p in package.module.named_parameters() if p.requires_grad} == {"out.weight", "out.bias"}


def test_a_model_that_is_all_frozen_says_so():
    with pytest.raises(InputError, match="nothing to train"):
        run(Train(epochs=1), lambda: odd_nets.Frozen().requires_grad_(False))


def test_features_are_taken_from_layers_that_the_model_calls():
    """nn.MultiheadAttention reads the weight of its output projection and never calls it."""
    package, _ = run(Distill(epochs=1, features=1.0), odd_nets.ClassToken)
    layers = [ours for ours, _ in package.notes[-1]["layers"]]
    assert layers and "att.out_proj" not in layers


@pytest.mark.parametrize(
    "kind", [k for k in odd_nets.KINDS if k not in ("imagined", "packed gate", "aside", "ends dict", "computed")]
)
def test_every_odd_net_is_pruned(kind):
    """Nothing is refused, and what is left whole has its reason."""
    package, _ = run(Prune(ratio=0.3, allocation="uniform", round_to=1, batches=1), odd_nets.KINDS[kind])
    note = package.notes[-1]
    assert note["widths"] and all(now < was for was, now in note["widths"].values() if was > 2)
    assert package.module(torch.zeros(2, 1, 8, 8)).shape == (2, 4) and all(note["whole"].values())


@pytest.mark.parametrize("step", [Prune(ratio=0.3, round_to=1, batches=1), CutRandomly(proposals=20, tolerance=9.0)])
def test_a_cut_that_is_not_exact_is_not_made(step, monkeypatch):
    """A group that passed on trial, and is wrong for the units that are to go, is left whole."""

    def lied(*args):
        coupling = couple(*args)
        first = coupling.groups[0]
        moved = [replace(m, position=m.position[1:] + m.position[:1]) if m.axis else m for m in first.members]
        return replace(coupling, groups=(replace(first, members=tuple(moved)), *coupling.groups[1:]))

    monkeypatch.setattr("featherweight.transforms.prune.cut.couple", lied)
    monkeypatch.setattr("featherweight.transforms.cut_randomly.cuts.couple", lied)
    package, _ = run(step, odd_nets.KINDS["channels last"])
    assert package.module.a.out_channels == 12 and "silencing" in package.notes[-1]["whole"]["a"]
    assert package.notes[-1]["widths"]["a"] == [12, 12] and package.module.mix.out_features < 20


@pytest.mark.parametrize("kind", ["Keeping", "Scripted", "Helped"])
def test_odd_ways_are_cut_trained_and_cut_again(kind):
    inputs = {"x": np.random.default_rng(0).normal(size=(96, 8)).astype("float32")}
    t = Task(
        name="odd",
        model=seeded(getattr(odd_ways, kind)),
        data=lambda: split(ArraySplit(inputs, np.arange(96) % 3)),
    )
    package = Package(t.build().eval())
    context = toy.context(t, model=package)
    prune = Prune(ratio=0.3, allocation="uniform", round_to=1, batches=1)
    for step in (Train(epochs=1), prune, Train(epochs=1), prune):
        package = applied(step, package, context)
    assert package.module.out.in_features < 9
