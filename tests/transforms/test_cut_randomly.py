"""Random cutting: what is useless goes and nothing else, on nets where any useful channel
that is cut shows."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import RecipeError
from featherweight.models.blocks import droppable
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import given
from featherweight.task.task import Task
from featherweight.train.loop import predict
from featherweight.transforms.cut_randomly import CutRandomly, cut_while_harmless
from featherweight.transforms.cut_randomly.cuts import BlockCuts, ChannelCuts
from featherweight.transforms.quantize import Quantize
from tests import toy

NETS = {"residual": toy.residual, "plain": toy.plain, "depthwise": toy.depthwise, "concat": toy.Concat}


def generator(seed=0):
    return np.random.default_rng(seed)


def planted(useless=(1, 4, 6)):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        # a silent input is not a silent output: only the readers make a channel useless
        nn.Sigmoid(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(384, 3),
    ).eval()
    for p in net.parameters():
        nn.init.normal_(p)
    net[3].weight.data[:, list(useless)] = 0
    return net


def imitation(net, n=90):
    """A task whose targets are what `net` gives: its loss is 0,
    and any change of its function makes it positive."""
    x = generator().normal(size=(n, 1, 8, 8)).astype("float32")
    y = predict(net, ArraySplit({"x": x}, np.zeros(n)))
    whole = ArraySplit({"x": x}, y)
    return Task(
        name="imitation",
        model=lambda: copy.deepcopy(net),
        data=lambda: given(whole, whole, whole),
        loss="mse",
        metric="mse",
    )


def cut(net, seed=0, **settings):
    t = imitation(net)
    return CutRandomly(**{"tolerance": 1e-6, **settings}).apply(Package(copy.deepcopy(net)), toy.context(t, seed)), t


@pytest.mark.parametrize("judge", ["loss", "metric"])
@pytest.mark.parametrize("seed", [0, 1])
def test_exactly_the_useless_channels_go(judge, seed):
    net = planted()
    done, t = cut(net, seed, judge=judge, ratio=0.9, share=0.0, patience=14)
    note = done.notes[-1]
    assert note["widths"] == {"0": [8, 5], "3": [6, 6]} and note["removed"] == note["kept"] == 3 and note["of"] == 14
    assert note["stopped"] == "patience" and note["proposals"] <= 14 * 4
    torch.testing.assert_close(done.module[0].weight, net[0].weight[[0, 2, 3, 5, 7]])
    np.testing.assert_allclose(
        predict(done.module, t.splits().valid), predict(net, t.splits().valid), rtol=1e-4, atol=1e-3
    )
    assert note["after"] == pytest.approx(note["before"], abs=1e-6) and net[0].out_channels == 8


def test_it_stops_at_the_ratio():
    done, _ = cut(planted(), ratio=2 / 14, share=0.0)
    assert done.notes[-1]["removed"] == 2 and done.notes[-1]["stopped"] == "ratio"
    none, _ = cut(planted(), ratio=0.0)
    assert none.notes[-1]["removed"] == none.notes[-1]["proposals"] == 0 and none.notes[-1]["stopped"] == "ratio"


def test_it_stops_after_so_many_proposals():
    done, _ = cut(planted(), proposals=3, share=0.0)
    assert done.notes[-1]["proposals"] == 3 and done.notes[-1]["stopped"] == "proposals"


def test_damage_is_counted_together():
    """Each proposal is held against the incoming model, so the end is no worse than the tolerance,
    however many were kept."""
    done, _ = cut(planted(()), ratio=1.0, share=0.0, tolerance=50.0, patience=20)
    note = done.notes[-1]
    assert note["kept"] >= 2 and note["before"] + 1 < note["after"] <= note["before"] + 50.0


def test_one_channel_stays_in_each_group():
    done, _ = cut(planted(), ratio=1.0, share=0.2, tolerance=1e9, proposals=1000)
    note = done.notes[-1]
    assert (
        {w[1] for w in note["widths"].values()} == {1} and note["stopped"] == "nothing left" and note["removed"] == 12
    )


def test_the_seed_decides():
    def widths(seed):
        return cut(planted(()), seed, ratio=0.5, share=0.1, tolerance=1e9)[0]

    one, two, other = widths(3), widths(3), widths(4)
    assert one.notes == two.notes and all(
        torch.equal(a, b) for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True)
    )
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for a, b in zip(one.module.parameters(), other.module.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", NETS)
def test_a_silent_channel_is_a_missing_one(name):
    """What is tried is what is cut: the masked net and the smaller one compute the same."""
    torch.manual_seed(0)
    net = NETS[name]().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.bias.data.normal_()
    x = torch.from_numpy(generator().normal(size=(4, 1, 8, 8)).astype("float32"))
    cuts = ChannelCuts(net, (x,))
    items = [(g, u) for g, n in enumerate(cuts.sizes) for u in range(0, n - 1, 3)]
    whole = net(x)
    undo = cuts.make(items)
    undo()
    torch.testing.assert_close(net(x), whole, rtol=0, atol=0)
    cuts.make(items[::2])
    cuts.make(items[1::2])
    masked = net(x)
    cuts.finish()
    assert not torch.allclose(masked, whole)
    torch.testing.assert_close(net.eval()(x), masked, rtol=1e-4, atol=1e-5)


def test_what_is_normalised_across_channels_is_left_whole():
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    cuts = ChannelCuts(net, (torch.randn(2, 4),))
    assert [g.name for g in cuts.groups] == ["2"] and "LayerNorm" in cuts.whole["0"]


def blocks():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        *(toy.Block(4, 4, 1) for _ in range(4)),
        nn.Flatten(),
        nn.Linear(256, 3),
    ).eval()
    for i in (3, 5):
        nn.init.zeros_(net[i].norm2.weight)  # relu(0 + x) = x
    return net


def test_exactly_the_blocks_that_do_nothing_go():
    net = blocks()
    done, t = cut(net, unit="block", ratio=1.0, share=0.0, patience=4, tolerance=1e-9)
    note = done.notes[-1]
    assert note["dropped"] == [["", 3], ["", 5]] and note["of"] == 4 and len(done.module) == 6 and len(net) == 8
    assert done.edits == ({"edit": "keep_blocks", "path": "", "index": [0, 1, 2, 4, 6, 7]},)
    np.testing.assert_array_equal(predict(done.module, t.splits().valid), predict(net, t.splits().valid))


def test_sparse_parameters_keep_their_names_in_step_with_the_blocks():
    net = blocks()
    package = Package(net, sparse=("0.weight", "3.conv1.weight", "4.conv1.weight", "7.weight"))
    with torch.no_grad():
        for name in package.sparse:
            net.get_parameter(name).flatten()[::2].zero_()
    t = imitation(net)
    done = CutRandomly(unit="block", ratio=1.0, share=0.0, patience=4, tolerance=1e-9).apply(package, toy.context(t))
    assert done.sparse == ("0.weight", "3.conv1.weight", "5.weight")
    assert torch.equal(done.module.get_parameter("3.conv1.weight"), net.get_parameter("4.conv1.weight"))
    narrow = CutRandomly(tolerance=1e9, ratio=0.5).apply(package, toy.context(t))
    assert narrow.sparse == package.sparse


def test_blocks_are_put_back():
    net = blocks()
    x = torch.randn(2, 1, 8, 8)
    whole, names = net(x), [n for n, _ in net.named_parameters()]
    cuts = BlockCuts(net, (x,))
    undo = cuts.make([(0, 0), (0, 2)])
    assert len(net) == 6 and not torch.allclose(net(x), whole)
    undo()
    assert torch.equal(net(x), whole) and [n for n, _ in net.named_parameters()] == names


def test_only_blocks_that_fit_can_go_and_none_inside_another():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        toy.Block(4, 4, 1),
        toy.Block(4, 4, 1),
        toy.Block(4, 8, 2),
        nn.Flatten(),
        nn.Linear(128, 2),
    )
    x = torch.randn(2, 1, 8, 8)
    assert droppable(net.eval(), (x,)) == {"": [1, 2]}
    inner = [nn.Sequential(toy.Block(4, 4, 1), toy.Block(4, 4, 1)) for _ in range(2)]
    assert droppable(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *inner).eval(), (x,)) == {"": [1, 2]}


def test_a_net_without_blocks_stays():
    done, _ = cut(planted(), unit="block", ratio=1.0)
    assert done.notes[-1]["of"] == 0 and done.notes[-1]["dropped"] == [] and done.edits == ()


def test_every_item_is_proposed_before_one_is_again():
    seen = []
    outcome = cut_while_harmless([5, 3], lambda items: seen.extend(items), 1.0, 0.0, 16, 1000, generator())
    assert outcome.stopped == "patience" and outcome.removed == ()
    assert len(set(seen[:8])) == 8 == len(set(seen[8:16])) and len(seen) == 16


@pytest.mark.parametrize("seed", range(5))
def test_proposals_have_their_size_and_never_overshoot(seed):
    sizes: list[int] = []
    harmful = {(0, 2), (1, 1)}

    def accept(items):
        sizes.append(len(items))
        return not harmful & set(items)

    outcome = cut_while_harmless([10, 10], accept, 0.5, 0.15, 50, 1000, generator(seed))
    assert outcome.stopped == "ratio" and len(outcome.removed) == 10 and not harmful & set(outcome.removed)
    assert max(sizes) == 3 and outcome.proposals == len(sizes)


def test_nothing_to_cut():
    for sizes in ([], [1], [1, 1, 1]):
        outcome = cut_while_harmless(sizes, lambda _: True, 1.0, 0.5, 5, 5, generator())
        assert outcome.removed == () and outcome.proposals == 0


def test_it_comes_before_quantization():
    with pytest.raises(RecipeError, match="before weights are bound"):
        Recipe(Quantize(), CutRandomly()).check()


def test_a_block_that_stands_twice_stays_where_it_is():
    """Its row is left whole, by name, and what is tried and taken back changes nothing."""
    one, other = toy.Block(8, 8, 1), toy.Block(8, 8, 1)
    row = nn.Sequential(one, other, one, other)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), row, nn.Flatten(), nn.Linear(288, 3))
    x = torch.randn(2, 1, 8, 8)
    before = net.eval()(x)
    cuts = BlockCuts(net, (x,))
    assert cuts.paths == [] and "one after the other" in cuts.whole["1"]
    cuts.finish()
    assert len(net[1]) == 4 and torch.equal(net(x), before)
