"""Small nets whose ways differ by row, by mode or by chance, or that keep what they computed.

All take x [n, 8] and give [n, ..]. None has anything from the library in it.
"""

import math

import torch
from torch import nn


class Plain(nn.Module):
    """Two hidden layers of 16 and 12; `way` lies between them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 3)

    def way(self, x):
        return x

    def forward(self, x):
        return self.out(torch.relu(self.b(self.way(torch.relu(self.a(x))))))


class TwoScales(nn.Module):
    """A price and a rate. What makes the rate knows its own width."""

    def __init__(self, offset=3e5, scale=1e5):
        super().__init__()
        self.a, self.price, self.c, self.rate = nn.Linear(8, 32), nn.Linear(32, 1), nn.Linear(8, 32), nn.Linear(32, 1)
        self.offset, self.scale = offset, scale

    def forward(self, x):
        h = torch.relu(self.c(x))
        price = self.offset + self.scale * self.price(torch.relu(self.a(x)))
        return torch.cat([price, self.rate(h / math.sqrt(h.shape[-1]))], 1)


class TwoScalesOfImages(TwoScales):
    """The same, for each of four places."""

    def forward(self, x):
        return super().forward(torch.stack([x, -x, 2 * x, x.flip(1)], 1).flatten(0, 1)).view(len(x), 4, 2).mT


class Helped(Plain):
    """A second head helps in training."""

    def __init__(self, fixed=False):
        super().__init__()
        self.aux, self.fixed = nn.Linear(16, 3), fixed

    def forward(self, x):
        h = torch.relu(self.a(x))
        y = self.out(torch.relu(self.b(h)))
        if not self.training:
            return y
        return y + 0.3 * self.aux(h * torch.arange(16) if self.fixed else h)


class Dropped(Plain):
    """Noise in training, as it is written by hand."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def way(self, x):
        if not self.training:
            return x
        if self.kind == "path":
            return x * x.new_empty(len(x), 1).bernoulli_(0.8)
        if self.kind == "rand":
            return x * (torch.rand(len(x), 1) + 0.8).floor_()
        if self.kind == "noise":
            return x + 0.1 * torch.randn_like(x)
        return nn.functional.dropout(x, 0.2, True)


class Rare(Plain):
    """Rows that are large go another way; `whole_batch`: all, if they are large together."""

    def __init__(self, whole_batch=False):
        super().__init__()
        self.alt, self.whole_batch = nn.Linear(16, 16), whole_batch

    def forward(self, x):
        h = torch.relu(self.a(x))
        if self.whole_batch:
            h = self.alt(h) if x.mean() > 50 else h
        else:
            large = x[:, 0] > 50
            if large.any():
                h = h.clone()
                h[large] = self.alt(h[large])
        return self.out(torch.relu(self.b(h)))


class Widening(nn.Linear):
    """Gives what it was given, too."""

    def forward(self, x):
        return torch.cat([super().forward(x), x], 1)


class Wider(Plain):
    def __init__(self):
        super().__init__()
        self.wide, self.b = Widening(16, 6), nn.Linear(22, 12)

    def way(self, x):
        return self.wide(x)


class Keeping(Plain):
    """Keeps a tensor from its construction, and its features from each pass."""

    def __init__(self):
        super().__init__()
        self.twice, self.of = self.a.weight * 2, {}

    def way(self, x):
        self.of["features"] = [x]
        return x


class Scripted(Plain):
    def __init__(self):
        super().__init__()
        self.inner = torch.jit.script(nn.Sequential(nn.Linear(16, 16), nn.ReLU()))

    def way(self, x):
        return self.inner(x)


class Checking(Plain):
    """Looks at shapes, checks values, and uses a number that is the same for all rows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("k", torch.tensor(2.0))

    def way(self, x):
        assert x.abs().max() < 1e9
        if torch.isnan(x).any():
            raise ValueError("not a number")
        if x.shape[0] > 0 and x.size(1) > 1:
            x = x * self.k.item()
        return x * 2 if self.k > 1 else x


class Drawing(Plain):
    def way(self, x):
        return nn.functional.dropout(x, 0.1, True)


class Counting(Plain):
    def __init__(self):
        super().__init__()
        self.n = 0

    def way(self, x):
        self.n += 1
        return x * self.n


class Rooted(Plain):
    """No numbers where a row is small."""

    def forward(self, x):
        return super().forward(x) + 0 * torch.log(x[:, :1] + 5)
