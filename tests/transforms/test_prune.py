import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.coupling import couple, cut, scores
from featherweight.models.importance import magnitude, taylor
from featherweight.models.package import Package
from featherweight.transforms.prune import Prune, choose
from tests import toy

NETS = {"residual": toy.residual, "plain": toy.plain, "depthwise": toy.depthwise, "concat": toy.Concat}


def randomised(build):
    """A net whose normalisation statistics and biases are not at their trivial initial values."""
    torch.manual_seed(1)
    net = build().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.normal_()
            m.bias.data.normal_()
    return net


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_cutting_channels_equals_silencing_them(build):
    """The smaller model computes what the whole one computes with the cut channels' outgoing weights set to zero."""
    net = randomised(build)
    x = torch.randn(3, 1, 8, 8)
    masked, small = copy.deepcopy(net), copy.deepcopy(net)
    coupling = couple(small, (x,))
    assert coupling.groups
    for group in coupling.groups:
        drop = list(range(0, group.channels, 3))
        for m in group.members:
            layer = masked.get_submodule(m.path)
            consumers = [p for p, c in zip(m.position, m.channel, strict=True) if c in drop]
            if m.axis == 1:
                layer.weight.data[:, consumers] = 0
        cut(coupling, group, drop)
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "random"])
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_a_pruned_model_is_smaller_runs_and_reloads(build, criterion, tmp_path):
    t = toy.task(build)
    before = t.build()
    weights = copy.deepcopy(before.state_dict())
    package = Prune(ratio=0.5, criterion=criterion, round_to=4).apply(Package(before), toy.context(t))
    assert all(torch.equal(v, weights[k]) for k, v in before.state_dict().items()), "the input model was changed"
    assert sum(p.numel() for p in package.module.parameters()) < 0.75 * sum(p.numel() for p in before.parameters())
    package.save(tmp_path, t.build)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(Package.load(tmp_path, t.build).module(x), package.module(x))


def test_nothing_is_cut_at_ratio_0_and_something_is_left_at_ratio_1():
    t = toy.task()
    net = t.build()
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(Prune(ratio=0.0).apply(Package(net), toy.context(t)).module(x), net(x))
        assert Prune(ratio=1.0, round_to=4).apply(Package(net), toy.context(t)).module(x).shape == (2, 4)


def test_widths_are_multiples():
    t = toy.task()
    for scope in ("global", "layer"):
        package = Prune(ratio=0.4, round_to=4, scope=scope).apply(Package(t.build()), toy.context(t))
        widths = package.notes[-1]["widths"]
        assert widths and all(after % 4 == 0 and after <= before for before, after in widths.values())


def test_the_output_layer_is_named_and_left_whole():
    package = Prune(ratio=0.5).apply(Package(toy.task().build()), toy.context())
    assert package.notes[-1]["whole"] == {"8": "it makes the model's output"}
    assert package.module[8].out_features == 4


def test_a_model_that_cannot_be_traced_is_refused():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(1, 4, 3)

        def forward(self, x):
            raise RuntimeError("no")

    with pytest.raises(InputError, match="cannot be traced"):
        couple(Detached(), (torch.randn(1, 1, 8, 8),))


def test_choose_takes_the_least_important():
    s = [torch.tensor([4.0, 1, 3, 2]), torch.tensor([40.0, 10, 30, 20])]
    assert choose(s, 0.5, "layer", 1) == [[1, 3], [1, 3]]
    assert choose(s, 0.5, "global", 1) == [[1, 3], [1, 3]]  # scales differ by 10, the ranking does not care
    assert choose(s, 0.0, "global", 1) == [[], []]
    assert choose([torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 9])], 0.5, "layer", 4) == [[0, 1, 2, 3]]
    assert choose([torch.rand(3)], 0.9, "layer", 8) == [[]]  # narrower than the alignment: left whole
    assert choose([], 0.5, "global", 8) == []


def test_global_ranking_cuts_more_where_less_matters():
    flat, peaked = torch.ones(16), torch.cat([torch.full((12,), 0.01), torch.full((4,), 10.0)])
    drops = choose([flat, peaked], 12 / 32, "global", 1)
    assert len(drops[0]) == 0 and drops[1] == list(range(12))


def test_magnitude_is_the_squared_norm_of_a_channel():
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    x = torch.randn(1, 1, 8, 8)
    group = next(g for g in couple(net, (x,)).groups if g.name == "0")
    got = scores(net, group, {n: magnitude(p) for n, p in net.named_parameters()})
    want = net[0].weight.detach().flatten(1).pow(2).sum(1) + net[2].weight.detach().transpose(0, 1).flatten(1).pow(2).sum(1)
    torch.testing.assert_close(got, want)


def test_taylor_predicts_the_loss_change_of_a_finite_difference():
    torch.manual_seed(0)
    w = torch.randn(5, requires_grad=True, dtype=torch.float64)
    a = torch.randn(5, dtype=torch.float64)

    def loss(v):
        return (a * v).sum() * 1e-3  # linear: the first-order term is the whole change

    (g,) = torch.autograd.grad(loss(w), w)
    for i in range(5):
        without = w.detach().clone()
        without[i] = 0
        change = float(loss(w.detach()) - loss(without))
        np.testing.assert_allclose(float(taylor(w, g)[i]), change**2, rtol=1e-4)


def test_random_depends_on_the_seed_alone():
    t = toy.task()
    runs = [Prune(ratio=0.5, criterion="random", round_to=1).apply(Package(t.build()), toy.context(t, seed=s)).module.state_dict() for s in (1, 1, 2)]
    same = all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    other = all(runs[0][k].shape == runs[2][k].shape and torch.equal(runs[0][k], runs[2][k]) for k in runs[0])
    assert same and not other
