"""Every cut is exact, or the layer is left whole by its name."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.coupling import couple, output_layers
from featherweight.models.cutting import cut, without
from featherweight.models.exact import inexact
from featherweight.models.package import Package
from tests import odd_nets

# {kind of net: ({group: (units, channels of each)}, {layer that is left whole: why})}
END = "makes the model's output"
WANT = {
    "shuffled": ({"a": (8, 2), "g1": (4, 4), "g2": (8, 2), "c": (12, 1)}, {"out": END}),
    "shuffled by a module": ({"a": (8, 2), "g1": (4, 4), "g2": (8, 2), "c": (12, 1)}, {"out": END}),
    "dealt": ({"a": (4, 4), "c": (12, 1)}, {"out": END}),
    "dealt by number": ({"c": (12, 1)}, {"a": "does not run", "out": END}),
    "class token": ({"f1": (64, 1)}, {"patch": "heads", "f2": "heads", "out": END}),
    **{f"ends {end}": ({"a": (16, 1), "b": (24, 1)}, {"out": END}) for end in ("softmax", "log_softmax", "scaled")},
    **{
        f"ends {end}": ({"a": (16, 1), "b": (24, 1)}, {"out": END, "twin": END}) for end in ("heads", "stacked", "dict")
    },
    "ends pooled": ({"a": (16, 1), "b": (24, 1)}, {"point": END}),
    "channels last": ({"a": (12, 1), "b": (6, 1), "mix": (20, 1)}, {"out": END}),
    "frozen": ({"a": (16, 1), "b": (24, 1)}, {"out": END}),
    "imagined": ({"inp": (16, 16), "up1": (12, 1), "up2": (8, 1)}, {"head": END}),
    "pixel shuffled": ({"a": (16, 1), "b": (8, 4), "c": (12, 1), "d": (8, 1)}, {"out": END}),
    "scaled": ({"a": (16, 1), "b": (20, 1), "c": (12, 1)}, {"out": END}),
    "sliced": ({"a (2)": (8, 1), "b": (8, 1), "c": (12, 1)}, {"a": "does not run", "out": END}),
    "sliced in halves": ({"a": (8, 2), "b": (8, 1), "c": (12, 1)}, {"out": END}),
    "packed gate": ({"a": (16, 1), "w12": (24, 2)}, {"out": END}),
    "group norm": ({"a": (4, 4), "b": (12, 1)}, {"out": END}),
    "one group norm": ({"b": (12, 1)}, {"a": "GroupNorm", "out": END}),
    "computed": ({}, {"a": "computed", "b": "computed", "c": "computed", "out": END}),
    "multiplied": ({"a": (8, 1), "c": (12, 1)}, {"out": END}),
    "aside": ({"a": (16, 1)}, {"h": "no layer reads it", "out": END}),
}


@pytest.mark.parametrize("kind", odd_nets.KINDS)
def test_what_can_be_cut_is_found_and_what_cannot_is_named(kind):
    net, x = odd_nets.made(kind)
    coupling = couple(net, x)
    groups, whole = WANT[kind]
    assert {g.name: (len(g.units), g.size) for g in coupling.groups} == groups
    assert coupling.whole.keys() == whole.keys() and all(why in coupling.whole[p] for p, why in whole.items())


@pytest.mark.parametrize("kind", [k for k in odd_nets.KINDS if WANT[k][0]])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_cut_net_is_the_silenced_one_and_reloads(kind, share, tmp_path):
    net, x = odd_nets.made(kind)
    groups = couple(net, x).groups
    generator = torch.Generator().manual_seed(5)
    drops = [
        torch.randperm(n, generator=generator)[: min(n - 1, round(share * n))].tolist()
        for n in map(len, (g.units for g in groups))
    ]
    small = copy.deepcopy(net)
    cut(small, groups, drops)
    wide = (torch.randn(5, *x[0].shape[1:]),)
    with torch.no_grad():
        whole, got = odd_nets.flat(net(*wide)), odd_nets.flat(small(*wide))
    want = odd_nets.flat(odd_nets.silent(net, wide, groups, drops))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))
    assert not torch.allclose(got, whole, rtol=1e-3), "a test that cannot fail"
    Package(small).save(tmp_path, odd_nets.KINDS[kind])
    loaded = Package.load(tmp_path, odd_nets.KINDS[kind]).module
    with torch.no_grad():
        assert torch.equal(odd_nets.flat(loaded(*wide)), got)


def wrong(group):
    """The group with the columns of its readers in another order."""
    return replace(
        group,
        members=tuple(replace(m, position=m.position[1:] + m.position[:1]) if m.axis else m for m in group.members),
    )


@pytest.mark.parametrize("kind", ["channels last", "scaled", "packed gate"])
def test_a_wrong_group_is_found_among_right_ones(kind):
    net, x = odd_nets.made(kind)
    right, odd = couple(net, x).groups[0], couple(net, x).groups[1:]
    before = copy.deepcopy(net.state_dict())
    assert inexact(net, [right, *odd], x) == {}
    assert inexact(net, [wrong(right), *odd], x).keys() == {right.name}
    assert inexact(net, [wrong(right)], x, given=odd).keys() == {right.name}
    after = net.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())


def test_the_units_that_are_to_go_are_what_is_proven():
    net, x = odd_nets.made("channels last")
    groups = couple(net, x).groups
    odd = [wrong(groups[0]), *groups[1:]]
    assert inexact(net, odd, x, drops=[[], [0], [1]]) == {}
    assert inexact(net, odd, x, drops=[[2], [0], [1]]).keys() == {"a"}


def test_channels_that_the_examples_leave_dead_are_seen():
    """Behind a ReLU that lets nothing through a wrong cut shows with noise alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    net[0].bias.data.fill_(-100.0)
    x = (torch.randn(4, 6),)
    right = couple(net, x).groups[0]
    assert right.name == "0" and inexact(net, [right], x) == {}
    assert inexact(net, [wrong(right)], x).keys() == {"0"}


def test_a_cut_on_trial_leaves_the_very_parameters():
    net, x = odd_nets.made("scaled")
    groups = couple(net, x).groups
    parameters, sizes = dict(net.named_parameters()), {n: dict(vars(m)) for n, m in net.named_modules()}
    with pytest.raises(KeyError), without(net, groups, [[0]] * len(groups)):
        assert net.gamma.shape == (15, 1, 1) and net.shift.shape == (1, 19, 1, 1) and net.act.num_parameters == 11
        raise KeyError
    assert all(p is parameters[n] for n, p in net.named_parameters())
    assert all(vars(m) == sizes[n] for n, m in net.named_modules())


def test_frozen_layers_are_cut_as_others_and_stay_frozen():
    net, x = odd_nets.made("frozen")
    groups = couple(net, x).groups
    assert groups == couple(odd_nets.Frozen(False).eval(), x).groups
    cut(net, groups, [[0]] * len(groups))
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {"out.weight", "out.bias"}


def test_one_group_that_fails_costs_no_other():
    """The model's code knows the width of one of its layers; that one alone is left whole."""

    class Known(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(12, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = torch.relu(self.b(torch.relu(self.a(x))))
            assert x.shape[1] == 16
            return self.c(x)

    torch.manual_seed(0)
    coupling = couple(Known().eval(), (torch.randn(3, 8),))
    assert [g.name for g in coupling.groups] == ["a"] and "AssertionError" in coupling.whole["b"]


@pytest.mark.parametrize("end", odd_nets.ENDS)
def test_layers_that_make_the_output(end):
    net, x = odd_nets.made(f"ends {end}")
    want = {"heads": ["out", "twin"], "stacked": ["out", "twin"], "dict": ["out", "twin"], "pooled": ["point"]}
    paths = {m: path for path, m in net.named_modules()}
    assert [paths[m] for m in output_layers(net, x)] == want.get(end, ["out"])


class Twofold(nn.Linear):
    """Gives its bias beside its output, as layers that are spread over devices do."""

    def forward(self, x):
        return super().forward(x), self.bias


def test_a_layer_that_gives_more_than_a_tensor_costs_itself_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(8, 12), Twofold(12, 16), nn.Linear(16, 10), nn.Linear(10, 3)

        def forward(self, x):
            return self.d(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))[0]))))

    coupling = couple(Net().eval(), (torch.randn(3, 8),))
    assert [g.name for g in coupling.groups] == ["c"]
    assert "something else" in coupling.whole["b"] and "something else" in coupling.whole["a"]


def test_a_model_that_cannot_be_followed_is_left_whole():
    class Shy(nn.Module):
        """Runs only where nobody looks."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 3)

        def forward(self, x):
            if self.a._forward_hooks:
                raise RuntimeError("do not look")
            return self.b(self.a(x))

    coupling = couple(Shy().eval(), (torch.randn(3, 8),))
    assert coupling.groups == () and all("do not look" in coupling.whole[p] for p in "ab")
    with pytest.raises(InputError, match="do not look"):
        output_layers(Shy().eval(), (torch.randn(3, 8),))
