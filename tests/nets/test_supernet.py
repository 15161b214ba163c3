"""The relaxed Cell against the nets that its paths are."""

import itertools

import pytest
import torch

from featherweight.errors import InputError
from featherweight.nets._supernet import SuperNet
from featherweight.nets.cell import EDGES, OPS, Cell
from featherweight.seeding import generator
from featherweight.space import Choice, Space
from featherweight.train.shared_net import batch_statistics

FIXED = {"in_channels": 1, "classes": 3, "width": 4, "cells": 2}
X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def copied(supernet, cell):
    """The net that `cell` builds, with the supernet's weights."""
    module = batch_statistics(cell.module())
    stages, parts = [], iter(supernet.body)
    for stage in range(3):
        if stage:
            stages.append(next(parts))
        stages += [next(parts) for _ in range(FIXED["cells"])]
    own = []
    for part in list(module)[1:6]:
        own += list(part) if isinstance(part, torch.nn.Sequential) else [part]
    module[0].load_state_dict(supernet.stem.state_dict())
    for mine, theirs in zip(own, stages, strict=True):
        if hasattr(theirs, "operations"):
            for (t, s), op in zip(EDGES, cell.ops, strict=True):
                if op != "none":
                    mine.edges[f"op_{t}_{s}"].load_state_dict(
                        theirs.operations[f"op_{t}_{s}"][op].state_dict(), strict=False
                    )
        else:
            mine.load_state_dict(theirs.state_dict())
    module[6][0].load_state_dict(supernet.head[0].state_dict())
    module[9].load_state_dict(supernet.head[4].state_dict())
    return module.eval()


@pytest.mark.parametrize("seed", range(4))
def test_a_path_is_the_net_that_the_filling_builds(seed):
    net = Cell.space(**FIXED)
    torch.manual_seed(0)
    supernet = SuperNet(net).eval()
    filling = supernet.sample(generator(seed, "path"))
    cell = Space(net).fill(filling)
    try:
        cell.check()
    except InputError:
        filling["op_3_0"] = "nor_conv_3x3"
        cell = Space(net).fill(filling)
    with torch.no_grad():
        torch.testing.assert_close(supernet(X, supernet.path(filling)), copied(supernet, cell)(X), rtol=1e-4, atol=1e-5)


def test_the_mixture_of_one_open_edge_to_the_output_is_a_weighted_sum_before_the_head():
    """Eq. 2 of DARTS, by hand on one cell."""
    net = Cell(
        **{**FIXED, "cells": 1},
        op_1_0="none",
        op_2_0="none",
        op_2_1="none",
        op_3_0=Choice(*OPS),
        op_3_1="none",
        op_3_2="none",
    )
    supernet = SuperNet(net).eval()
    cell, x = supernet.body[0], torch.randn(2, 4, 8, 8)
    m = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])
    ops = cell.operations["op_3_0"]
    want = 0.2 * x + 0.3 * ops["nor_conv_1x1"](x) + 0.15 * ops["nor_conv_3x3"](x) + 0.25 * ops["avg_pool_3x3"](x)
    torch.testing.assert_close(cell(x, {"op_3_0": m}), want)


def test_ranking_is_the_order_of_the_joint_probability():
    few = Choice("none", "skip_connect", "nor_conv_1x1")
    net = Cell(**FIXED, op_1_0=few, op_2_0="none", op_2_1="none", op_3_0=few, op_3_1=few, op_3_2="none")
    supernet = SuperNet(net)
    g = torch.Generator().manual_seed(3)
    for a in supernet.arch_parameters():
        a.data = torch.randn(3, generator=g)
    p = {k: v.tolist() for k, v in supernet.probabilities().items()}
    brute = []
    for values in itertools.product(range(3), repeat=3):
        filling = {k: few.items[i] for k, i in zip(p, values, strict=True)}
        try:
            Space(net).fill(filling).check()
        except InputError:
            continue
        brute.append((sum(torch.tensor([p[k][i] for k, i in zip(p, values, strict=True)]).log().tolist()), filling))
    brute.sort(key=lambda pair: -pair[0])
    found = supernet.ranked(100)
    assert [f for f, _ in found] == [f for _, f in brute] and len(found) < 27
    assert [s for _, s in found] == pytest.approx([s for s, _ in brute], abs=1e-5)
    assert supernet.derive() == brute[0][1]


@pytest.mark.parametrize("what", ["params", "macs"])
def test_costs_add_up_to_those_of_the_net(what):
    net = Cell.space(**FIXED)
    supernet = SuperNet(net)
    costs = supernet.costs((1, 8, 8), what)
    bare = Cell(**FIXED, **dict.fromkeys(supernet.options, "skip_connect"))
    rng = generator(0, what)
    for _ in range(30):
        filling = {p: OPS[1 + int(rng.integers(4))] for p in supernet.options}  # no edge is dead
        total = float(getattr(bare.cost((1, 8, 8)), what)) + sum(
            float(costs[p][OPS.index(o)]) for p, o in filling.items()
        )
        assert total == getattr(Space(net).fill(filling).cost((1, 8, 8)), what)
    with pytest.raises(InputError):
        supernet.costs((1, 8, 8), "beauty")


def test_alphas_and_weights_are_all_parameters_once():
    supernet = SuperNet(Cell.space(**FIXED))
    alphas, weights = supernet.arch_parameters(), supernet.weight_parameters()
    assert [len(a) for a in alphas] == [5] * 6
    assert {id(p) for p in [*alphas, *weights]} == {id(p) for p in supernet.parameters()}
    assert len(alphas) + len(weights) == len(list(supernet.parameters()))
