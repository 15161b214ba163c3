"""Qat leaves weights on the grids that its plan names, trained there;
structure, zeros and skipped layers stay."""

import numpy as np
import pytest
import torch
from torch import nn

from featherweight import machine
from featherweight.errors import InputError, RecipeError
from featherweight.models.package import Package
from featherweight.models.quant.fake import quantizable, simulate
from featherweight.models.quant.grid import Grid, nearest
from featherweight.plan import check_plan
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.targets.onnxruntime import Onnxruntime
from featherweight.testing import check_transform
from featherweight.train.loop import predict
from featherweight.train.losses import soft_loss
from featherweight.transforms.qat import Qat
from featherweight.transforms.train import Train
from tests import toy


def trained(task, seed=0):
    return (
        Train(epochs=3, lr=3e-3, batch_size=16).apply(Package(task.build()), toy.context(task, seed)).edited(notes=())
    )


def accuracy(module, split):
    return float((predict(module, split).argmax(1) == split.batch(np.arange(len(split)))[1]).mean())


@pytest.mark.parametrize("settings", [{"granularity": "tensor", "activations": "s8", "start": "lsq"}, {"epochs": 0}])
def test_conformance_of_other_settings(settings):
    check_transform(Qat(**{"epochs": 1, "batch_size": 16, **settings}), toy.task())


@pytest.mark.parametrize("saturates", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_weights_are_on_the_grids_that_the_plan_names(saturates, granularity, monkeypatch):
    monkeypatch.setattr(machine, "saturates", lambda: saturates)
    task = toy.task()
    before = task.build()
    made = Qat(epochs=1, batch_size=32, granularity=granularity).apply(Package(before), toy.context(task))
    assert check_plan(made.plan) is None and made.plan.scheme == "int8-static"
    assert set(made.plan.layers) == set(quantizable(before)) and {e.bits for e in made.plan.layers.values()} == {8}
    grid = Grid(7 if saturates else 8, granularity)
    for path, layer in quantizable(made.module).items():
        s = made.scales[f"{path}.weight.scale"]
        assert s.shape == ((layer.weight.shape[0],) if granularity == "channel" else (1,))
        assert torch.equal(layer.weight, nearest(layer.weight, s, torch.zeros_like(s), grid))
        assert made.scales[f"{path}.input.scale"].shape == made.scales[f"{path}.input.zero"].shape == (1,)
        assert not torch.equal(layer.weight, quantizable(before)[path].weight)
    assert f"saturates={saturates}" == Qat().depends


def test_with_one_scale_a_tensor_norms_only_add():
    made = Qat(epochs=1, batch_size=32, granularity="tensor").apply(Package(trained(toy.task()).module), toy.context())
    for m in made.module.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert (
                torch.allclose(m.weight / (m.running_var + m.eps).sqrt(), torch.ones(()), atol=1e-6)
                and m.weight.requires_grad
            )
    assert len(made.notes[0]["folded"]) == 8


def test_norms_follow_the_first_half_of_the_steps_and_then_stand_still(monkeypatch):
    task = toy.task()
    seen = []
    original = nn.BatchNorm2d.forward
    net = task.build()

    def forward(self, x):
        out = original(self, x)
        if torch.is_grad_enabled():
            seen.append((self.training, self.running_mean.clone()))
        return out

    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)
    Qat(epochs=4, batch_size=32).apply(Package(net), toy.context(task))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    steps = 4 * -(-len(task.splits().train) // 32)
    training = [t for t, _ in seen]
    assert training == [True] * (steps // 2 * norms) + [False] * ((steps - steps // 2) * norms)
    assert torch.equal(seen[-norms][1], seen[steps // 2 * norms][1])


def test_zeros_stay_zero_and_skipped_layers_stay_float():
    task = toy.task()
    net = task.build()
    w = net.get_submodule("3.conv1").weight
    with torch.no_grad():
        w[:, ::2] = 0
    package = Package(net, sparse=("3.conv1.weight", "8.weight"))
    with torch.no_grad():
        net[8].weight[0, :5] = 0
    made = Qat(epochs=2, lr=1e-2, batch_size=32, skip=("5", "8")).apply(package, toy.context(task))
    new = made.module.get_submodule("3.conv1").weight
    assert (new[:, ::2] == 0).all() and not torch.equal(new, w) and (made.module[8].weight[0, :5] == 0).all()
    bits = {path: e.bits for path, e in made.plan.layers.items()}
    assert (
        {p for p, b in bits.items() if b == 32}
        == {"5.conv1", "5.conv2", "5.short.0", "8"}
        == set(made.notes[0]["left"])
    )
    # trained, but not rounded
    assert "8.weight.scale" not in made.scales and not torch.equal(made.module[8].weight, net[8].weight)
    with pytest.raises(InputError, match="no such layers"):
        Qat(skip=("nowhere",)).apply(package, toy.context(task))
    with pytest.raises(InputError, match="nothing to quantize"):
        Qat(skip=tuple(quantizable(net))).apply(package, toy.context(task))


def test_what_is_tied_to_a_table_is_left_to_the_target_with_it():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inner, self.out = nn.Embedding(4, 8), nn.Linear(8, 8), nn.Linear(8, 4, bias=False)
            self.out.weight = self.table.weight

        def forward(self, x):
            return self.out(self.inner(self.table((x.flatten(1)[:, 0] > 0).long())))

    task = toy.task(Tied)
    made = Qat(epochs=1, batch_size=32).apply(Package(task.build()), toy.context(task))
    assert {p: e.bits for p, e in made.plan.layers.items()} == {"table": 8, "inner": 8}
    assert made.module.out.weight is made.module.table.weight and list(made.notes[0]["left"]) == ["out"]


def test_the_teachers_term_is_that_of_distill(monkeypatch):
    task = toy.task(toy.plain)
    n = len(task.splits().train)
    teacher = np.random.default_rng(0).normal(size=(n, 4)).astype("float32")
    context = toy.context(task, teacher=teacher)
    out, y, index = torch.randn(5, 4), torch.arange(5) % 4, np.arange(5)
    for alpha in (0.0, 0.3, 1.0):
        soft = soft_loss(out, torch.from_numpy(teacher[:5]), "softmax", 2.0)
        expected = (1 - alpha) * task.loss_fn(out, y) + alpha * soft
        assert torch.allclose(Qat(alpha=alpha)._objective(context, task.build())(out, y, index), expected)
    follow = Qat(epochs=1, batch_size=32, alpha=1.0).apply(Package(task.build()), context)
    assert (
        follow.notes[0]["final_loss"]
        != Qat(epochs=1, batch_size=32).apply(Package(task.build()), context).notes[0]["final_loss"]
    )


def test_the_order_of_steps():
    with pytest.raises(RecipeError, match="cannot follow"):
        Recipe(Qat(), Train()).check()
    with pytest.raises(RecipeError, match="cannot follow"):
        Recipe(Qat(), Qat()).check()
    Recipe(Train(), Qat()).check()


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_exported_file_computes_what_was_trained(granularity, tmp_path):
    """Learned weights and grids reach ONNX Runtime, batch norms folded."""
    task = toy.task(n=400)
    splits, start = task.splits(), trained(toy.task(n=400))
    made = Qat(epochs=2, lr=1e-3, batch_size=16, granularity=granularity).apply(start, toy.context(task))
    x = torch.from_numpy(splits.train.batch(np.arange(len(splits.train)))[0]["image"])
    calibration = {"image": x[: made.plan.samples]}
    ours = simulate(made, calibration, machine.saturates())
    assert (
        accuracy(start.module, splits.valid) >= 0.9
        and accuracy(ours, splits.valid) >= accuracy(start.module, splits.valid) - 0.03
    )
    target = Target("onnxruntime")
    Onnxruntime().export(made, {"image": x[:1]}, calibration, target, tmp_path)
    session = Onnxruntime().load(tmp_path, target, 1)
    real = np.concatenate([session.run({"image": x[i : i + 1].numpy()}) for i in range(150)])
    with torch.no_grad():
        simulated = ours(x[:150]).numpy()
        unrounded = made.module(x[:150]).numpy()

    def sqnr_db(a):
        return 10 * np.log10((real**2).sum() / ((real - a) ** 2).sum())

    assert (real.argmax(1) == simulated.argmax(1)).mean() >= 0.97
    # it is the learned grids that the file has
    assert sqnr_db(simulated) >= 30 and sqnr_db(simulated) >= sqnr_db(unrounded) + 6
