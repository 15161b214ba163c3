"""ConvNet: a convolutional classifier of images, in stages of equal blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..space import Choice, Float, Int, param
from ._tally import Size, Tally
from .base import ACTIVATIONS, Cost, Net, activation, same_length

if TYPE_CHECKING:
    from torch import nn

_KERNELS = Choice(1, 3, 5, 7, 9, 11, 13)


@dataclass(frozen=True)
class ConvNet(Net):
    """[n, in_channels, H, W] -> [n, classes]: stem, stages, global average pooling,
    one linear layer. Any H and W.

    Stage i has depths[i] blocks of widths[i] channels; the first block of every stage but the
    first halves H and W.
    """

    in_channels: int = param(3, legal=Int(1, 65536), doc="channels of the images")
    classes: int = param(10, legal=Int(1, 1_000_000), doc="outputs")
    stem: int = param(16, search=Int(8, 64, step=8), legal=Int(1, 65536), doc="channels after the first convolution")
    stride: int = param(1, search=Choice(1, 2), legal=Int(1, 16), doc="of the first convolution")
    depths: tuple[int, ...] = param((2, 2, 2), search=Int(1, 4), legal=Int(1, 1000), doc="blocks of each stage")
    widths: tuple[int, ...] = param(
        (16, 32, 64), search=Int(8, 128, step=8), legal=Int(1, 65536), doc="channels of each stage"
    )
    kernel: int | tuple[int, ...] = param(
        3, search=Choice(3, 5, 7), legal=_KERNELS, doc="size of the blocks' kernels, of all stages or one a stage"
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
        search=Choice(0.5, 1.0, 2.0, 4.0),
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

    def _blocks(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """(stage, channels in, inner, out, kernel, stride) of each block."""
        i = self.stem
        kernels = self.kernel if isinstance(self.kernel, tuple) else (self.kernel,) * len(self.depths)
        for stage, (depth, o, kernel) in enumerate(zip(self.depths, self.widths, kernels, strict=True)):
            for b in range(depth):
                hidden = max(1, round(self.expansion * (i if self.block == "inverted" else o)))
                yield stage, i, hidden, o, kernel, 2 if b == 0 and stage > 0 else 1
                i = o

    def module(self) -> nn.Module:
        from torch import nn

        from ._modules import Inverted, Plain, Residual, conv_norm

        make = {"residual": Residual, "inverted": Inverted, "plain": Plain}[self.block]
        stages: list[list[nn.Module]] = [[] for _ in self.depths]
        for stage, i, hidden, o, kernel, stride in self._blocks():
            stages[stage].append(make(i, hidden, o, kernel, stride, self.activation, self.norm))
        stem = nn.Sequential(
            *conv_norm(self.in_channels, self.stem, 3, self.stride, norm=self.norm), activation(self.activation)
        )
        head = nn.Linear(self.widths[-1], self.classes)
        return nn.Sequential(
            stem, *(nn.Sequential(*blocks) for blocks in stages), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
        )

    def cost(self, shape: Sequence[int]) -> Cost:
        self.require(
            len(shape) == 3 and shape[0] == self.in_channels,
            shape,
            f"(C, H, W) with C = in_channels = {self.in_channels}",
        )
        tally, depth, layers, paths = Tally(), 2, 2, 0

        def conv(i: int, o: int, k: int, size: Size, stride: int = 1, groups: int = 1) -> Size:
            if self.norm != "none":
                tally.norm(o)
            return tally.conv(i, o, k, size, stride, groups, bias=self.norm == "none")

        size = conv(self.in_channels, self.stem, 3, (shape[1], shape[2]), self.stride)
        for _, i, hidden, o, kernel, stride in self._blocks():
            before, same = size, stride == 1 and i == o
            if self.block == "inverted":
                expands = hidden != i
                size = conv(i, hidden, 1, size) if expands else size
                size = conv(hidden, o, 1, conv(hidden, hidden, kernel, size, stride, hidden))
                depth, layers, paths = depth + 2 + expands, layers + 2 + expands, paths + same
            else:
                size = conv(hidden, o, kernel, conv(i, hidden, kernel, size, stride))
                depth, layers = depth + 2, layers + 2
                if self.block == "residual":
                    paths += 1
                    if not same:
                        conv(i, o, 1, before, stride)
                        layers += 1
        tally.linear(self.widths[-1], self.classes)
        return Cost(tally.params, tally.macs, depth, layers, tally.widest, float(paths))
