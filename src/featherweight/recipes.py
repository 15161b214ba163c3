"""Default search spaces, one for each kind of model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recipe import Recipe
from .space import Choice, Float, Maybe
from .transforms.distill import Distill
from .transforms.drop_blocks import DropBlocks
from .transforms.prune import Prune
from .transforms.quantize import Quantize

if TYPE_CHECKING:
    from .task import Task


def cnn() -> Recipe:
    """Cut channels, recover by distillation, quantize."""
    return Recipe(
        Prune(ratio=Float(0.0, 0.8, step=0.1), criterion=Choice("magnitude", "taylor", "random"), scope=Choice("global", "layer"), round_to=8),
        Distill(epochs=Choice(2, 4, 8), lr=2e-3),
        Maybe(Quantize(scheme="int8-static", granularity=Choice("channel", "tensor"), calibrate=Choice("minmax", "percentile"))),
    )


def encoder() -> Recipe:
    """Drop layers, cut the feed-forward blocks' inner channels, recover by distillation, quantize."""
    return Recipe(
        DropBlocks(drop=Choice(0, 1, 2, 3, 4), criterion=Choice("influence", "last", "spaced")),
        Prune(ratio=Float(0.0, 0.75, step=0.25), criterion=Choice("taylor", "magnitude", "random"), scope="layer", round_to=16),
        Distill(epochs=Choice(1, 2, 4), lr=5e-5, batch_size=16, form=Choice("kl", "mse")),
        Maybe(Quantize(scheme=Choice("int8-dynamic", "int8-static"), granularity=Choice("channel", "tensor"))),
    )


def default(task: Task) -> Recipe:
    """`cnn()` for a model with convolutions, `encoder()` for any other."""
    from torch import nn

    convolutional = any(isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for m in task.build().modules())
    return cnn() if convolutional else encoder()
