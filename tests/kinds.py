"""One small task for each kind of model that a default recipe is for."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import featherweight as fw
from featherweight.nets.encoder import Encoder
from featherweight.nets.mlp import Mlp
from tests import toy


class Recurrent(nn.Module):
    def __init__(self, cell, layers=1):
        super().__init__()
        self.e, self.pre = nn.Embedding(20, 16), nn.Linear(16, 24)
        self.rnn = cell(24, 16, num_layers=layers, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, ids):
        return self.out(self.rnn(torch.relu(self.pre(self.e(ids))))[0].mean(1))


class Words(nn.Module):
    """An encoder of token ids alone."""

    def __init__(self, depth):
        super().__init__()
        self.net = Encoder(vocab=20, length=6, classes=3, width=32, depth=depth, heads=2, mlp_ratio=2.0).build(0)

    def forward(self, ids):
        return self.net(ids, torch.ones_like(ids))


class Patches(nn.Module):
    """A vision transformer of one layer."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 4, 4)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.out = nn.Linear(32, 4)

    def forward(self, image):
        return self.out(self.layer(self.patch(image).flatten(2).transpose(1, 2)).mean(1))


def conv(outputs):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, outputs),
    )


def binary(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs.squeeze(-1), targets.float())


def labels(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs, targets.float())


def micro(outputs, targets):
    return ((outputs > 0) == (targets > 0.5)).mean(1)


N, RNG = 96, np.random.default_rng(0)
IMAGES = RNG.normal(0, 1, (N, 1, 8, 8)).astype("float32")
IDS = RNG.integers(0, 20, (N, 6))
ROWS = RNG.normal(0, 1, (N, 10)).astype("float32")
KINDS = {
    "residual": (toy.residual, {"x": IMAGES}, np.arange(N) % 4, {}),
    "plain": (toy.plain, {"x": IMAGES}, np.arange(N) % 4, {}),
    "depthwise": (toy.depthwise, {"x": IMAGES}, np.arange(N) % 4, {}),
    "mlp": (lambda: Mlp(features=10, classes=3, hidden=(64, 64)).build(0), {"x": ROWS}, np.arange(N) % 3, {}),
    "one layer": (lambda: nn.Linear(10, 3), {"x": ROWS}, np.arange(N) % 3, {}),
    "gru": (lambda: Recurrent(nn.GRU), {"x": IDS}, np.arange(N) % 3, {}),
    "lstm": (lambda: Recurrent(nn.LSTM, 2), {"x": IDS}, np.arange(N) % 3, {}),
    "two layers of attention": (lambda: Words(2), {"x": IDS}, np.arange(N) % 3, {}),
    "one layer of attention": (lambda: Words(1), {"x": IDS}, np.arange(N) % 3, {}),
    "patches": (Patches, {"x": IMAGES}, np.arange(N) % 4, {}),
    "one logit": (lambda: conv(1), {"x": IMAGES}, np.arange(N) % 2, {"loss": binary, "metric": "accuracy"}),
    "labels": (
        lambda: conv(5),
        {"x": IMAGES},
        RNG.integers(0, 2, (N, 5)).astype("float32"),
        {"loss": labels, "metric": micro},
    ),
    "one number": (
        lambda: conv(1),
        {"x": IMAGES},
        RNG.normal(size=(N, 1)).astype("float32"),
        {"loss": "mse", "metric": "mae"},
    ),
    "numbers": (
        lambda: conv(3),
        {"x": IMAGES},
        RNG.normal(size=(N, 3)).astype("float32"),
        {"loss": "mse", "metric": "mae"},
    ),
}


def task(kind):
    """A task of the kind; its model comes as if it were trained."""
    build, inputs, targets, more = KINDS[kind]

    def model():
        torch.manual_seed(0)
        return build()

    return fw.Task(
        name=kind, model=model, data=lambda: fw.split(fw.ArraySplit(inputs, targets), stratify=False), **more
    )
