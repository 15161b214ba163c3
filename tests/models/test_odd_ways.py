"""Surgery on nets whose ways differ by row, by mode or by chance: what was not seen is not cut."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.columns import magnitude, spread
from featherweight.errors import InputError
from featherweight.models.copies import copied
from featherweight.models.coupling import couple, output_layers
from featherweight.models.cutting import cut
from featherweight.models.exact import doubled
from featherweight.models.learning import learning, learns_apart
from tests import odd_ways

END = "it makes the model's output"


def made(build, *args):
    torch.manual_seed(0)
    return build(*args).eval(), (torch.randn(4, 8),)


def names(coupling):
    return [g.name for g in coupling.groups]


def test_each_column_has_its_own_size():
    y = np.array([[1000.0, 1.0, 5.0], [1002.0, -1.0, 5.0]])
    np.testing.assert_allclose(spread(y), [[1, 1, 0]])
    np.testing.assert_allclose(magnitude(y), [[1002, 1, 5]])
    images = np.stack([y, y + [[0, 0, np.nan], [0, 0, np.inf]]], -1).transpose(0, 1, 2)[..., None]  # [2, 3, 2, 1]
    assert spread(images).shape == (1, 3, 2, 1) and spread(images)[0, 1].max() == 1 and spread(images)[0, 2].max() == 0
    np.testing.assert_allclose(spread(y[:, 0]), [1])
    assert spread(np.zeros((0, 3))).shape == (1, 3)


@pytest.mark.parametrize("build", [odd_ways.TwoScales, odd_ways.TwoScalesOfImages])
@pytest.mark.parametrize(("offset", "scale"), [(0, 1e5), (3e5, 1e5), (3e5, 0)])
def test_a_small_output_beside_a_large_one_is_not_ruined(build, offset, scale):
    net, x = made(build, offset, scale)
    coupling = couple(net, x)
    assert names(coupling) == ["a"] and "not the same" in coupling.whole["c"]


def test_an_offset_hides_nothing():
    class Offset(odd_ways.TwoScales):
        def forward(self, x):
            return super().forward(x)[:, 1:] + 1e4

    net, x = made(Offset)
    assert "not the same" in couple(net, x).whole["c"]


def test_rounding_beside_large_outputs_costs_no_group():
    class Cancelling(odd_ways.Plain):
        """A column of which rounding is all that is left, and one that is constant."""

        def forward(self, x):
            y = 1e3 * super().forward(x)
            return torch.cat([y, (y[:, :1] + 0.1) - y[:, :1], y[:, :1] * 0 + 7], 1)

    net, x = made(Cancelling)
    assert names(couple(net, x)) == ["a", "b"]


def test_double_precision_is_for_a_while():
    net, _ = made(odd_ways.Plain)
    before = {n: (p, p.data_ptr(), p.dtype) for n, p in net.named_parameters()}
    with doubled(net):
        assert net(torch.randn(2, 8).double()).dtype == torch.float64
    assert {n: (p, p.data_ptr(), p.dtype) for n, p in net.named_parameters()} == before


def test_a_head_that_runs_in_training_alone_is_cut_with_the_rest():
    net, x = made(odd_ways.Helped)
    coupling = couple(net, x)
    assert names(coupling) == ["a", "b"] and coupling.whole == {"out": END, "aux": END}
    assert output_layers(net, x) == [net.out, net.aux]
    cut(net, coupling.groups, [[0, 3], [1]])
    assert net.train()(*x).shape == (4, 3) and net.aux.in_features == 14
    net, x = made(odd_ways.Helped, True)
    assert names(couple(net, x)) == ["b"]


@pytest.mark.parametrize("kind", ["path", "rand", "noise", "dropout"])
def test_noise_in_training_costs_no_layer(kind):
    net, x = made(odd_ways.Dropped, kind)
    assert learns_apart(net, x) and names(couple(net, x)) == ["a", "b"]


def test_a_pass_in_training_leaves_no_trace():
    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.drop, self.n = nn.BatchNorm1d(8), nn.Dropout(0.5), 0
            self.register_buffer("mean", torch.zeros(8))

        def forward(self, x):
            if self.training:
                self.n, self.last = self.n + 1, x
                self.mean += x.mean(0)
            return self.drop(self.norm(x)) + self.mean

    net, x = made(Noting)
    before, attributes = copy.deepcopy(net.state_dict()), dict(vars(net))
    assert learns_apart(net, x)
    with learning(net):
        assert net.training and not net.norm.training and not net.drop.training
        net(*x)
    assert vars(net) == attributes and not net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("whole_batch", [False, True])
def test_what_a_layer_that_no_row_reached_could_read_is_left_whole(whole_batch):
    net, x = made(odd_ways.Rare, whole_batch)
    coupling = couple(net, x)
    assert names(coupling) == ["b"] and "no example row reaches it" in coupling.whole["alt"]
    if not whole_batch:
        assert "could be coupled to alt" in coupling.whole["a"]
        x[0][1, 0] = 99.0  # a row that reaches it
        assert "alt" not in couple(net, x).whole or "reaches" not in couple(net, x).whole["alt"]


def test_a_layer_that_gives_more_than_its_weight_has_costs_no_other():
    net, x = made(odd_ways.Wider)
    coupling = couple(net, x)
    assert names(coupling) == ["b"] and "another number of channels" in coupling.whole["wide"]


def test_what_a_model_kept_from_a_computation_is_copied_as_numbers():
    net, x = made(odd_ways.Keeping)
    net.train()(*x)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(net)
    twin = copied(net)
    assert twin.twice.grad_fn is None and torch.equal(twin.twice, net.twice) and net.twice.grad_fn is not None
    assert torch.equal(twin.of["features"][0], net.of["features"][0])
    assert all(
        p.is_leaf and p.requires_grad and p is not q for p, q in zip(twin.parameters(), net.parameters(), strict=True)
    )
    assert twin.training


def test_a_copy_of_a_scripted_module_learns():
    net, x = made(odd_ways.Scripted)
    net.b.requires_grad_(False)
    twin = copied(net)
    twin(*x).sum().backward()
    assert all(p.is_leaf and (p.grad is not None) == p.requires_grad for p in twin.parameters())
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in net.parameters()]


def test_what_cannot_be_copied_is_named():
    net, _ = made(odd_ways.Plain)
    net.b.source = (i for i in range(3))
    with pytest.raises(InputError, match=r"attribute b\.source: TypeError"):
        copied(net)
