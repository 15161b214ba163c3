"""Default search spaces, one for each kind of model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .recipe import Recipe
from .space import Choice, Float, Maybe
from .transforms.distill import Distill
from .transforms.drop_blocks import DropBlocks
from .transforms.prune import Prune
from .transforms.quantize import Quantize

if TYPE_CHECKING:
    from .task import Task

_STEPS = 1000  # of recovery training, when no baseline's training says what the data need


def cnn(epochs: tuple[int, ...] = (2, 4, 8), blocks: bool = False, **training: Any) -> Recipe:
    """Cut channels, recover by distillation for one of `epochs`, quantize.

    blocks: whole blocks may go first (for a model that has some that keep their input's shape); training: other fields of `Distill`.
    """
    return Recipe(
        *([Maybe(DropBlocks(drop=1))] if blocks else []),
        Prune(
            ratio=Float(0.0, 0.8, step=0.1),
            criterion=Choice("taylor", "magnitude", "fpgm", "random"),
            allocation=Choice("global", "uniform", "sensitivity"),
            round_to=8,
        ),
        Distill(epochs=Choice(*epochs), **{"lr": 2e-3, **training}),
        Maybe(Quantize(scheme=Choice("weight-only", "int8-static"), calibrate=Choice("minmax", "percentile"))),
    )


def encoder(epochs: tuple[int, ...] = (1, 2, 4), **training: Any) -> Recipe:
    """Drop layers, cut heads and the feed-forward blocks' inner channels, recover by distillation for one of `epochs`, quantize."""
    return Recipe(
        DropBlocks(drop=Choice(0, 1, 2, 3, 4), criterion=Choice("influence", "last", "spaced", "random")),
        Prune(
            ratio=Float(0.0, 0.75, step=0.25),
            granularity=Choice("all", "mlp"),
            criterion=Choice("taylor", "magnitude", "random"),
            allocation="uniform",
            round_to=16,
        ),
        Distill(epochs=Choice(*epochs), form=Choice("kl", "mse"), **{"lr": 5e-5, "batch_size": 16, **training}),
        Maybe(Quantize(scheme=Choice("int8-dynamic", "int8-static", "weight-only"))),
    )


def default(task: Task) -> Recipe:
    """`cnn()` for a model with convolutions, `encoder()` for any other.

    Recovery lasts a quarter, half or all of the baseline's own epochs, at its learning rate and batch size; a model that came
    trained gets about 500, 1,000 or 2,000 steps.
    """
    import torch
    from torch import nn

    from .models.blocks import droppable

    module = task.build().eval()
    convolutional = any(isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for m in module.modules())
    example = tuple(torch.from_numpy(v.copy()) for v in task.example().values())
    family: Callable[..., Recipe] = partial(cnn, blocks=bool(droppable(module, example))) if convolutional else encoder
    trained = next((s for s in (task.baseline.steps if task.baseline else ()) if getattr(s, "epochs", 0)), None)
    if trained is not None:
        n = trained.epochs
        return family(tuple(dict.fromkeys((-(-n // 4), -(-n // 2), n))), lr=trained.lr, batch_size=trained.batch_size)
    per_epoch = max(1, len(task.splits().train) // 64)
    return family(tuple(dict.fromkeys(max(1, round(k * _STEPS / per_epoch)) for k in (0.5, 1, 2))))
