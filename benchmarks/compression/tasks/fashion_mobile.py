"""Fashion-MNIST and a MobileNet-like net: inverted residual blocks with depthwise convolutions
(Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

import featherweight as fw

_spec = importlib.util.spec_from_file_location("_fashion", Path(__file__).parents[3] / "examples" / "fashion_cnn.py")
_fashion = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(_fashion)  # type: ignore[union-attr]


class Inverted(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation;
    a shortcut where the shape stays."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        wide = inside * expansion
        self.body = nn.Sequential(
            nn.Conv2d(inside, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = inside == outside and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class MobileNet(nn.Module):
    """image: float32 [n, 1, 28, 28] in [0, 1] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())  # 14x14
        self.blocks = nn.Sequential(
            Inverted(24, 24, 1), Inverted(24, 48, 2), Inverted(48, 48, 1), Inverted(48, 96, 2), Inverted(96, 96, 1)
        )  # 14, 7, 4
        self.last = nn.Sequential(nn.Conv2d(96, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU())
        self.head = nn.Linear(256, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.blocks(self.stem(image))).mean(dim=(2, 3)))


task = fw.Task(
    name="fashion-mobile",
    model=MobileNet,
    data=_fashion.data,
    baseline=_fashion.task.baseline,
    recipe=_fashion.task.recipe,
    sources=(_fashion.__file__,),
)
