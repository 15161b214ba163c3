"""Cell against NAS-Bench-201: its published sizes and counts, the definition of a cell, and brute
force for what is the same net."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch

from featherweight.errors import InputError, RecipeError
from featherweight.measure.accuracy import evaluate, metric
from featherweight.models.package import Package
from featherweight.nets.cell import EDGES, OPS, Cell, _live, _signature
from featherweight.space import Space
from featherweight.train.loop import predict
from featherweight.transforms.prune import Prune
from featherweight.transforms.train import Train
from tests import toy

ALL = list(itertools.product(OPS, repeat=6))
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def cell(*ops, **more):
    return Cell(
        **{"in_channels": 1, "classes": 4, "width": 4, "cells": 1, **more},
        **{f"op_{t}_{s}": op for (t, s), op in zip(EDGES, ops, strict=True)},
    )


def numbers(*places):
    """Six operations by their places in `OPS`."""
    return tuple(OPS[i] for i in places)


def connected(ops):
    """By brute force over the four possible ways."""
    used = {e for e, op in zip(EDGES, ops, strict=True) if op != "none"}
    return any(set(way) <= used for way in ([(3, 0)], [(1, 0), (3, 1)], [(2, 0), (3, 2)], [(1, 0), (2, 1), (3, 2)]))


@cache
def signatures():
    return {ops: _signature(ops) for ops in ALL}


@pytest.mark.parametrize(
    "places, millions",
    [  # CIFAR-10, 16 channels, 5 cells a stage: "model_size" of the published table
        ((1, 1, 1, 1, 1, 1), 0.073306),
        ((3, 3, 3, 3, 3, 3), 1.531546),
        ((2, 2, 2, 2, 2, 2), 0.241306),
        ((0, 2, 1, 2, 1, 1), 0.129306),
        ((0, 2, 3, 3, 2, 3), 0.858426),
        ((1, 0, 1, 3, 4, 2), 0.344346),
    ],
)
def test_published_numbers_of_parameters(places, millions):
    net = Cell(3, 10, 16, 5, *numbers(*places))
    assert net.cost((3, 32, 32)).params == round(millions * 1e6)
    assert sum(p.numel() for p in net.build().parameters()) == round(millions * 1e6)


def test_text_form():
    net = Cell.parse(BEST, classes=100)
    assert str(net) == BEST and net.classes == 100
    assert (
        net == Cell(3, 100, 16, 5, *numbers(3, 3, 3, 1, 3, 3))
        and net.op_3_0 == "skip_connect"
        and net.op_2_1 == "nor_conv_3x3"
    )
    for wrong in ("", BEST[:-20], BEST.replace("~2", "~1"), BEST + BEST, "|".join(["nor_conv_3x3~0"] * 6)):
        with pytest.raises(InputError, match="text form"):
            Cell.parse(wrong)
    with pytest.raises(InputError):
        Cell.parse(BEST.replace("skip_connect", "skip"))


def test_the_space_opens_the_six_operations_only():
    space = Space(Cell.space())
    assert [h.path for h in space.holes] == ["op_1_0", "op_2_0", "op_2_1", "op_3_0", "op_3_1", "op_3_2"]
    assert space.size == 15_625


def test_a_cell_computes_the_sum_of_its_edges():
    """All edges in turn, dead ones too, from the definition in section 2.1; at initialisation a
    normalised zero is zero."""
    x = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(0))
    for i in np.random.default_rng(0).choice(len(ALL), 16, replace=False):
        ops = ALL[i]
        if not connected(ops):
            continue
        block = cell(*ops, width=8).build()[1][0]
        nodes = [x]
        with torch.no_grad():
            for t in (1, 2, 3):
                edges = [(s, f"op_{t}_{s}") for s in range(t) if f"op_{t}_{s}" in block.edges]
                nodes.append(sum((block.edges[name](nodes[s]) for s, name in edges), torch.zeros_like(x)))
            torch.testing.assert_close(block(x), nodes[3])


def test_operations():
    """ReLU, convolution, normalisation in this order; average pooling leaves the border
    out of its count."""
    net = cell("nor_conv_1x1", "none", "none", "none", "nor_conv_3x3", "none").build()
    assert [type(m).__name__ for m in net[1][0].edges["op_1_0"]] == ["ReLU", "Conv2d", "BatchNorm2d"]
    assert [net[1][0].edges[name][1].kernel_size for name in ("op_1_0", "op_3_1")] == [(1, 1), (3, 3)]
    pool = cell("none", "none", "none", "avg_pool_3x3", "none", "none").build()[1][0]
    assert torch.equal(pool(torch.ones(1, 4, 3, 3)), torch.ones(1, 4, 3, 3))


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (2, 1)])
def test_stages_double_the_channels_and_halve_the_size(size):
    net = cell(*numbers(3, 0, 1, 1, 0, 1), cells=2).build()
    x, sizes = torch.zeros(2, 1, *size), []
    with torch.no_grad():
        for part in net[:6]:
            x = part(x)
            sizes.append(tuple(x.shape[1:]))
        assert net(torch.zeros(2, 1, *size)).shape == (2, 4)
    halves = [tuple(math.ceil(n / 2**k) for n in size) for k in range(3)]
    assert sizes == [
        (4, *halves[0]),
        (4, *halves[0]),
        (8, *halves[1]),
        (8, *halves[1]),
        (16, *halves[2]),
        (16, *halves[2]),
    ]
    assert [len(net[i]) for i in (1, 3, 5)] == [2, 2, 2]


def test_cells_that_are_constants_are_refused():
    wrong = []
    for ops in ALL[::7]:
        try:
            cell(*ops).check()
            refused = False
        except InputError:
            refused = True
        wrong += [ops] if refused == connected(ops) else []
    assert not wrong and all(bool(_live(ops)) == connected(ops) for ops in ALL)
    with pytest.raises(InputError, match="would be a constant"):
        cell(*numbers(3, 3, 3, 0, 0, 0)).build()
    with pytest.raises(InputError, match="would be a constant"):
        cell(*numbers(0, 0, 3, 0, 3, 3)).cost((1, 8, 8))


def test_canonical_leaves_out_what_leads_nowhere():
    assert cell(*numbers(3, 2, 3, 1, 4, 0)).canonical() == cell(*numbers(3, 0, 0, 1, 4, 0))  # node 2 is not asked for
    assert cell(*numbers(0, 2, 3, 1, 4, 1)).canonical() == cell(*numbers(0, 2, 0, 1, 0, 1))  # node 1 has no input
    full = cell(*numbers(3, 2, 1, 1, 2, 4))
    assert full.canonical() == full
    with pytest.raises(RecipeError, match="still has holes"):
        Cell.space().canonical()
    net = cell(*numbers(3, 2, 3, 1, 4, 0))
    whole, slim = net.build(), net.canonical().build()
    kept = {k: v for k, v in whole.state_dict().items() if k in slim.state_dict()}
    slim.load_state_dict(kept)
    x = torch.randn(2, 1, 6, 6)
    with torch.no_grad():
        assert torch.equal(whole(x), slim(x)) and len(kept) < len(whole.state_dict())


def test_numbers_of_unique_cells():
    """Section 2.1: 6,466 unique cells of 15,625, and 12,751 when none is told from no edge; here
    the rule of the published code."""

    def published(ops, zeros):
        nodes, named = {0: "0"}, dict(zip(EDGES, ops, strict=True))
        for t in (1, 2, 3):
            terms = []
            for s in range(t):
                op = named[t, s]
                gone = zeros and (op == "none" or nodes[s] == "#")
                terms.append("#" if gone else nodes[s] if op == "skip_connect" else f"({nodes[s]})@{op}")
            nodes[t] = "+".join(sorted(terms))
        return nodes[3]

    def bare(signature):
        return "".join(c for c in signature.replace("3x3", "three").replace("1x1", "one") if not c.isdigit())

    assert len({published(ops, True) for ops in ALL}) == 6_466
    assert len({published(ops, False) for ops in ALL}) == 12_751
    ours = signatures()
    assert len(set(ours.values())) == 5_260
    # shared and separate convolutions taken for the same: fewer, as in the paper
    assert len({bare(s) for s in ours.values()}) == 4_930
    assert sum(s == "" for s in ours.values()) == sum(not connected(ops) for ops in ALL) == 341


def value(ops, functions, x):
    """A cell in which each convolution is a scalar function of its own, and pooling one for all."""
    nodes, named = {0: x}, dict(zip(EDGES, ops, strict=True))
    for t in (1, 2, 3):
        terms = []
        for s in range(t):
            if named[t, s] == "none" or nodes[s] is None:
                continue
            y = nodes[s]
            terms.append(
                y
                if named[t, s] == "skip_connect"
                else math.tanh(0.7 * y + 0.2)
                if named[t, s] == "avg_pool_3x3"
                else functions[t, s](y)
            )
        nodes[t] = sum(terms) if terms else None
    return nodes[3]


def same_net(a, b):
    """By brute force: some pairing of the convolutions, size by size,
    makes the two functions equal."""
    rng = np.random.default_rng(0)
    slots = {
        e: (lambda y, u=u, v=v: math.sin(u * y + v))
        for e, u, v in zip(EDGES, rng.uniform(1, 2, 6), rng.uniform(0, 1, 6), strict=True)
    }
    live_a, live_b = cell(*a).canonical().ops, cell(*b).canonical().ops
    sizes = ("nor_conv_1x1", "nor_conv_3x3")
    of_a, of_b = (
        [[e for e, op in zip(EDGES, ops, strict=True) if op == size] for size in sizes] for ops in (live_a, live_b)
    )
    if [len(g) for g in of_a] != [len(g) for g in of_b]:
        return False
    want = [value(live_a, slots, x) for x in (0.3, -1.1)]
    for ones in itertools.permutations(of_a[0]):
        for threes in itertools.permutations(of_a[1]):
            paired = {
                **dict(zip(of_b[0], (slots[e] for e in ones), strict=True)),
                **dict(zip(of_b[1], (slots[e] for e in threes), strict=True)),
            }
            if all(abs(value(live_b, paired, x) - w) < 1e-9 for x, w in zip((0.3, -1.1), want, strict=True)):
                return True
    return False


def test_equal_signatures_are_equal_functions():
    ours = {ops: s for ops, s in signatures().items() if connected(ops)}
    groups, near = {}, {}
    for ops, s in ours.items():
        groups.setdefault(s, []).append(ops)
        near.setdefault(tuple(sorted(op for e, op in zip(EDGES, ops, strict=True) if e in _live(ops))), []).append(ops)
    rng = np.random.default_rng(0)
    shared = [g for g in groups.values() if len(g) > 1]
    for i in rng.choice(len(shared), 150, replace=False):
        a, b = (shared[i][j] for j in rng.choice(len(shared[i]), 2, replace=False))
        assert same_net(a, b), (a, b)
    likely = [g for g in near.values() if len(g) > 1]  # made of the same operations
    met = 0
    for i in rng.choice(len(likely), 150, replace=True):
        a, b = (likely[i][j] for j in rng.choice(len(likely[i]), 2, replace=False))
        assert same_net(a, b) == (ours[a] == ours[b]), (a, b)
        met += ours[a] != ours[b]
    assert met > 50


def test_signatures_tell_shared_from_separate_convolutions_and_sizes_apart():
    shared = cell(*numbers(3, 0, 1, 0, 1, 1))  # one convolution, its result added to itself
    separate = cell(*numbers(3, 3, 0, 0, 1, 1))
    assert shared.signature() != separate.signature()
    assert shared.signature() == "1:4:4:1:" + _signature(shared.ops)
    assert separate.signature() == cell(*numbers(0, 3, 0, 3, 0, 1)).signature()
    with pytest.raises(RecipeError, match="still has holes"):
        Cell.space().signature()
    assert len({Cell(width=w, cells=c).signature() for w in (8, 16) for c in (1, 2)}) == 4


def test_a_cell_learns_and_can_be_pruned():
    # one of its convolutions leads nowhere
    t = toy.task(lambda: cell(*numbers(3, 2, 3, 1, 4, 0), width=8).build())
    trained = Train(epochs=4, lr=1e-2, batch_size=16).apply(Package(t.build()), toy.context(t))
    valid = t.splits().valid

    def accuracy(package):
        return evaluate(
            metric(t.metric), predict(package.module, valid), valid.batch(np.arange(len(valid)))[1], seed=0
        ).value

    assert accuracy(trained) > 0.8
    slim = Prune(ratio=0.25, round_to=2, criterion="magnitude").apply(trained, toy.context(t))
    assert sum(p.numel() for p in slim.module.parameters()) < sum(p.numel() for p in trained.module.parameters())
    assert predict(slim.module, valid).shape == (len(valid), 4)
