"""Which architecture suits which data: a fixed one to compare with,
and one with holes to search in. No torch.

The widths and depths are round numbers of the field (ResNet for small images: He et al. 2016,
arXiv:1512.03385, section 4.2), fitted to no data set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..nets.base import Net
from ..nets.conv_net import ConvNet
from ..nets.encoder import Encoder
from ..nets.mlp import Mlp
from ..nets.series_net import SeriesNet
from ..space import Choice, Float, Int

_SMALL = 64  # the longer side of an image from which on the first convolution halves it
_MOMENTS = 8  # from which on rows of numbers are taken for a series, along the longer axis
_LEAST = 4  # the longer side that a last stage should see, at least


def sensible(inputs: Mapping[str, np.ndarray], outputs: int) -> Net:
    """A fixed net of ordinary size for such data: what a search has to beat.

    inputs: example rows by name, with batch axis: one float32 [n, C, H, W] -> ConvNet (175k
    parameters for small images); one [n, C, T] or [n, T, C] of at least `_MOMENTS` moments (the
    longer axis) -> SeriesNet; any other one float32 [n, ...] -> Mlp; int64 token ids and
    attention mask, both [n, L] -> Encoder. The vocabulary of an Encoder is what these rows use, so
    give all the rows there are. outputs: classes, or numbers to predict. InputError for other data.
    """
    family, sizes = _family(inputs, outputs)
    if family is ConvNet:
        stages, stride = _stages(inputs)
        return ConvNet(
            **sizes,
            stride=stride,
            depths=(2,) * min(stages, 3) + (1,) * (stages - 3),
            widths=(16, 32, 64, 128)[:stages],
        )
    if family is SeriesNet:
        stages, stride = _stages(inputs)
        return SeriesNet(**sizes, stride=stride, depths=(1,) * stages, widths=(32, 64, 64, 128)[:stages])
    if family is Mlp:
        return Mlp(**sizes, hidden=(128, 128), norm="batch")
    return Encoder(**sizes, width=64, depth=2, heads=4, mlp_ratio=2.0)


def searchable(inputs: Mapping[str, np.ndarray], outputs: int) -> Net:
    """The same family with holes, from nets about a hundred times smaller to some times larger than
    the `sensible` one.

    Arguments and errors as for `sensible`. Every filling fits its own fields."""
    family, sizes = _family(inputs, outputs)
    if family is ConvNet:
        stages, stride = _stages(inputs)
        return ConvNet(
            **sizes,
            stem=Int(8, 32, step=8),
            stride=stride,
            depths=(Int(1, 3),) * stages,
            widths=tuple(Int(8, 32 * 2**stage, step=8) for stage in range(stages)),
            kernel=Choice(3, 5),
            block=Choice("residual", "inverted", "plain"),
            expansion=Choice(0.5, 1.0, 2.0, 4.0),
            activation=Choice("relu", "silu", "hardswish"),
            norm=Choice("batch", "group"),
        )
    if family is SeriesNet:
        stages, stride = _stages(inputs)
        return SeriesNet(
            **sizes,
            stem=Int(8, 64, step=8),
            first=Choice(3, 5, 9),
            stride=Choice(1, 2) if stride == 1 else Choice(2, 4),
            depths=(Int(1, 3),) * stages,
            widths=(Int(8, 96, step=8),) * stages,
            kernel=Choice(3, 5, 9),
            block=Choice("residual", "inverted", "plain"),
            expansion=Choice(0.5, 1.0, 2.0),
            activation=Choice("relu", "silu", "hardswish"),
            norm=Choice("batch", "group"),
        )
    if family is Mlp:
        return Mlp(
            **sizes,
            hidden=(Int(16, 512, log=True), Int(16, 512, log=True)),
            activation=Choice("relu", "gelu", "silu"),
            norm=Choice("none", "batch", "layer"),
            dropout=Float(0.0, 0.5),
        )
    return Encoder(
        **sizes,
        depth=Int(1, 4),
        heads=Choice(1, 2, 4, 8),
        width=Choice(32, 64, 96, 128),  # every number of heads divides every width
        mlp_ratio=Choice(1.0, 2.0, 4.0),
        activation=Choice("relu", "gelu", "silu"),
        dropout=Float(0.0, 0.3),
    )


def _family(inputs: Mapping[str, np.ndarray], outputs: int) -> tuple[type[Net], dict[str, Any]]:
    """The family that takes such inputs, and the fields that the data fix."""
    found = {name: (str(v.dtype), v.shape) for name, v in inputs.items()}
    kinds, shapes = [v[0] for v in found.values()], [v[1] for v in found.values()]
    if outputs >= 1 and shapes and all(len(s) >= 2 and min(s) >= 1 for s in shapes):
        if kinds == ["float32"]:
            if len(shapes[0]) == 4:
                return ConvNet, {"in_channels": shapes[0][1], "classes": outputs}
            if len(shapes[0]) == 3 and max(shapes[0][1:]) >= _MOMENTS:
                time_first = shapes[0][1] > shapes[0][2]
                channels = shapes[0][2 if time_first else 1]
                return SeriesNet, {"in_channels": channels, "classes": outputs, "time_first": time_first}
            return Mlp, {"features": math.prod(shapes[0][1:]), "classes": outputs}
        if kinds == ["int64", "int64"] and shapes[0] == shapes[1] and len(shapes[0]) == 2:
            ids, mask = inputs.values()
            if ids.min() >= 0 and bool(((mask == 0) | (mask == 1)).all()):
                return Encoder, {"vocab": int(ids.max()) + 1, "length": shapes[0][1], "classes": outputs}
    raise InputError(
        "no family of nets takes such data",
        got=(
            f"{', '.join(f'{name}: {kind}{list(shape)}' for name, (kind, shape) in found.items()) or 'no inputs'}; "
            f"outputs: {outputs}"
        ),
        allowed=(
            "one float32 input [n, C, H, W], [n, C, T] or [n, ...] (at least one row and one number a row); or "
            "two int64 inputs [n, L], token ids (from 0 on) and attention mask (0 or 1), in this order; one output"
        ),
        fix="cast the data, or describe the net yourself: a recipe that begins with Build(..)",
    )


def _stages(inputs: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """(stages, stride of the stem) for images or series of this size."""
    shape = next(iter(inputs.values())).shape
    side = max(shape[2:] if len(shape) == 4 else shape[1:])
    stride = 2 if side >= _SMALL else 1
    return min(max(1 + int(math.log2(max(side / stride / _LEAST, 1))), 1), 3 if stride == 1 else 4), stride
