"""Handwritten digits, 8x8 pixels (scikit-learn), and a residual CNN that is far wider than they need.

featherweight optimize examples/digits.py --max-drop 0.02 --max-latency 0.7x --minimize latency,size
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import featherweight as fw


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; stride 2 halves the image and a 1x1 convolution fits the shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        fits = inside == outside and stride == 1
        self.shortcut = (
            nn.Identity()
            if fits
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class DigitsNet(nn.Module):
    """image: float32 [n, 1, 8, 8] in [0, 1] -> logits [n, 10]. 151,000 parameters."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.head = nn.Linear(2 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(image)).mean(dim=(2, 3)))


def data() -> fw.Splits:
    """A large test split: 717 samples can certify a drop of one point where two are allowed."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)  # [1797, 1, 8, 8]
    return fw.split(
        fw.ArraySplit({"image": images}, digits.target, classes=digits.target_names), fractions=(0.4, 0.2, 0.4)
    )


task = fw.Task(
    name="digits",
    model=DigitsNet,
    data=data,
    baseline=fw.Recipe(fw.Train(epochs=12, lr=3e-3, batch_size=64, optimizer="adam", schedule="cosine")),
)
