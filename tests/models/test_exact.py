"""Every cut is exact, or the layer is left whole by its name."""

import copy

import pytest
import torch

from featherweight.models.coupling import couple
from featherweight.models.cutting import cut
from featherweight.models.package import Package
from tests import nets

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


@pytest.mark.parametrize("kind", nets.KINDS)
def test_what_can_be_cut_is_found_and_what_cannot_is_named(kind):
    net, x = nets.made(kind)
    coupling = couple(net, x)
    groups, whole = WANT[kind]
    assert {g.name: (len(g.units), g.size) for g in coupling.groups} == groups
    assert coupling.whole.keys() == whole.keys() and all(why in coupling.whole[p] for p, why in whole.items())


@pytest.mark.parametrize("kind", [k for k in nets.KINDS if WANT[k][0]])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_cut_net_is_the_silenced_one_and_reloads(kind, share, tmp_path):
    net, x = nets.made(kind)
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
        whole, got = nets.flat(net(*wide)), nets.flat(small(*wide))
    want = nets.flat(nets.silent(net, wide, groups, drops))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))
    assert not torch.allclose(got, whole, rtol=1e-3), "a test that cannot fail"
    Package(small).save(tmp_path, nets.KINDS[kind])
    loaded = Package.load(tmp_path, nets.KINDS[kind]).module
    with torch.no_grad():
        assert torch.equal(nets.flat(loaded(*wide)), got)
