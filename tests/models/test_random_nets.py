"""Surgery on nets at random: what is cut computes what the silenced net computes, is exported as
that, and loads as that."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.graphs import export
from featherweight.models.coupling import couple
from featherweight.models.cutting import cut
from featherweight.models.package import Package
from tests import odd_nets, random_nets


def check(names, end, seed, tmp_path=None):
    """The number of groups, if all is well."""
    net = random_nets.build(names, end, seed)
    before = copy.deepcopy(net.state_dict())
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 1, 8, 8, generator=generator)
    coupling = couple(net, (x,), "all")
    after = net.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items()), "the net was changed"
    groups = coupling.groups
    drops = [
        torch.randperm(n, generator=generator)[: max(1, int(n * torch.rand((), generator=generator)))].tolist()[: n - 1]
        for n in (len(g.units) for g in groups)
    ]
    small = copy.deepcopy(net)
    cut(small, groups, drops)
    wide = (torch.randn(6, 1, 8, 8, generator=generator),)
    exact = (wide[0].double(),)  # so that nothing is put down to rounding
    with torch.no_grad():
        got = copy.deepcopy(small).double()(*exact)
    want = odd_nets.silent(copy.deepcopy(net).double(), exact, groups, drops)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(float(want.abs().max()), 1e-30))
    if tmp_path is not None:
        Package(small).save(tmp_path, lambda: random_nets.build(names, end, seed))
        loaded = Package.load(tmp_path, lambda: random_nets.build(names, end, seed)).module
        with torch.no_grad():
            assert torch.equal(loaded(*wide), small(*wide))
        export.export_onnx(small, {"x": wide[0][:1]}, {"x": wide[0]}, tmp_path / "m.onnx")
    return len(groups)


@pytest.mark.parametrize("name", random_nets.STAGES)
def test_every_stage_between_plain_ones(name):
    assert all(check(["Plain", name, "Plain"], "Pooled", seed) for seed in range(2))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(sorted(random_nets.STAGES)), min_size=1, max_size=3),
    st.sampled_from(sorted(random_nets.ENDS)),
    st.integers(0, 99),
)
def test_any_stages_in_any_order(names, end, seed):
    check(names, end, seed)


@pytest.mark.parametrize("seed", range(12))
def test_nets_at_random_are_exported_and_load(seed, tmp_path):
    check(*random_nets.drawn(seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1400, 50))
def test_many_nets_at_random(start):
    assert sum(check(*random_nets.drawn(seed)) for seed in range(start, start + 50)) > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2100))
def test_many_nets_at_random_are_exported_and_load(seed, tmp_path):
    check(*random_nets.drawn(seed), tmp_path)
