"""Nets at random, of everything that models do to channels.

`net(seed)` is a chain of stages, each [N, C, H, W] to [N, C', H', W'] with weights, buffers and
sizes of its own, and an end. Same seed, same net.
"""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

STAGES, ENDS = {}, {}


def stage(cls):
    STAGES[cls.__name__] = cls
    return cls


def end(cls):
    ENDS[cls.__name__] = cls
    return cls


def act(r):
    return r.choice([torch.relu, torch.sigmoid, torch.cos, F.gelu, F.silu, F.relu6, F.leaky_relu, torch.tanh])


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


def width(r):
    return r.choice([8, 12, 16])


class Stage(nn.Module):
    """Gives `out` channels."""

    def __init__(self, c, r):
        super().__init__()
        self.out, self.act = c, act(r)


@stage
class Plain(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = width(r)
        self.conv = conv(c, self.out, r.choice([1, 3]))
        self.norm = r.choice([nn.Identity(), nn.BatchNorm2d(self.out), nn.InstanceNorm2d(self.out, affine=True)])

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


@stage
class Residual(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.a, self.norm, self.b = conv(c, 12), nn.BatchNorm2d(12), conv(12, c)

    def forward(self, x):
        return self.act(x + self.b(torch.relu(self.norm(self.a(x)))))


@stage
class PaddedShortcut(Stage):
    """Channels of zeros are added to the shortcut (He et al. 2015, option A)."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.out, self.more = c + 8, r.choice([(4, 4), (0, 8)])
        self.conv = conv(c, c + 8)

    def forward(self, x):
        return self.act(self.conv(x) + F.pad(x, (0, 0, 0, 0, *self.more)))


@stage
class Depthwise(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = c * r.choice([1, 2])
        self.conv = conv(c, self.out, groups=c)

    def forward(self, x):
        return self.act(self.conv(x))


@stage
class Grouped(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out, g = width(r), r.choice([2, 4])
        self.conv = conv(c, self.out, groups=g)

    def forward(self, x):
        return self.act(self.conv(x))


@stage
class Normed(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.norm = nn.GroupNorm(r.choice([1, 2, 4, c]), c)

    def forward(self, x):
        return self.act(self.norm(x))


@stage
class LayerNormed(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.norm = nn.LayerNorm(c)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@stage
class Centred(Stage):
    def forward(self, x):
        return x - x.mean(1, keepdim=True)


@stage
class Softmax(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.dim = r.choice([1, 3])

    def forward(self, x):
        return x.softmax(self.dim)


@stage
class Shuffle(Stage):
    """In two or four; by its own sizes, by those of the channels, or by a module."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.groups, self.way, self.each = r.choice([2, 4]), r.choice(["view", "number", "module"]), 0
        self.each, self.module = c // self.groups, nn.ChannelShuffle(self.groups)

    def forward(self, x):
        if self.way == "module":
            return self.module(x)
        n, c, h, w = x.shape
        each = c // self.groups if self.way == "view" else self.each
        return x.reshape(n, self.groups, each, h, w).transpose(1, 2).reshape(n, c, h, w)


@stage
class ShuffleOfBlocks(Stage):
    """Blocks of four channels, as many as there are."""

    def forward(self, x):
        n, c, h, w = x.shape
        return x.reshape(n, -1, 4, h, w).flip(2).reshape(n, c, h, w)


@stage
class Reordered(Stage):
    """Channels by an index, rolled, or the other way round."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.way = r.choice(["index", "roll", "flip"])
        order = list(range(c))
        r.shuffle(order)
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x):
        return {"index": lambda: x[:, self.order], "roll": lambda: x.roll(1, 1), "flip": lambda: x.flip(1)}[self.way]()


@stage
class Split(Stage):
    """The first part takes another way."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.way, self.at = r.choice(["half", "slice", "split", "chunk"]), c // 2
        self.conv = conv(c // 2, c // 2)

    def forward(self, x):
        at = x.shape[1] // 2 if self.way == "half" else self.at
        a, b = (
            x.chunk(2, 1) if self.way == "chunk" else x.split(at, 1) if self.way == "split" else (x[:, :at], x[:, at:])
        )
        return torch.cat([b, self.act(self.conv(a))], 1)


@stage
class Unread(Stage):
    """A slice that leaves channels unread, or one channel for all."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = c - 2
        self.gate = r.random() < 0.5

    def forward(self, x):
        return x[:, 2:] * (torch.sigmoid(x[:, :1]) if self.gate else 1)


@stage
class Gated(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out, self.way = width(r), r.choice(["chunk", "glu", "slice", "unbind"])
        self.conv = conv(c, 2 * self.out)

    def forward(self, x):
        y = self.conv(x)
        if self.way == "glu":
            return F.glu(y, 1)
        half = y.shape[1] // 2
        a, b = {
            "chunk": lambda: y.chunk(2, 1),
            "slice": lambda: (y[:, :half], y[:, half:]),
            "unbind": lambda: y.reshape(y.shape[0], 2, half, *y.shape[2:]).unbind(1),
        }[self.way]()
        return self.act(a) * b


@stage
class MaxOut(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = c // 2

    def forward(self, x):
        return x.unflatten(1, (-1, 2)).amax(2)


@stage
class Concatenated(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.a, self.b = conv(c, 8), conv(c, 4, 1)
        self.keep = r.random() < 0.5
        self.out = 12 + (c if self.keep else 0)

    def forward(self, x):
        return torch.cat([self.act(self.a(x)), self.b(x), *([x] if self.keep else [])], 1)


@stage
class PixelShuffled(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = width(r)
        self.conv = conv(c, 4 * self.out, 1)

    def forward(self, x):
        return F.max_pool2d(self.act(F.pixel_shuffle(self.conv(x), 2)), 2)


@stage
class PixelUnshuffled(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out, self.conv = width(r), conv(4 * c, 8, 1)
        self.out = 8

    def forward(self, x):
        y = self.conv(F.pixel_unshuffle(x, 2))
        return self.act(F.interpolate(y, scale_factor=2.0, mode="nearest"))


@stage
class Resized(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.mode, self.pad = r.choice(["nearest", "bilinear"]), r.choice(["constant", "reflect", "replicate"])

    def forward(self, x):
        y = F.avg_pool2d(F.interpolate(x, scale_factor=2.0, mode=self.mode), 2)
        return F.pad(y, (1, 1, 1, 1), mode=self.pad)[:, :, 1:-1, 1:-1]


@stage
class Squeezed(Stage):
    """Channels are weighed by what they hold (squeeze and excitation)."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.a, self.b = nn.Linear(c, 8), nn.Linear(8, c)

    def forward(self, x):
        return x * torch.sigmoid(self.b(torch.relu(self.a(x.mean((2, 3))))))[:, :, None, None]


@stage
class Looked(Stage):
    """One weight for each pixel."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.look = conv(c, 1, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.look(x))


@stage
class FreeTensors(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.scale = nn.Parameter(torch.rand(c, 1, 1) + 0.5)
        self.register_buffer("shift", torch.linspace(-1, 1, c).view(1, c, 1, 1), persistent=r.random() < 0.7)
        self.prelu = nn.PReLU(r.choice([1, c]))

    def forward(self, x):
        y = self.prelu(x * self.scale)
        y += self.shift
        return y


@stage
class Constant(Stage):
    """A tensor that is no parameter and no buffer, or that is made on the way."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.known = [torch.linspace(0.5, 1.5, c).view(1, c, 1, 1)] if r.random() < 0.5 else []

    def forward(self, x):
        return x * (self.known[0] if self.known else torch.arange(1.0, x.shape[1] + 1).view(1, -1, 1, 1))


@stage
class ScaledByWidth(Stage):
    def forward(self, x):
        return x / x.shape[1]


@stage
class Computed(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = width(r)
        self.conv = r.choice([parametrizations.weight_norm, parametrizations.spectral_norm])(conv(c, self.out))

    def forward(self, x):
        return self.act(self.conv(x))


class Standardized(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        return F.conv2d(x, w - w.mean((1, 2, 3), keepdim=True), self.bias, padding=self.padding)


@stage
class WeightsOfItsOwn(Stage):
    """A convolution that does not use its weight as it is; one that is called by its weight."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.out, self.bare = width(r), r.random() < 0.5
        self.conv = (nn.Conv2d if self.bare else Standardized)(c, self.out, 3, padding=1)

    def forward(self, x):
        return self.act(F.conv2d(x, self.conv.weight, padding=1) if self.bare else self.conv(x))


@stage
class Shared(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.a = conv(c, c)
        if r.random() < 0.5:
            self.b = conv(c, c)
            self.b.weight = self.a.weight
        else:
            self.b = self.a

    def forward(self, x):
        return self.act(self.b(self.act(self.a(x))))


@stage
class Frozen(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = width(r)
        self.conv = conv(c, self.out).requires_grad_(False)

    def forward(self, x):
        return self.act(self.conv(x))


@stage
class Transposed(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = width(r)
        self.conv = nn.ConvTranspose2d(c, self.out, 2, 2, groups=r.choice([1, 1, 2]))

    def forward(self, x):
        return F.avg_pool2d(self.act(self.conv(x)), 2)


@stage
class Tokens(Stage):
    """Pixels as tokens, with positions and a feed-forward block."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.place = nn.Parameter(torch.randn(1, 64, c))
        self.up, self.down = nn.Linear(c, 24), nn.Linear(24, c)

    def forward(self, x):
        n, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2) + self.place
        return (y + self.down(self.act(self.up(y)))).transpose(1, 2).reshape(n, -1, h, w)


@stage
class Attended(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.heads = r.choice([1, 2])
        self.att = nn.MultiheadAttention(c, self.heads, batch_first=True)

    def forward(self, x):
        y = x.flatten(2).transpose(1, 2)
        return (y + self.att(y, y, y, need_weights=False)[0]).transpose(1, 2).reshape(x.shape)


@stage
class Queried(Stage):
    """Attention written out; values may be cut, queries and keys may not."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.a, self.b, self.c, self.d = nn.Linear(c, 8), nn.Linear(c, 8), nn.Linear(c, 12), nn.Linear(12, c)

    def forward(self, x):
        y = x.flatten(2).transpose(1, 2)
        scores = (self.a(y) @ self.b(y).transpose(1, 2) / 8**0.5).softmax(-1)
        return (y + self.d(scores @ self.c(y))).transpose(1, 2).reshape(x.shape)


@stage
class Recurrent(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.out = 8
        self.rnn = r.choice([nn.GRU, nn.LSTM, nn.RNN])(c, 8, batch_first=True)

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.rnn(x.permute(0, 2, 3, 1).reshape(n * h, w, c))[0]
        return y.reshape(n, h, w, -1).permute(0, 3, 1, 2)


@stage
class Written(Stage):
    """A part is written over, in place."""

    def __init__(self, c, r):
        super().__init__(c, r)
        self.conv = conv(c, c)

    def forward(self, x):
        y = x.clone()
        y[:, : x.shape[1] // 2] = self.conv(x)[:, : x.shape[1] // 2]
        y[:, :, 0] = 0
        return y


@end
class Pooled(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.last = nn.Linear(c, 3)

    def forward(self, x):
        return self.last(x.mean((2, 3)))


@end
class Flattened(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.last_first = r.random() < 0.5
        self.mid, self.last = nn.Linear(c * 16, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(x, 4)
        return self.last(self.act(self.mid((x.permute(0, 2, 3, 1) if self.last_first else x).flatten(1))))


@end
class Points(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.last = conv(c, 3, 1)

    def forward(self, x):
        return F.adaptive_avg_pool2d(self.last(x), 1).flatten(1)


@end
class Probabilities(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.last, self.t = nn.Linear(c, 3), nn.Parameter(torch.tensor(1.7))
        self.soft = r.choice([nn.Softmax(1), nn.LogSoftmax(1), nn.Identity()])

    def forward(self, x):
        return self.soft(self.last(x.mean((2, 3))) / self.t)


@end
class Heads(Stage):
    def __init__(self, c, r):
        super().__init__(c, r)
        self.a, self.b, self.stack = nn.Linear(c, 3), nn.Linear(c, 3), r.random() < 0.5

    def forward(self, x):
        y = self.a(x.mean((2, 3))), self.b(x.amax((2, 3)))
        return torch.stack(y).mean(0) if self.stack else (y[0] + y[1]) / 2


class Net(nn.Module):
    def __init__(self, names, last, seed):
        super().__init__()
        r = random.Random(seed)
        self.first = conv(1, 16)
        stages, c = [], 16
        for name in names:
            stages.append(STAGES[name](c, r))
            c = stages[-1].out
            if c % 4:  # others want to take them apart
                stages.append(Plain(c, r))
                c = stages[-1].out
            if r.random() < 0.5:
                stages.append(Plain(c, r))
                c = stages[-1].out
        self.stages, self.last = nn.ModuleList(stages), ENDS[last](c, r)

    def forward(self, x):
        x = self.first(x)
        for s in self.stages:
            x = s(x)
        return self.last(x)


def build(names, last, seed):
    """A net of these stages and this end, its statistics and biases drawn too; in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(names, last, seed).eval()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
                m.weight.data.normal_()
    return net


def drawn(seed):
    """(stages, end, seed) of a net at random."""
    r = random.Random(f"net {seed}")
    return [r.choice(sorted(STAGES)) for _ in range(r.randint(1, 4))], r.choice(sorted(ENDS)), seed
