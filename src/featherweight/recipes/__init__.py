"""Default search spaces, one for each kind of model."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recipe import Recipe, describe
from ..space import Choice, Domain, Filling, Float, Maybe, Order
from ..transforms.build import Build
from ..transforms.distill import Distill
from ..transforms.drop_blocks import DropBlocks
from ..transforms.prune import Prune
from ..transforms.quantize import Quantize
from ..transforms.train import Train
from .nets import searchable, sensible

if TYPE_CHECKING:
    from ..task.task import Task

_SAMPLES = 150_000  # samples that the longest training of a search sees, in all of its epochs
_STEPS = 1000  # of recovery training, when no baseline's training says what the data need


def cnn(epochs: tuple[int, ...] = (2, 4, 8), blocks: bool = False, **training: Any) -> Recipe:
    """Cut channels, recover by distillation for one of `epochs`, quantize.

    blocks: whole blocks may go first (for a model that has some that keep their input's shape);
    training: other fields of `Distill`.
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
    """Drop layers, cut heads and the feed-forward blocks' inner channels, recover by distillation
    for one of `epochs`, quantize."""
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

    Recovery lasts a quarter, half or all of the baseline's own epochs, at its learning rate and
    batch size; a model that came trained gets about 500, 1,000 or 2,000 steps.
    """
    import torch
    from torch import nn

    from ..models.blocks import droppable

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


def builds(recipe: Recipe) -> bool:
    """Does every filling of the recipe begin with Build?"""

    def begins(item: Any) -> bool:
        if isinstance(item, Recipe):
            return bool(item.steps) and begins(item.steps[0])
        return all(begins(option) for option in item.items) if isinstance(item, Choice) else isinstance(item, Build)

    return begins(recipe)


def one_line(recipe: Recipe, filling: Filling) -> str:
    """A filled recipe in one line: its steps with the fields that were holes, those of its
    architecture, too; numbers with 4 digits."""
    prefix = "build.net."
    net = [f"{path.removeprefix(prefix)}={value}" for path, value in filling.items() if path.startswith(prefix)]
    text = describe(recipe, filling)
    if net and text.split(" > ")[0] == "build":
        text = f"build({', '.join(net)}){text.removeprefix('build')}"
    return re.sub(r"\d+\.\d{6,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", text)


def search(task: Task, compress: bool = False, stopped: bool = False) -> Recipe:
    """Architecture and training for a task's data: a net with holes that suits their shape, and how
    it is trained; with `compress` also pruning with recovery, and quantization, each of which may
    be left out.

    stopped: a stopper ends weak trainings, so all are of one length: among several it would keep
    the short ones, whose schedule ends sooner."""
    epochs = _longest(task)
    training = Train(
        epochs=epochs if stopped else Choice(*sorted({max(1, epochs // 3), epochs})),
        lr=Float(3e-4, 3e-2, log=True),
        batch_size=Choice(32, 64, 128),
        optimizer=Choice("sgd", "adamw"),
        schedule=Choice("linear", "cosine"),
        weight_decay=Float(1e-6, 1e-1, log=True),
        warmup=0.05,
    )
    smaller = [
        Maybe(
            Recipe(
                Prune(ratio=Float(0.1, 0.6, step=0.1), criterion=Choice("taylor", "magnitude"), allocation="uniform"),
                Train(epochs=epochs, lr=2e-3),
            )
        ),
        Maybe(Quantize(scheme=Choice("weight-only", "int8-static"))),
    ]
    return Recipe(Build(net=searchable(_rows(task), task.outputs)), training, *(smaller if compress else ()))


def fixed(task: Task, recipe: Recipe) -> Recipe:
    """What a search is compared with: a sensible net of its own for the task's data, trained as
    long as the longest training in `recipe`."""
    longest = max((_most(step) for step in recipe.steps), default=0)
    return Recipe(
        Build(net=sensible(_rows(task), task.outputs)),
        Train(epochs=longest or _longest(task), lr=3e-3, warmup=0.05, weight_decay=1e-2),
    )


def _most(step: Any) -> int:
    """The most epochs that a step, or what may stand in its place, trains."""
    if isinstance(step, (Choice, Order, Maybe, Recipe)):
        inside = step.steps if isinstance(step, Recipe) else [step.item] if isinstance(step, Maybe) else step.items
        return max((_most(i) for i in inside), default=0)
    epochs = getattr(step, "epochs", 0)
    return int(max(epochs.options(2) or [0]) if isinstance(epochs, Domain) else epochs)


def _longest(task: Task) -> int:
    """Epochs: 3 to 30, for about `_SAMPLES` samples in all."""
    return min(30, max(3, round(_SAMPLES / max(1, len(task.splits().train)))))


def _rows(task: Task) -> dict[str, Any]:
    """One training row whose whole numbers are the greatest of the split,
    so that a vocabulary can be read off it."""
    train, row = task.splits().train, {name: np.array(v) for name, v in task.example().items()}
    if all(np.issubdtype(v.dtype, np.floating) for v in row.values()):
        return row
    for start in range(0, len(train), 1024):
        for name, values in train.batch(np.arange(start, min(start + 1024, len(train))))[0].items():
            row[name] = np.maximum(row[name], values.max(axis=0, keepdims=True))
    return row
