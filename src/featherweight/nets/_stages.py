"""Stages of equal blocks, of images and of series: what ConvNet and SeriesNet share.

Notation: n samples, C channels; H x W positions of an image, T of a series.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._tally import Size, Tally
from .base import Cost, activation

if TYPE_CHECKING:
    from torch import nn


def blocks(net: Any) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(stage, channels in, inner, out, kernel, stride) of each block."""
    i = net.stem
    kernels = net.kernel if isinstance(net.kernel, tuple) else (net.kernel,) * len(net.depths)
    for stage, (depth, o, kernel) in enumerate(zip(net.depths, net.widths, kernels, strict=True)):
        for b in range(depth):
            hidden = max(1, round(net.expansion * (i if net.block == "inverted" else o)))
            yield stage, i, hidden, o, kernel, 2 if b == 0 and stage > 0 else 1
            i = o


def module(net: Any, dims: int, *first: nn.Module) -> nn.Module:
    """Stem, stages, global average pooling and one linear layer, after `first`. dims: of positions,
    2 of images, 1 of series."""
    from torch import nn

    from ._modules import Inverted, Plain, Residual, conv_norm

    make = {"residual": Residual, "inverted": Inverted, "plain": Plain}[net.block]
    stages: list[list[nn.Module]] = [[] for _ in net.depths]
    for stage, i, hidden, o, kernel, stride in blocks(net):
        stages[stage].append(make(i, hidden, o, kernel, stride, net.activation, net.norm, dims))
    stem = nn.Sequential(
        *conv_norm(net.in_channels, net.stem, net.first, net.stride, norm=net.norm, dims=dims),
        activation(net.activation),
    )
    pool: nn.Module = nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool1d(1)
    head = nn.Linear(net.widths[-1], net.classes)
    return nn.Sequential(*first, stem, *(nn.Sequential(*b) for b in stages), pool, nn.Flatten(), head)


def cost(net: Any, dims: int, size: Size) -> Cost:
    """What `module` costs for a sample of this size (H, W; of a series 1, T)."""
    tally, depth, layers, paths = Tally(), 2, 2, 0

    def conv(i: int, o: int, k: int, size: Size, stride: int = 1, groups: int = 1) -> Size:
        if net.norm != "none":
            tally.norm(o)
        return tally.conv(i, o, k, size, stride, groups, bias=net.norm == "none", dims=dims)

    size = conv(net.in_channels, net.stem, net.first, size, net.stride)
    for _, i, hidden, o, kernel, stride in blocks(net):
        before, same = size, stride == 1 and i == o
        if net.block == "inverted":
            expands = hidden != i
            size = conv(i, hidden, 1, size) if expands else size
            size = conv(hidden, o, 1, conv(hidden, hidden, kernel, size, stride, hidden))
            depth, layers, paths = depth + 2 + expands, layers + 2 + expands, paths + same
        else:
            size = conv(hidden, o, kernel, conv(i, hidden, kernel, size, stride))
            depth, layers = depth + 2, layers + 2
            if net.block == "residual":
                paths += 1
                if not same:
                    conv(i, o, 1, before, stride)
                    layers += 1
    tally.linear(net.widths[-1], net.classes)
    return Cost(tally.params, tally.macs, depth, layers, tally.widest, float(paths))
