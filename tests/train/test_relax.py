"""Searches over a supernet on four classes of tiny images, and the weights that all paths share."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from featherweight.errors import InputError
from featherweight.nets._supernet import SuperNet
from featherweight.nets.cell import Cell
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.mlp import Mlp
from featherweight.records import History
from featherweight.seeding import generator
from featherweight.space import Choice, Int, Node, Space
from featherweight.strategies.gradient import Gradient
from featherweight.strategies.oneshot import Oneshot
from featherweight.train import _darts
from featherweight.train._oneshot import draw_pool
from featherweight.train.relax import ranked_texts, run_relax
from featherweight.train.relax_settings import Relax
from featherweight.train.shared_net import SharedNet, batch_statistics, corner
from tests import toy

FIXED = {"in_channels": 1, "classes": 4, "width": 4, "cells": 1}
FEW = Choice("none", "skip_connect", "nor_conv_1x1")
SMALL = Cell(**FIXED, op_1_0=FEW, op_2_0="skip_connect", op_2_1=FEW, op_3_0="none", op_3_1="none", op_3_2=FEW)
BRIEF = Relax(epochs=2, batch_size=16, lr=0.05, alpha_lr=0.05, most_skips=6)


def relax(net=SMALL, seed=0, costs=None, n=64, report=lambda _: None, **changes):
    if isinstance(net, Cell) and changes.get("method") != "oneshot":
        torch.manual_seed(seed)
        net = SuperNet(net)
    return run_relax(toy.task(n=n), net, dataclasses.replace(BRIEF, **changes), seed, report, costs=costs)


@pytest.mark.parametrize("method, unrolled", [("darts", False), ("darts", True), ("gumbel", False), ("oneshot", False)])
def test_a_search_is_deterministic_and_gives_fillings_of_the_net(method, unrolled):
    said = []
    state = torch.get_rng_state()
    first = relax(method=method, unrolled=unrolled, report=said.append, top=4, pool=6, prefix="build.net")
    torch.set_rng_state(state)
    again = relax(method=method, unrolled=unrolled, top=4, pool=6, prefix="build.net")
    assert first == again and json.loads(json.dumps(first, allow_nan=False)) == first
    assert first["ranked"][0] == first["filling"] and len(first["ranked"]) == 4
    assert first["scores"] == sorted(first["scores"], reverse=True)
    for filling in first["ranked"]:
        Space(SMALL).fill({path.removeprefix("build.net."): v for path, v in filling.items()}).check()
    assert [e["epoch"] for e in said] == [1, 2]
    assert first["stopped"] is None


@pytest.mark.parametrize("method", ["darts", "gumbel"])
def test_alphas_move_and_the_warmup_holds_them(method):
    log = relax(method=method, warmup=1, epochs=5)["log"]
    even = [1 / 3] * 3
    assert log[0]["p"]["op_1_0"] == pytest.approx(even) and "outer_loss" not in log[0]
    assert all(max(abs(a - b) for a, b in zip(p, even, strict=True)) > 1e-3 for p in log[4]["p"].values())


def test_the_global_generator_is_left_as_it_was():
    net = SuperNet(SMALL)
    state = torch.get_rng_state()
    run_relax(toy.task(n=32), net, {"epochs": 1, "batch_size": 16}, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_planted_advantage_of_skips_is_stopped_with_evidence():
    planted = {p: [1.0, 0.0, 1.0] for p in ("op_1_0", "op_2_1", "op_3_2")}
    result = relax(costs=planted, cost_weight=20.0, epochs=4, most_skips=1, alpha_lr=0.02)
    stop = next(e for e in result["log"] if e["event"] == "stopped")
    assert result["stopped"] == "skip" and stop["count"] > 1 and stop["alphas of epoch"] == stop["epoch"] - 1
    free = relax(costs=planted, cost_weight=20.0, epochs=4, most_skips=3, alpha_lr=0.02)
    assert free["stopped"] is None and set(free["filling"].values()) == {"skip_connect"}


def test_a_rising_eigenvalue_is_stopped_and_older_alphas_are_given_back(monkeypatch):
    planned = iter([1.0, 1.0, 4.0, 4.0])
    monkeypatch.setattr(_darts, "largest_eigenvalue", lambda *_: next(planned))
    result = relax(hessian=True, window=1, epochs=4)
    stop = next(e for e in result["log"] if e["event"] == "stopped")
    assert (
        result["stopped"] == "hessian" and stop["epoch"] == 3 and stop["alphas of epoch"] == 2 and stop["ratio"] == 0.25
    )
    options, p = SuperNet(SMALL).options, result["log"][1]["p"]  # after epoch 2
    want = sum(np.log(p[path][options[path].index(op)]) for path, op in result["filling"].items())
    assert result["scores"][0] == pytest.approx(want, abs=1e-6)


def test_a_real_eigenvalue_is_in_the_log():
    assert all(np.isfinite(e["eigenvalue"]) for e in relax(hessian=True)["log"] if e["event"] == "epoch")


@pytest.mark.parametrize("method", ["darts", "gumbel"])
def test_a_heavy_cost_chooses_cheap_operations(method):
    result = relax(method=method, cost="macs", cost_weight=10.0, epochs=5, alpha_lr=0.1)
    costs = [e["expected_cost"] for e in result["log"] if e["event"] == "epoch"]
    assert costs[-1] < 0.15 and costs[-1] < costs[0] < 1 / 3
    assert "nor_conv_1x1" not in result["filling"].values()
    spared = relax(method=method, cost="macs", cost_weight=10.0, cost_target=1.0, epochs=5, alpha_lr=0.1)
    assert spared["log"][4]["expected_cost"] > 0.15


@dataclasses.dataclass(frozen=True)
class Sees(Node):
    """A linear net that sees what its filling allows: planted, the more it sees the better.
    `width` is shared in corners."""

    top: str = "all"
    bottom: str = "all"
    width: int = 8

    def check(self):
        pass

    def module(self):
        shown = {"all": 1.0, "faint": 0.05, "nothing": 0.0}
        mask = torch.cat([torch.full((32,), shown[self.top]), torch.full((32,), shown[self.bottom])])
        return nn.Sequential(nn.Flatten(), Masked(mask), nn.Linear(64, self.width), nn.ReLU(), nn.Linear(self.width, 4))


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return x * self.mask


def test_one_shot_finds_the_planted_order():
    seen = Choice("all", "faint", "nothing")
    net = Sees(seen, seen, Int(4, 8, step=4))
    result = run_relax(
        toy.task(n=320), net, Relax(method="oneshot", epochs=30, batch_size=32, lr=0.1, pool=18, top=18), 0
    )
    planted = [sum({"all": 2, "faint": 1, "nothing": 0}[f[k]] for k in ("top", "bottom")) for f in result["ranked"]]
    assert len(planted) == 18
    assert spearmanr(planted, result["scores"]).statistic > 0.6
    assert planted[0] == 4 and planted[-1] == 0


def test_ranked_fillings_reach_the_strategies():
    result = relax(top=3)
    for strategy in (Gradient(ranked=ranked_texts(result)), Oneshot(ranked=ranked_texts(result))):
        proposals = strategy.propose(Space(SMALL), History(), 3, generator(0))
        assert [p.filling for p in proposals] == result["ranked"]


def test_corner():
    w = torch.arange(4 * 3 * 5 * 5.0).reshape(4, 3, 5, 5)
    assert torch.equal(corner(w, (2, 3, 3, 3)), w[:2, :, 1:4, 1:4])
    assert torch.equal(corner(w, w.shape), w)
    assert corner(w, (1, 1, 1, 1)).item() == w[0, 0, 2, 2]


NETS = [
    (
        ConvNet.space(in_channels=1, classes=4, stem=8, widths=(8, Int(8, 16, step=8)), depths=(1, Int(1, 2))),
        torch.randn(4, 1, 8, 8),
    ),
    (Mlp.space(features=64, classes=4), torch.randn(4, 64)),
    (SMALL, torch.randn(4, 1, 8, 8)),
]


@pytest.mark.parametrize("net, x", NETS, ids=lambda v: getattr(v, "kind", ""))
def test_a_path_is_the_net_itself_with_corners_of_the_shared_weights(net, x):
    pool = draw_pool(net, 4, 0)
    shared = SharedNet(net, pool)
    for filling in pool:
        module = batch_statistics(Space(net).fill(filling).module())
        with torch.no_grad():
            for name, p in module.named_parameters():
                matches = [
                    w
                    for n, w in shared.shared.items()
                    if n.replace(":", ".").partition("/")[0] == name and w.ndim == p.ndim
                ]
                fitting = [w for w in matches if all(a >= b for a, b in zip(w.shape, p.shape, strict=True))]
                assert fitting, name
                if len(matches) == 1:
                    p.copy_(corner(matches[0], p.shape))
                else:  # kinds of layers apart: of a convolution, 1x1 or wider, depthwise or not
                    p.copy_(
                        corner(
                            next(
                                w
                                for w in fitting
                                if (w[0, 0].numel() == 1) == (p[0, 0].numel() == 1)
                                and (w.shape[1] == 1) == (p.shape[1] == 1)
                            ),
                            p.shape,
                        )
                    )
        shared.eval(), module.eval()
        torch.testing.assert_close(shared(filling, x), module(x))


def test_paths_share_their_weights():
    net = Sees("all", "all", Int(4, 8, step=4))
    shared = SharedNet(net, draw_pool(net, 2, 0))
    widest = {tuple(p.shape) for p in Sees().module().parameters()}
    assert {tuple(p.shape) for p in shared.parameters()} == widest and len(list(shared.parameters())) == 4
    shared({"width": 4}, torch.randn(4, 1, 8, 8)).square().sum().backward()
    grad = next(p.grad for p in shared.parameters() if p.shape == (8, 64))
    assert grad[:4].abs().sum() > 0 and grad[4:].abs().sum() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Relax(method="magic"),
        lambda: Relax(epochs=0),
        lambda: Relax(lr=0.0),
        lambda: Relax(temperature=(1.0, 0.0)),
        lambda: Relax(method="oneshot", cost="macs", cost_weight=1.0),
        lambda: run_relax(toy.task(n=32), SuperNet(SMALL), {"epoch": 1}, 0),
        lambda: run_relax(toy.task(n=32), Mlp.space(features=64, classes=4), {}, 0),
        lambda: run_relax(toy.task(n=32), Mlp(features=64, classes=4), {"method": "oneshot"}, 0),
        lambda: relax(cost_weight=1.0),
        lambda: relax(costs={"op_1_0": [1.0]}, cost_weight=1.0),
        lambda: relax(lr=1e20),
        lambda: SuperNet(Mlp.space(features=64, classes=4)),
        lambda: SuperNet(Cell(**FIXED)),
        lambda: SuperNet(dataclasses.replace(SMALL, width=Int(4, 8))),
    ],
)
def test_refusals(wrong):
    with pytest.raises(InputError):
        wrong()
