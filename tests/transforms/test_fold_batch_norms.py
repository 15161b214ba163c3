"""FoldBatchNorms: the same function, against torch's own folding, and what follows it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from featherweight.engine.export import write_artifact
from featherweight.errors import InputError, RecipeError
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.testing import check_transform
from featherweight.transforms.fold_batch_norms import FoldBatchNorms
from featherweight.transforms.prune import Prune
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import toy


class Forms(nn.Module):
    """Layers with and without a bias, grouped, a Linear; norms that cannot be folded: behind a
    sum, behind a ReLU, of a layer that something else reads, without a scale."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.na = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8)
        self.sum, self.late = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.c, self.nc = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.d, self.nd = nn.Linear(8, 6), nn.BatchNorm1d(6)
        self.out = nn.Linear(6, 4)
        for m in self.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_()
                m.running_var.uniform_(0.3, 2)
                nn.init.normal_(m.weight)
                nn.init.normal_(m.bias)

    def forward(self, x):
        x = torch.relu(self.na(self.a(x)))
        x = self.sum(self.nb(self.b(x)) + x)
        x = self.late(torch.relu(x))
        c = self.c(x)
        x = (self.nc(c) + c).mean((2, 3))
        return self.out(torch.relu(self.nd(self.d(x))))


FOLDED, LEFT = ["na", "nb", "nd"], ["late", "nc", "sum"]


def task(model=Forms):
    x = np.random.default_rng(0).normal(size=(96, 1, 8, 8)).astype("float32")
    return Task("forms", model, lambda: split(ArraySplit({"x": x}, np.arange(96) % 4)))


def rows(t, n=16):
    return torch.as_tensor(t.splits().train.batch(np.arange(n))[0]["x"])


def test_as_torch_folds():
    t = task()
    base = Package(t.build())
    package = FoldBatchNorms().apply(base, toy.context(t))
    assert package.notes[-1] == {"step": "fold_batch_norms", "folded": 3, "left": LEFT}
    assert [type(package.module.get_submodule(n)) for n in FOLDED] == [nn.Identity] * 3
    for layer, norm, fuse in [
        ("a", "na", fuse_conv_bn_eval),
        ("b", "nb", fuse_conv_bn_eval),
        ("d", "nd", fuse_linear_bn_eval),
    ]:
        want = fuse(getattr(base.module, layer), getattr(base.module, norm))
        got = package.module.get_submodule(layer)
        torch.testing.assert_close(got.weight, want.weight)
        torch.testing.assert_close(got.bias, want.bias)
    torch.testing.assert_close(package.module(rows(t)), base.module(rows(t)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [Forms, toy.residual, toy.depthwise], ids=lambda m: m.__name__)
def test_conforms(model):
    check_transform(FoldBatchNorms(), task(model))


STEPS = {
    "alone": [],
    "trained": [Train(epochs=1, batch_size=16)],
    "pruned": [Prune(ratio=0.5, round_to=2)],
    "zeros": [Prune(granularity="weight", ratio=0.5)],
    "int8": [Quantize(samples=16)],
    "int8 trained": [Qat(epochs=1, samples=16)],
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("steps", STEPS)
def test_other_steps_follow_it(steps, runtime, tmp_path):
    t = task(toy.residual)
    package = FoldBatchNorms().apply(Package(t.build()), toy.context(t))
    for step in STEPS[steps]:
        package = step.apply(package, toy.context(t))
    package.save(tmp_path, t.build)
    again = Package.load(tmp_path, t.build)
    assert torch.equal(again.module(rows(t)), package.module(rows(t)))
    (tmp_path / "out").mkdir()
    write_artifact(t, again, Target(runtime), Recipe(FoldBatchNorms(), *STEPS[steps]), tmp_path / "out")


def test_zeros_of_before_stay_claimed():
    t = task(toy.residual)
    sparse = Prune(granularity="weight", ratio=0.5).apply(Package(t.build()), toy.context(t))
    package = FoldBatchNorms().apply(sparse, toy.context(t))
    assert package.sparse == sparse.sparse
    for name in package.sparse:
        was, now = sparse.module.get_parameter(name), package.module.get_parameter(name)
        assert torch.equal(was == 0, now == 0) and (was == 0).any()


def test_a_frozen_layers_bias_is_frozen():
    def frozen():
        net = Forms()
        net.a.requires_grad_(False)
        return net

    t = task(frozen)
    module = FoldBatchNorms().apply(Package(t.build()), toy.context(t)).module
    assert not module.a.bias.requires_grad and module.d.bias.requires_grad


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).mean((2, 3))) + self.norm.running_mean.mean()


def test_norms_that_code_reads_are_refused():
    t = task(Reads)
    with pytest.raises(InputError, match="code reads its batch norms"):
        FoldBatchNorms().apply(Package(t.build()), toy.context(t))


def test_what_has_none_is_refused():
    t = task(toy.plain)
    with pytest.raises(InputError, match="no batch norm to fold") as e:
        FoldBatchNorms().apply(Package(t.build()), toy.context(t))
    assert "which has none" in e.value.got
    t = task(lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 4)))
    with pytest.raises(InputError, match="no batch norm to fold") as e:
        FoldBatchNorms().apply(Package(t.build()), toy.context(t))
    assert "behind no Linear or convolution" in e.value.got
    with pytest.raises(RecipeError, match="integer grids"):
        Recipe(Quantize(rounding="gptq"), FoldBatchNorms()).check()
