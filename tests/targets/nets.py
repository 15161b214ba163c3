"""Tiny nets, their examples and calibration rows, for the tests of targets and measurement."""

import torch
from torch import nn

from featherweight.plan import Plan


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


class Cnn(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3))
        )
        self.layers = nn.ModuleList([nn.Sequential(Block(width), Block(width)) for _ in range(2)])
        self.head = nn.Linear(width, 5)

    def forward(self, image):
        x = self.stem(image)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.1),
            2,
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(width, 5)

    def forward(self, ids, mask):
        return self.head(self.encoder(self.embedding(ids), src_key_padding_mask=mask == 0)[:, 0])


def cnn(width=16):
    torch.manual_seed(0)
    return Cnn(width).eval(), {"image": torch.randn(1, 3, 16, 16)}, {"image": torch.randn(48, 3, 16, 16)}


def attention():
    """Its two layers begin as copies of each other, so the exporter shares their weights:
    as hard as tied layers."""
    torch.manual_seed(0)
    example = {"ids": torch.randint(0, 50, (1, 7)), "mask": torch.ones(1, 7, dtype=torch.int64)}
    mask = torch.ones(48, 7, dtype=torch.int64)
    mask[::3, 5:] = 0
    return Attention().eval(), example, {"ids": torch.randint(0, 50, (48, 7)), "mask": mask}


NETS = {"cnn": cnn, "attention": attention}


def plan(scheme="int8-static", **changes):
    fields = {
        "scheme": scheme,
        "granularity": "channel",
        "activations": "u8",
        "calibrate": "minmax",
        "samples": 32,
        "skip": (),
        "bits": 8,
        "group": 0,
        "symmetric": True,
        "embeddings": 32,
    }
    return Plan(**fields | changes)
