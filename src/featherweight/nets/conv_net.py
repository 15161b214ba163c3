"""ConvNet: a convolutional classifier of images, in stages of equal blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..space import Choice, Float, Int, param
from .base import ACTIVATIONS, Net, activation, same_length

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ConvNet(Net):
    """[n, in_channels, H, W] -> [n, classes]: stem, stages, global average pooling, one linear layer. Any H and W.

    Stage i has depths[i] blocks of widths[i] channels; the first block of every stage but the first halves H and W.
    """

    in_channels: int = param(3, legal=Int(1, 65536), doc="channels of the images")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    stem: int = param(16, search=Int(8, 64, step=8), legal=Int(1, 65536), doc="channels after the first convolution")
    stride: int = param(1, search=Choice(1, 2), legal=Int(1, 16), doc="of the first convolution")
    depths: tuple[int, ...] = param((2, 2, 2), search=Int(1, 4), legal=Int(1, 1000), doc="blocks of each stage")
    widths: tuple[int, ...] = param((16, 32, 64), search=Int(8, 128, step=8), legal=Int(1, 65536), doc="channels of each stage")
    kernel: int = param(3, search=Choice(3, 5, 7), legal=Choice(1, 3, 5, 7, 9, 11, 13), doc="size of the blocks' kernels")
    block: str = param(
        "residual", search=Choice("residual", "inverted"), legal=Choice("residual", "inverted"), doc="two convolutions, or expand-depthwise-project"
    )
    expansion: float = param(
        1.0, search=Choice(0.5, 1.0, 2.0, 4.0), legal=Float(0.01, 64.0), doc="inner channels of a block, over its outputs (inverted: over its inputs)"
    )
    activation: str = param("relu", search=Choice("relu", "silu", "hardswish"), legal=Choice(*ACTIVATIONS), doc="between the layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        same_length(self.kind, depths=self.depths, widths=self.widths)

    def module(self) -> nn.Module:
        from torch import nn

        from ._modules import Inverted, Residual, conv_norm

        stages, i = [], self.stem
        for stage, (depth, o) in enumerate(zip(self.depths, self.widths, strict=True)):
            blocks: list[nn.Module] = []
            for b in range(depth):
                stride = 2 if b == 0 and stage > 0 else 1
                make, base = (Inverted, i) if self.block == "inverted" else (Residual, o)
                blocks.append(make(i, max(1, round(self.expansion * base)), o, self.kernel, stride, self.activation))
                i = o
            stages.append(nn.Sequential(*blocks))
        stem = nn.Sequential(*conv_norm(self.in_channels, self.stem, 3, self.stride), activation(self.activation))
        return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, self.classes))
