"""Train, DropBlocks, Quantize."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError, RecipeError
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.train.loop import predict
from featherweight.transforms.distill import Distill
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


class Tiny(nn.Module):
    """An encoder of four blocks over 8 tokens."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True) for _ in range(4)]
        )
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
    values = measure_blocks(net, (torch.randn(4, 1, 8, 8),))[0]["blocks"]
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


@pytest.mark.parametrize("late", [Prune(), Train(), Distill(), DropBlocks(), Quantize()])
def test_nothing_that_moves_weights_follows_quantize(late):
    with pytest.raises(RecipeError, match="cannot follow quantize") as e:
        Recipe(Quantize(), late).check()
    if late.kind != "quantize":
        assert f"{late.kind} -> quantize" in str(e.value)
        Recipe(late, Quantize()).check()


def test_all_droppable_blocks_may_go_where_others_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.Sequential(toy.Block(1, 1, 1), toy.Block(1, 8, 2))
            self.out = nn.Linear(8, 4)

        def forward(self, image):
            return self.out(self.stages(image).mean((2, 3)))

    t = toy.task(Net)
    package = DropBlocks(drop=1).apply(Package(t.build()), toy.context(t))
    assert len(package.module.stages) == 1 and package.notes[-1]["dropped"] == [["stages", 0]]
    with pytest.raises(InputError, match="at least one"):
        DropBlocks(drop=2).apply(Package(t.build()), toy.context(t))
    whole = toy.task(Tiny)  # four blocks, all of which keep the shape
    with pytest.raises(InputError, match="at most 3"):
        DropBlocks(drop=4).apply(Package(whole.build()), toy.context(whole))
    for criterion in ("influence", "last", "spaced", "random"):
        assert (
            len(DropBlocks(drop=3, criterion=criterion).apply(Package(whole.build()), toy.context(whole)).module.blocks)
            == 1
        )


def test_dropped_blocks_take_their_sparse_names_along():
    t = toy.task(Tiny)
    sparse = Prune(granularity="weight", ratio=0.5, criterion="magnitude").apply(Package(t.build()), toy.context(t))
    package = DropBlocks(drop=2, criterion="random").apply(sparse, toy.context(t))
    names = dict(package.module.named_parameters())
    assert package.sparse and set(package.sparse) <= set(names) and not any(".3." in n for n in package.sparse)
    assert all((names[n] == 0).float().mean() > 0.05 for n in package.sparse if n.endswith("linear1.weight"))
