"""Small nets whose channels take odd ways, and the reference for cutting them.

`KINDS` names them; each gives (module, inputs). None has anything from the library in it.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn


class Shuffled(nn.Module):
    """Channels change places between two convolutions of groups, as in ShuffleNet (Zhang et al.
    2017, arXiv:1707.01083, figure 1)."""

    def __init__(self, module=False):
        super().__init__()
        self.a = nn.Conv2d(1, 16, 3, padding=1)
        self.g1 = nn.Conv2d(16, 16, 1, groups=2)
        self.g2 = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.c, self.out = nn.Conv2d(16, 12, 1), nn.Linear(12, 4)
        self.shuffle = nn.ChannelShuffle(2) if module else None

    def forward(self, image):
        x = torch.relu(self.g1(torch.relu(self.a(image))))
        n, c, h, w = x.shape
        x = self.shuffle(x) if self.shuffle else x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.out(torch.relu(self.c(torch.relu(self.g2(x)))).mean((2, 3)))


class Dealt(nn.Module):
    """A shuffle between plain convolutions: nothing but the view ties its channels."""

    def __init__(self, fixed=False):
        super().__init__()
        self.a, self.c, self.out = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 12, 1), nn.Linear(12, 4)
        self.fixed = fixed

    def forward(self, image):
        x = torch.relu(self.a(image))
        n, c, h, w = x.shape
        x = x.view(n, 4, 4, h, w) if self.fixed else x.view(n, 4, c // 4, h, w)
        return self.out(torch.relu(self.c(x.transpose(1, 2).reshape(n, c, h, w))).mean((2, 3)))


class ClassToken(nn.Module):
    """A vision transformer: its class token and positions are free parameters."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 2, 2)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 17, 32))
        self.n1, self.n2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.att = nn.MultiheadAttention(32, 4, batch_first=True)
        self.f1, self.f2, self.out = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 4)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        h = self.n1(x)
        x = x + self.att(h, h, h, need_weights=False)[0]
        x = x + self.f2(F.gelu(self.f1(self.n2(x))))
        return self.out(x[:, 0])


class Ends(nn.Module):
    """Something follows the layer that makes the outputs."""

    def __init__(self, end):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.out, self.twin, self.soft = nn.Linear(24, 4), nn.Linear(24, 4), nn.Softmax(1)
        self.point, self.t = nn.Conv2d(24, 4, 1), nn.Parameter(torch.tensor(2.0))
        self.end = end

    def forward(self, image):
        x = torch.relu(self.b(torch.relu(self.a(image))))
        if self.end == "pooled":
            return F.adaptive_avg_pool2d(self.point(x), 1).flatten(1)
        x = x.mean((2, 3))
        ends = {
            "softmax": lambda: self.soft(self.out(x)),
            "log_softmax": lambda: F.log_softmax(self.out(x), 1),
            "scaled": lambda: self.out(x) / self.t,
            "heads": lambda: (self.out(x) + self.twin(x)) / 2,
            "stacked": lambda: torch.stack([self.out(x), self.twin(x)]).mean(0),
            "dict": lambda: {"logits": self.out(x), "features": [self.twin(x)]},
        }
        return ends[self.end]()


class ChannelsLast(nn.Module):
    """Pixels are flattened with their channels last: channel c owns columns c, c + C, c + 2C, .."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 12, 3, 2, 1), nn.Conv2d(12, 6, 3, 2, 1)
        self.mix, self.out = nn.Linear(24, 20), nn.Linear(20, 4)

    def forward(self, image):
        x = torch.relu(self.b(torch.relu(self.a(image))))
        return self.out(torch.relu(self.mix(x.permute(0, 2, 3, 1).flatten(1))))


class Frozen(nn.Module):
    """Only the head learns."""

    def __init__(self, frozen=True):
        super().__init__()
        self.a, self.n = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.b, self.out = nn.Conv2d(16, 24, 3, padding=1), nn.Linear(24, 4)
        for m in (self.a, self.n, self.b) if frozen else ():
            m.requires_grad_(False)

    def forward(self, image):
        return self.out(torch.relu(self.b(torch.relu(self.n(self.a(image))))).mean((2, 3)))


class Imagined(nn.Module):
    """The outputs of a linear layer are seen as an image."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(12, 256)
        self.up1, self.up2 = nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ConvTranspose2d(12, 8, 4, 2, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.inp(x)).view(-1, self.up1.in_channels, 4, 4)
        return self.head(torch.relu(self.up2(torch.relu(self.up1(x)))).mean((2, 3)))


class PixelShuffled(nn.Module):
    """A convolution reads a quarter of the channels, at twice the size; and the way back."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up, self.c, self.down = nn.PixelShuffle(2), nn.Conv2d(8, 12, 3, padding=1), nn.PixelUnshuffle(2)
        self.d, self.out = nn.Conv2d(48, 8, 1), nn.Linear(8, 4)

    def forward(self, image):
        x = torch.relu(self.c(self.up(torch.relu(self.b(torch.relu(self.a(image)))))))
        return self.out(torch.relu(self.d(self.down(x))).mean((2, 3)))


class Scaled(nn.Module):
    """A scale and a shift for each channel that belong to no layer, and operations in place."""

    def __init__(self):
        super().__init__()
        self.a, self.gamma = nn.Conv2d(1, 16, 3, padding=1), nn.Parameter(torch.rand(16, 1, 1) + 0.5)
        self.b, self.c = nn.Conv2d(16, 20, 3, padding=1), nn.Conv2d(20, 12, 3, padding=1)
        self.register_buffer("shift", torch.linspace(-1, 1, 20).view(1, 20, 1, 1))
        self.act, self.out = nn.PReLU(12), nn.Linear(12, 4)

    def forward(self, image):
        x = F.relu_(self.a(image)) * self.gamma
        y = self.b(x)
        y += self.shift
        y.relu_()
        return self.out(self.act(self.c(y)).mean((2, 3)))


class Sliced(nn.Module):
    """Some channels take another way: the first eight, or the first half, whatever that is."""

    def __init__(self, half=False):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.out = nn.Conv2d(16, 12, 3, padding=1), nn.Linear(12, 4)
        self.half = half

    def forward(self, image):
        x = torch.relu(self.a(image))
        at = x.shape[1] // 2 if self.half else 8
        y = torch.cat([torch.relu(self.b(x[:, :at])), x[:, at:]], dim=1)
        return self.out(torch.relu(self.c(y)).mean((2, 3)))


class PackedGate(nn.Module):
    """Gate and value are made by one linear layer (SwiGLU, Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self):
        super().__init__()
        self.a, self.w12, self.w3, self.out = nn.Linear(8, 16), nn.Linear(16, 48), nn.Linear(24, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.a(x))
        u, v = self.w12(x).chunk(2, -1)
        return self.out(x + self.w3(F.silu(u) * v))


class Normed(nn.Module):
    """Statistics within groups of channels, or across all of them."""

    def __init__(self, groups):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(groups, 16), nn.Conv2d(16, 12, 1)
        self.out = nn.Linear(12, 4)

    def forward(self, image):
        return self.out(torch.relu(self.b(torch.relu(self.norm(self.a(image))))).mean((2, 3)))


class Computed(nn.Module):
    """The weights of two layers are computed from other parameters."""

    def __init__(self, norm=nn.utils.parametrizations.weight_norm):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), norm(nn.Conv2d(16, 16, 3, padding=1))
        self.c, self.out = norm(nn.Linear(16, 12)), nn.Linear(12, 4)

    def forward(self, image):
        return self.out(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(image)))).mean((2, 3)))))


class Multiplied(nn.Module):
    """A depthwise convolution that makes two channels of each."""

    def __init__(self):
        super().__init__()
        self.a, self.d = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.c, self.out = nn.Conv2d(16, 12, 1), nn.Linear(12, 4)

    def forward(self, image):
        return self.out(torch.relu(self.c(torch.relu(self.d(torch.relu(self.a(image)))))).mean((2, 3)))


class Aside(nn.Module):
    """A head that no output comes from."""

    def __init__(self):
        super().__init__()
        self.a, self.h, self.out = nn.Linear(8, 16), nn.Linear(16, 6), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.sigmoid(self.a(x))
        self.h(x)
        return self.out(x)


ENDS = ("softmax", "log_softmax", "scaled", "heads", "stacked", "dict", "pooled")
KINDS = {
    "shuffled": Shuffled,
    "shuffled by a module": lambda: Shuffled(True),
    "dealt": Dealt,
    "dealt by number": lambda: Dealt(True),
    "class token": ClassToken,
    **{f"ends {end}": (lambda end=end: Ends(end)) for end in ENDS},
    "channels last": ChannelsLast,
    "frozen": Frozen,
    "imagined": Imagined,
    "pixel shuffled": PixelShuffled,
    "scaled": Scaled,
    "sliced": Sliced,
    "sliced in halves": lambda: Sliced(True),
    "packed gate": PackedGate,
    "group norm": lambda: Normed(4),
    "one group norm": lambda: Normed(1),
    "computed": Computed,
    "multiplied": Multiplied,
    "aside": Aside,
}


def made(kind, seed=0):
    """(a net of this kind in eval mode whose biases and statistics are not trivial, inputs)."""
    torch.manual_seed(seed)
    net = KINDS[kind]().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.normal_()
    widths = {"imagined": 12, "packed gate": 8, "aside": 8}
    return net, (torch.randn(3, widths[kind]) if kind in widths else torch.randn(3, 1, 8, 8),)


def silent(net, inputs, groups, drops):
    """What the net gives where every layer that reads a dropped channel is given zeros in its
    place. By hooks alone: the weights are as they are. But inside a recurrent layer, where units
    read each other: there, in a copy, the columns of dropped ones are zero."""
    net, dead = copy.deepcopy(net), {}
    for group, drop in zip(groups, drops, strict=True):
        gone = {c for u in drop for c in group.units[u]}
        for m in group.members:
            cells = net.get_submodule(m.path)
            if m.axis == 0 and isinstance(cells, nn.RNNBase):
                lost = [p for p, c in zip(m.position, m.channel, strict=True) if c in gone]
                for name, p in cells.named_parameters():
                    if "weight_hh" in name or ("weight_ih" in name and "_l0" not in name):
                        p.data[:, [i for i in lost if i < p.shape[1]]] = 0
            if m.axis == 1:
                dead.setdefault(m.path, set()).update(
                    p for p, c in zip(m.position, m.channel, strict=True) if c in gone
                )

    def hush(layer, args, columns):
        x = args[0].clone()
        axis = x.ndim - 1 if isinstance(layer, (nn.Linear, nn.RNNBase)) else x.ndim - 1 - len(layer.kernel_size)
        x.index_fill_(axis, torch.tensor(sorted(columns), dtype=torch.long), 0.0)
        return (x, *args[1:])

    hooks = [
        net.get_submodule(path).register_forward_pre_hook(lambda layer, args, columns=c: hush(layer, args, columns))
        for path, c in dead.items()
    ]
    with torch.no_grad():
        out = net(*inputs)
    for h in hooks:
        h.remove()
    return out


def flat(out):
    """All tensors of an output, one behind the other."""
    if isinstance(out, torch.Tensor):
        return out.flatten()
    return torch.cat([flat(v) for v in (out.values() if isinstance(out, dict) else out)])
