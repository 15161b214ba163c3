"""Blocks are dropped only where the model does the same around each of them."""

import pytest
import torch
from torch import nn

from featherweight.models.blocks import droppable, examined

X = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))


def inner():
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = inner()

    def forward(self, x, more=None):
        return x + self.b(x) if more is None else x + self.b(x) * more


class Net(nn.Module):
    """loop: (its blocks, norms and scales, x) -> x."""

    def __init__(self, loop, blocks=4):
        super().__init__()
        self.loop = loop
        self.stem, self.out = nn.Linear(16, 16), nn.Linear(16, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(blocks))
        self.scales = nn.Parameter(torch.rand(blocks, 16))

    def forward(self, x):
        return self.out(self.loop(self, self.stem(x)))


def residual(net, x):
    for block in net.blocks:
        x = x + 0.5 * block(net.norms[0](x))
    return x


def masked(net, x):
    more = torch.sigmoid(x[:, :1])
    for block in net.blocks:
        x = block(x, more)
    return x


def fresh(net, x):
    for block in net.blocks:
        x = block(x, x.mean(1, keepdim=True))
    return x


def paired(net, x):
    for block, norm in zip(net.blocks, net.norms, strict=False):
        x = x + block(norm(x))
    return x


def scaled(net, x):
    for i, block in enumerate(net.blocks):
        x = block(x) * net.scales[i]
    return x


def odd(net, x):
    for i, block in enumerate(net.blocks):
        x = torch.tanh(block(x)) if i % 2 else block(x)
    return x


def fading(net, x):
    for i, block in enumerate(net.blocks):
        x = block(x) * 0.9**i
    return x


def fourth(net, x):
    for i, block in enumerate(net.blocks):
        x = block(x) * (2.0 if i == len(net.norms) - 1 else 1.0)
    return x


def numbered(net, x):
    for i in range(len(net.norms)):
        x = net.blocks[i](x)
    return x


def given(net, x):
    scales = [s.exp() for s in net.scales]
    for block, scale in zip(net.blocks, scales, strict=False):
        x = block(x, scale)
    return x


def backwards(net, x):
    for block in reversed(net.blocks):
        x = block(x)
    return x


def twice(net, x):
    for block in [*net.blocks, *net.blocks]:
        x = block(x)
    return x


@pytest.mark.parametrize("loop", [residual, masked, fresh])
@pytest.mark.parametrize("blocks", [2, 4])
def test_a_loop_that_does_the_same_around_each_block_can_lose_any(loop, blocks):
    assert droppable(Net(loop, blocks).eval(), (X,)) == {"blocks": list(range(blocks))}


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (paired, "norms, scales or numbers"),
        (scaled, "norms, scales or numbers"),
        (odd, "norms, scales or numbers"),
        (fading, "norms, scales or numbers"),
        (fourth, "norms, scales or numbers"),
        (numbered, "without one of its blocks the model fails: IndexError"),
        (given, "arguments of its own"),
        (backwards, "one after the other"),
        (twice, "one after the other"),
    ],
)
@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_blocks_that_belong_to_something_stay_and_are_named(loop, why, blocks):
    found, whole = examined(Net(loop, blocks).eval(), (X,))
    assert found == {} and why in whole["blocks"]


def test_a_sequential_needs_no_loop():
    net = nn.Sequential(nn.Linear(16, 16), Block(), nn.Linear(16, 16), Block(), Block())
    assert droppable(net.eval(), (X,)) == {"": [1, 3, 4]}
