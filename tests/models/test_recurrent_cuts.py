"""Recurrent layers are cut unit by unit, and the cut model computes what the whole one does where
nobody reads those units; what cannot be cut is named."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import featherweight as fw
from featherweight.models.coupling import couple
from featherweight.models.cutting import cut, silenced
from featherweight.models.exact import inexact
from featherweight.models.package import Package
from featherweight.models.recurrent import inside, matrices

T, C, H = 7, 6, 12


class Net(nn.Module):
    """[N, T, C] -> [N, 3] through recurrent layers and one of several ways to read them."""

    def __init__(self, cell=nn.LSTM, layers=1, both=False, batch_first=True, read="last", bias=True):
        super().__init__()
        self.cells = cell(C, H, layers, bias=bias, batch_first=batch_first, bidirectional=both)
        wide = H * (1 + both)
        self.read, self.batch_first = read, batch_first
        self.conv = nn.Conv1d(wide, 8, 3, padding=1) if read == "conv" else None
        self.norm = nn.BatchNorm1d(wide) if read == "norm" else None
        sizes = {"conv": 8, "cat": 2 * wide, "input": wide + C, "states": 2 * wide, "flat": T * wide}
        self.head = nn.Linear(sizes.get(read, wide), 3)

    def forward(self, x):
        y, state = self.cells(x if self.batch_first else x.transpose(0, 1))
        y = y if self.batch_first else y.transpose(0, 1)
        if self.read == "last":
            return self.head(y[:, -1])
        if self.read == "mean":
            return self.head(y.mean(1))
        if self.read == "each":
            return self.head(y).mean(1)
        if self.read == "conv":
            return self.head(torch.relu(self.conv(y.transpose(1, 2))).amax(2))
        if self.read == "norm":
            return self.head(self.norm(y.transpose(1, 2)).mean(2))
        if self.read == "cat":
            return self.head(torch.cat([y[:, -1], y.mean(1)], 1))
        if self.read == "input":
            return self.head(torch.cat([y[:, -1], x[:, -1]], 1))
        if self.read == "flat":
            return self.head(y.flatten(1))
        states = state if isinstance(state, tuple) else (state, state)  # the last layer's, of each way
        ways = 2 if self.cells.bidirectional else 1
        return self.head(torch.cat([s[-k] for s in states for k in range(1, ways + 1)], 1))


READS = ("last", "mean", "each", "conv", "norm", "cat", "input", "states", "flat")


def net(*args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return Net(*args, **kwargs).eval()


def rows(n=9):
    return torch.randn(n, T, C, generator=torch.Generator().manual_seed(5))


def of(coupling, path):
    return next(g for g in coupling.groups if any(m.path == path and m.axis == 0 for m in g.members))


def proven(model, x, *, path="cells", keep=5):
    """Cut all but `keep` units of the group that makes the channels of `path`, and hold the cut
    model to the silenced one; the cut model."""
    group = of(couple(model, (x,)), path)
    order = torch.randperm(len(group.units), generator=torch.Generator().manual_seed(1))
    drop = sorted(order[keep:].tolist())
    with torch.no_grad():
        whole = model(x)
        with silenced(model, group, drop):
            want = model(x)
        assert torch.equal(model(x), whole)  # and it is as before
        small = copy.deepcopy(model)
        cut(small, [group], [drop])
        got = small(x)
    assert not torch.allclose(want, whole, atol=1e-4)  # the units did something
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    return small


KINDS = list(itertools.product((nn.LSTM, nn.GRU), (1, 2), (False, True), (False, True)))


@pytest.mark.parametrize(("cell", "layers", "both", "batch_first"), KINDS)
def test_a_cut_is_as_silence(cell, layers, both, batch_first):
    small = proven(net(cell, layers, both, batch_first), rows())
    cells = small.cells
    assert (cells.hidden_size, cells.input_size) == (5, C)
    assert small.head.in_features == 5 * (1 + both)
    gates = 4 if cell is nn.LSTM else 3
    for m in matrices(cells):
        reads = 5 if m.inner else C if m.number == 0 else 5 * (1 + both)
        assert tuple(m.weight.shape) == (gates * 5, reads)
    assert all(
        p is getattr(cells, name) for p, name in zip(cells._flat_weights, cells._flat_weights_names, strict=True)
    )
    small.cells.flatten_parameters()
    fresh = Net(cell, layers, both, batch_first)
    assert list(small.state_dict()) == list(fresh.state_dict())


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(("cell", "both"), [(nn.LSTM, False), (nn.LSTM, True), (nn.GRU, True)])
def test_whatever_reads_it(read, cell, both):
    proven(net(cell, 2, both, read=read), rows())


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_plain_recurrent_layers_too(nonlinearity):
    def cell(*args, **kwargs):
        return nn.RNN(*args, nonlinearity=nonlinearity, **kwargs)

    proven(net(cell, 2, True), rows())


def test_without_biases_and_in_double_precision():
    proven(net(nn.LSTM, bias=False), rows())
    proven(net(nn.GRU).double(), rows().double())


class Fed(nn.Module):
    """A layer before the recurrent one, and another recurrent one after it."""

    def __init__(self, before, both=False):
        super().__init__()
        self.before = nn.Linear(C, 10) if before == "linear" else nn.Conv1d(C, 10, 3, padding=1)
        self.first, self.second = nn.LSTM(10, H, batch_first=True, bidirectional=both), nn.GRU(H * (1 + both), 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        y = self.before(x) if isinstance(self.before, nn.Linear) else self.before(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.second(self.first(torch.relu(y))[0].transpose(0, 1))[1][0])


@pytest.mark.parametrize(("before", "both"), [("linear", False), ("linear", True), ("conv", True)])
def test_inputs_are_cut_with_what_makes_them(before, both):
    torch.manual_seed(0)
    model = Fed(before, both).eval()
    small = proven(model, rows(), path="before", keep=4)
    assert small.first.input_size == 4 and small.first.weight_ih_l0.shape == (4 * H, 4)
    small = proven(model, rows(), path="first", keep=4)
    assert small.second.input_size == 4 * (1 + both) and small.first.hidden_size == 4
    assert proven(model, rows(), path="second", keep=4).second.hidden_size == 4
    groups = couple(model, (rows(),)).groups
    assert [g.name for g in groups] == ["before", "first", "second"]
    assert not inexact(model, groups, (rows(),), drops=[[0, 3], [1, 11], [0, 2, 8]])  # all at once


def test_states_and_outputs_joined_tie_two_layers():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.LSTM(C, H, batch_first=True), nn.GRU(C, H, batch_first=True)
            self.head = nn.Linear(H, 3)

        def forward(self, x):
            return self.head(self.a(x)[0][:, -1] + self.b(x)[0].mean(1))

    torch.manual_seed(0)
    small = proven(Sum().eval(), rows(), path="a")
    assert small.a.hidden_size == small.b.hidden_size == 5


class Whole(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.cells = nn.LSTM(C, H, batch_first=True, proj_size=5 if how == "proj" else 0)
        self.head = nn.Linear(5 if how == "proj" else H, 3)

    def forward(self, x):
        if self.how == "packed":
            lengths = torch.full((len(x),), T)
            return self.head(self.cells(pack_padded_sequence(x, lengths, batch_first=True))[1][0][0])
        if self.how == "states":
            h = torch.ones(1, len(x), H)
            return self.head(self.cells(x, (h, h))[0][:, -1])
        y = self.cells(x)[0]
        if self.how == "fixed":
            return self.head(y[:, -1].view(-1, H))
        return self.head(y[:, -1]) if self.how == "proj" else y[:, -1]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("proj", "proj_size"),
        ("packed", "packed sequences"),
        ("states", "initial states"),
        ("output", "makes the model's output"),
        ("fixed", "does not run"),
    ],
)
def test_what_is_left_whole_says_why(how, reason):
    torch.manual_seed(0)
    coupling = couple(Whole(how).eval(), (rows(),))
    assert not coupling.groups
    assert reason in coupling.whole["cells"]


def test_a_subclass_is_left_whole():
    class Mine(nn.LSTM):
        def forward(self, x, state=None):
            y, s = super().forward(x, state)
            return y.flip(-1), s

    coupling = couple(net(Mine), (rows(),))
    assert not coupling.groups and "Mine" in coupling.whole["cells"]


def test_normed_weights_are_left_whole():
    model = net(nn.GRU)
    nn.utils.parametrizations.weight_norm(model.cells, "weight_hh_l0")
    coupling = couple(model, (rows(),))
    assert not coupling.groups and "computed from other parameters" in coupling.whole["cells"]


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("pool", ["last", "mean"])
def test_the_nets_of_the_project(cell, both, pool):
    made = fw.RecurrentNet(in_channels=C, classes=3, cell=cell, hidden=H, layers=2, both_ways=both, pool=pool)
    model = made.build(0).eval()
    x = rows().transpose(1, 2)
    small = proven(model, x)
    assert small.cells.hidden_size == 5


@pytest.mark.parametrize(("cell", "layers", "both"), [(nn.LSTM, 1, False), (nn.GRU, 2, True)])
def test_saved_and_loaded(tmp_path, cell, layers, both):
    x = rows()
    small = proven(net(cell, layers, both), x)
    Package(small).save(tmp_path, lambda: Net(cell, layers, both))
    loaded = Package.load(tmp_path, lambda: Net(cell, layers, both)).module
    with torch.no_grad():
        assert torch.equal(loaded(x), small(x))
    assert loaded.cells.hidden_size == 5


@pytest.mark.parametrize(("cell", "layers", "both", "batch_first"), KINDS)
def test_what_goes_on_inside(cell, layers, both, batch_first):
    """Each matrix with the rows that are said to meet it: the sums of gates are the layer's own."""
    cells = net(cell, layers, both, batch_first).cells
    x = rows()
    seen = list(inside(cells, x if batch_first else x.transpose(0, 1)))
    assert [m.name for m, _, _ in seen] == [m.name for m in matrices(cells)]
    with torch.no_grad():
        y = cells(x if batch_first else x.transpose(0, 1))[0]
    y = y if batch_first else y.transpose(0, 1)
    m, past, made = seen[-1]
    mine = y[..., m.way * H : (m.way + 1) * H]
    torch.testing.assert_close(made, mine.mean(1))
    zero = torch.zeros(len(x), 1, H)  # the state at first
    want = torch.cat([mine[:, 1:], zero] if m.way else [zero, mine[:, :-1]], 1)
    torch.testing.assert_close(past, want.reshape(-1, H))
    torch.testing.assert_close(seen[0][1], x.reshape(-1, C))
