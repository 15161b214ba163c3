"""Blocks are dropped only where the model does the same around each of them."""

import copy
from types import SimpleNamespace

import numpy as np
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


def averaged(net, x):
    mean = x
    for block in net.blocks:
        x = block(x)
        mean = 0.5 * mean + 0.5 * x
    return x - mean


def second_last(net, x):
    seen = [x]
    for block in net.blocks:
        seen.append(block(seen[-1]))
    return seen[-2]


def taps(net, x):
    seen = []
    for i, block in enumerate(net.blocks):
        x = block(x)
        if i in (0, 1):
            seen.append(x)
    return seen[0] * torch.tanh(seen[1])


def skips(net, x):
    seen = [torch.tanh(x * k) for k in range(len(net.blocks))]
    for block in net.blocks:
        x = block(x + seen.pop())
    return x


def zipped(net, x):
    for block, scale in zip(net.blocks, net.scales, strict=False):
        x = block(x) * scale
    return x


def sliced(net, x):
    for i, block in enumerate(net.blocks):
        x = block(x + net.scales[i : i + 1])
    return x


def rated(net, x):
    for block, rate in zip(net.blocks, np.array([1.5, 0.4, 0.8, 0.2], np.float32), strict=False):
        x = block(x) * rate
    return x


def two_streams(net, x):
    streams = [x, -x]
    for i, block in enumerate(net.blocks):
        streams[i % 2] = block(streams[i % 2])
    return streams[0] - 0.3 * streams[1]


def from_the_stem(net, x):
    stem = x
    for i, block in enumerate(net.blocks):
        x = block(stem if i == 1 else x)
    return x


@torch.jit.script
def faded(x, i: int):
    return x * (1.0 - 0.15 * float(i))


def scripted(net, x):
    for i, block in enumerate(net.blocks):
        x = faded(block(x), i)
    return x


def drawn(net, x):
    for i, block in enumerate(net.blocks):
        x = block(x) + torch.rand(x.shape, generator=torch.Generator().manual_seed(i))
    return x


def reads(net, x):
    for block in net.blocks:
        x = block(x)
    return nn.functional.linear(x, net.blocks[1].b[0].weight)[:, :16]


@pytest.mark.parametrize("loop", [residual, masked, fresh, averaged])
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
        (second_last, "norms, scales or numbers"),
        (taps, "norms, scales or numbers"),
        (skips, "norms, scales or numbers"),
        (zipped, "norms, scales or numbers"),
        (sliced, "norms, scales or numbers"),
        (rated, "norms, scales or numbers"),
        (two_streams, "norms, scales or numbers"),
        (scripted, "arguments of its own"),
        (drawn, "norms, scales or numbers"),
        (reads, "weights of its blocks outside"),
    ],
)
@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_blocks_that_belong_to_something_stay_and_are_named(loop, why, blocks):
    found, whole = examined(Net(loop, blocks).eval(), (X,))
    assert found == {} and why in whole["blocks"]


@pytest.mark.parametrize("blocks", [3, 4])
def test_a_block_with_an_input_of_its_own_is_not_like_the_others(blocks):
    found, whole = examined(Net(from_the_stem, blocks).eval(), (X,))
    assert found == {} and whole["blocks"]


class Called(nn.Module):
    """A Sequential that is called, and looked into as well."""

    def __init__(self, more, blocks=4):
        super().__init__()
        self.more, self.blocks = more, nn.Sequential(*(Block() for _ in range(blocks)))

    def forward(self, x):
        return self.more(self, x)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (lambda net, x: net.blocks(x), None),
        (lambda net, x: net.blocks(x) + net.blocks[1](x), "one after the other"),
        (lambda net, x: net.blocks[2:](net.blocks[:2](x)), None),
        (lambda net, x: (h := net.blocks[:2](x)) - net.blocks[2:](h), "norms, scales or numbers"),
        (lambda net, x: net.blocks(x) @ net.blocks[2].b[2].weight[:, :16], "weights of its blocks outside"),
    ],
)
def test_a_sequential_that_is_looked_into_is_no_other_row(more, why):
    found, whole = examined(Called(more).eval(), (X,))
    assert (found == {"blocks": [0, 1, 2, 3]}) is (why is None) and (why or "") in whole.get("blocks", "")


@pytest.mark.parametrize("loop", [residual, masked, fresh, averaged])
@pytest.mark.parametrize("gone", range(4))
def test_what_is_left_computes_what_skipping_the_round_does(loop, gone):
    net = Net(loop).eval()
    short = copy.deepcopy(net)
    del short.blocks[gone]
    kept = [b for i, b in enumerate(net.blocks) if i != gone]
    again = SimpleNamespace(blocks=kept, norms=net.norms, scales=net.scales)
    with torch.no_grad():
        assert torch.equal(short(X), net.out(loop(again, net.stem(X))))


def test_a_sequential_needs_no_loop():
    net = nn.Sequential(nn.Linear(16, 16), Block(), nn.Linear(16, 16), Block(), Block())
    assert droppable(net.eval(), (X,)) == {"": [1, 3, 4]}
