"""SeriesNet: a one-dimensional convolutional net of series, in stages of equal blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..space import Choice, Float, Int, param
from ._stages import cost, module
from .base import ACTIVATIONS, Cost, Net, same_length

if TYPE_CHECKING:
    from torch import nn

_KERNELS = Choice(1, 3, 5, 7, 9, 11, 13, 15, 17, 25, 33)


@dataclass(frozen=True)
class SeriesNet(Net):
    """[n, in_channels, T] (time_first: [n, T, in_channels]) -> [n, classes]: stem, stages, global
    average pooling, one linear layer. Any T.

    Stage i has depths[i] blocks of widths[i] channels; the first block of every stage but the
    first halves T. With inverted blocks of kernel 9 it is kin to the keyword nets of MatchboxNet
    (Majumdar & Ginsburg 2020, arXiv:2004.08531).
    """

    in_channels: int = param(1, legal=Int(1, 65536), doc="numbers at each moment")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    time_first: bool = param(False, doc="does time come before the channels in a sample?")
    stem: int = param(32, search=Int(8, 64, step=8), legal=Int(1, 65536), doc="channels after the first convolution")
    first: int = param(5, search=Choice(3, 5, 9), legal=_KERNELS, doc="size of the first convolution's kernel")
    stride: int = param(1, search=Choice(1, 2), legal=Int(1, 16), doc="of the first convolution")
    depths: tuple[int, ...] = param((1, 1, 1), search=Int(1, 3), legal=Int(1, 1000), doc="blocks of each stage")
    widths: tuple[int, ...] = param(
        (32, 64, 64), search=Int(8, 128, step=8), legal=Int(1, 65536), doc="channels of each stage"
    )
    kernel: int | tuple[int, ...] = param(
        5, search=Choice(3, 5, 9), legal=_KERNELS, doc="size of the blocks' kernels, of all stages or one a stage"
    )
    block: str = param(
        "residual",
        search=Choice("residual", "inverted", "plain"),
        legal=Choice("residual", "inverted", "plain"),
        doc=(
            "two convolutions with a skip connection, expand-depthwise-project, "
            "or two convolutions without a skip connection"
        ),
    )
    expansion: float = param(
        1.0,
        search=Choice(0.5, 1.0, 2.0),
        legal=Float(0.01, 64.0),
        doc="inner channels of a block, over its outputs (inverted: over its inputs)",
    )
    activation: str = param(
        "relu", search=Choice("relu", "silu", "hardswish"), legal=Choice(*ACTIVATIONS), doc="between the layers"
    )
    norm: str = param(
        "batch",
        search=Choice("batch", "group"),
        legal=Choice("batch", "group", "none"),
        doc="normalisation after each convolution (none: a bias); channels under group normalisation cannot be pruned",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        same_length(self.kind, depths=self.depths, widths=self.widths, kernel=self.kernel)

    def module(self) -> nn.Module:
        from ._modules import Turned

        return module(self, 1, *([Turned()] if self.time_first else []))

    def cost(self, shape: Sequence[int]) -> Cost:
        channels = 1 if self.time_first else 0
        self.require(
            len(shape) == 2 and shape[channels] == self.in_channels,
            shape,
            f"{'(T, C)' if self.time_first else '(C, T)'} with C = in_channels = {self.in_channels}",
        )
        return cost(self, 1, (1, shape[1 - channels]))
