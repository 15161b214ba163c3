"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017; 28x28 grey images of 10 kinds of clothes) and a residual CNN of three stages.

    sudo apt-get install dataset-fashion-mnist        # or set FASHION_MNIST to a folder with the four .gz files
    featherweight optimize examples/fashion_cnn.py --max-drop 0.01 --target auto --trials 16 --minutes 30

The official test set is the test split; a tenth of the training set is the validation split.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

import featherweight as fw
from featherweight.errors import TaskError

FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016); stride 2 halves the image and a 1x1 convolution fits the shortcut."""

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


class FashionNet(nn.Module):
    """image: float32 [n, 1, 28, 28] in [0, 1] -> logits [n, 10]. 308,000 parameters, 10 million multiply-accumulates."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())  # 14x14
        self.stages = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)
        )  # 14, 7, 4
        self.head = nn.Linear(4 * width, len(CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean(dim=(2, 3)))


def idx(name: str) -> np.ndarray:
    """The array in an IDX file: two zero bytes, type 8 (uint8), number of axes, each axis as big-endian uint32, the values."""
    path = FOLDER / name
    if not path.is_file():
        raise TaskError(
            "Fashion-MNIST is not here",
            got=str(path),
            allowed="a folder with the four IDX .gz files",
            fix="sudo apt-get install dataset-fashion-mnist, or set FASHION_MNIST=FOLDER",
        )
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise TaskError(
            "this is no IDX file of bytes",
            got=f"{path}: starts with {raw[:4].hex()}",
            allowed="000008 and the number of axes",
        )
    shape = np.frombuffer(raw, ">u4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def part(name: str) -> fw.Split:
    """Pixels stay bytes in memory and become float32 in [0, 1] when they are read."""
    images, labels = idx(f"{name}-images-idx3-ubyte.gz"), idx(f"{name}-labels-idx1-ubyte.gz").astype(np.int64)
    return fw.LazySplit(
        len(labels), lambda i: ({"image": images[i][:, None].astype(np.float32) / 255}, labels[i]), CLASSES
    )


def data() -> fw.Splits:
    return fw.presplit(part("train"), part("t10k"), valid_fraction=0.1, seed=0)


task = fw.Task(
    name="fashion",
    model=FashionNet,
    data=data,
    baseline=fw.Recipe(
        fw.Train(epochs=5, lr=4e-3, batch_size=128, optimizer="adamw", schedule="cosine", warmup=0.1, weight_decay=0.01)
    ),
    recipe=fw.Recipe(
        fw.Maybe(fw.DropBlocks(drop=1)),
        fw.Prune(
            ratio=fw.Float(0.4, 0.8, step=0.1),
            criterion=fw.Choice("taylor", "magnitude", "fpgm", "random"),
            allocation=fw.Choice("global", "uniform", "sensitivity"),
        ),
        fw.Distill(epochs=3, lr=4e-3, batch_size=128, warmup=0.1),
        fw.Maybe(fw.Quantize(scheme=fw.Choice("weight-only", "int8-static"))),
    ),
)
