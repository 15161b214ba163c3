"""Train, Distill, DropBlocks, Quantize."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight.errors import InputError, RecipeError
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.train.loop import predict
from featherweight.transforms.distill import Distill, soft_loss
from featherweight.transforms.drop_blocks import DropBlocks, influence, measure_blocks
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import toy


def accuracy(module, split):
    return float((predict(module, split).argmax(1) == split.batch(np.arange(len(split)))[1]).mean())


def test_train_learns_on_a_copy():
    t = toy.task()
    net = t.build()
    before = copy.deepcopy(net.state_dict())
    done = Train(epochs=4, lr=3e-3, batch_size=16).apply(Package(net), toy.context(t))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert accuracy(done.module, t.splits().valid) > 0.9 and done.notes[-1]["epochs"] == 4


def test_label_smoothing_needs_cross_entropy():
    t = toy.task(loss="mse")
    with pytest.raises(InputError, match="cross-entropy"):
        Train(label_smoothing=0.1).apply(Package(t.build()), toy.context(t))


def test_the_soft_loss_is_the_published_formula():
    torch.manual_seed(0)
    s, t, T = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64), 3.0
    p, q = F.softmax(t / T, -1), F.softmax(s / T, -1)
    torch.testing.assert_close(soft_loss(s, t, "kl", T), T * T * (p * (p / q).log()).sum(1).mean())
    torch.testing.assert_close(soft_loss(s, t, "mse", T), ((s - t) ** 2).mean())
    assert float(soft_loss(t, t, "kl", T)) == pytest.approx(0, abs=1e-12)


def test_the_kl_gradient_tends_to_the_mse_gradient_for_large_temperatures():
    """Hinton et al. 2015, eq. 4: with zero-mean logits, T^2 KL has gradient (s - t) / C as T grows."""
    torch.manual_seed(0)
    s, t = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    s, t = (s - s.mean(1, keepdim=True)).requires_grad_(), t - t.mean(1, keepdim=True)
    (g,) = torch.autograd.grad(soft_loss(s, t, "kl", 1e4), s)
    torch.testing.assert_close(g * 4, (s - t).detach() / 5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["kl", "mse"])
def test_a_student_learns_the_teacher_without_labels(form):
    t = toy.task()
    teacher = Train(epochs=5, lr=3e-3, batch_size=16).apply(Package(t.build()), toy.context(t)).module
    outputs = predict(teacher, t.splits().train)
    small = Prune(ratio=0.5, round_to=4).apply(Package(t.build()), toy.context(t))
    done = Distill(epochs=6, lr=3e-3, alpha=1.0, form=form, batch_size=16).apply(small, toy.context(t, teacher=outputs))
    agree = (predict(done.module, t.splits().valid).argmax(1) == predict(teacher, t.splits().valid).argmax(1)).mean()
    assert agree > 0.9


class Tiny(nn.Module):
    """An encoder of four blocks over 8 tokens."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(8, 16)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True) for _ in range(4)])
        self.out = nn.Linear(16, 4)

    def forward(self, image):
        h = self.inp(image[:, 0])
        for b in self.blocks:
            h = b(h)
        return self.out(h.mean(1))


@pytest.mark.parametrize("criterion", ["influence", "last", "spaced", "random"])
def test_dropped_blocks_are_gone_and_the_model_reloads(criterion, tmp_path):
    t = toy.task(Tiny)
    package = DropBlocks(drop=2, criterion=criterion).apply(Package(t.build()), toy.context(t))
    assert len(package.module.blocks) == 2 and len(t.build().blocks) == 4
    twice = DropBlocks(drop=1, criterion=criterion).apply(package, toy.context(t))
    assert len(twice.module.blocks) == 1
    twice.save(tmp_path, t.build)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(Package.load(tmp_path, t.build).module(x), twice.module(x))


def test_a_block_that_does_nothing_has_no_influence_and_goes_first():
    t = toy.task(Tiny)
    net = t.build()
    idle = net.blocks[2]
    for p in (idle.self_attn.out_proj, idle.linear2):
        nn.init.zeros_(p.weight)
        nn.init.zeros_(p.bias)
    values = measure_blocks(net, (torch.randn(4, 1, 8, 8),))["blocks"]
    assert values[2] == pytest.approx(0, abs=1e-6) and min(v for i, v in values.items() if i != 2) > 1e-4
    x = torch.randn(3, 5, 7)
    assert influence(x, x) == pytest.approx(0, abs=1e-6) and influence(x, -x) == pytest.approx(2, abs=1e-6)


def test_a_residual_cnn_loses_only_blocks_that_keep_the_shape():
    t = toy.task()
    package = DropBlocks(drop=1).apply(Package(t.build()), toy.context(t))
    with torch.no_grad():
        assert package.module(torch.randn(2, 1, 8, 8)).shape == (2, 4)
    with pytest.raises(InputError, match="at least one"):
        DropBlocks(drop=5).apply(Package(t.build()), toy.context(t))


def test_quantize_makes_a_plan_and_leaves_the_weights():
    t = toy.task()
    net = t.build()
    package = Quantize(scheme="int8-dynamic", skip=("8",)).apply(Package(net), toy.context(t))
    assert package.module is net and package.plan["scheme"] == "int8-dynamic" and package.plan["skip"] == ["8"]


@pytest.mark.parametrize("late", [Prune(), Train(), Distill(), DropBlocks(), Quantize()])
def test_nothing_that_moves_weights_follows_quantize(late):
    with pytest.raises(RecipeError, match="cannot follow quantize") as e:
        Recipe(Quantize(), late).check()
    if late.kind != "quantize":
        assert f"{late.kind} -> quantize" in str(e.value)
        Recipe(late, Quantize()).check()
