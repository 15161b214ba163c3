"""Default search spaces, one for each kind of model."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nets.base import Net
from ..recipe import Recipe, describe
from ..registry import find
from ..space import Choice, Domain, Filling, Float, Maybe, Order
from ..transforms.build import Build
from ..transforms.distill import Distill
from ..transforms.drop_blocks import DropBlocks
from ..transforms.prune import Prune
from ..transforms.quantize import Quantize
from ..transforms.train import Train
from .abilities import abilities
from .nets import searchable, sensible
from .pace import pace

if TYPE_CHECKING:
    from ..task.task import Task

_SAMPLES = 150_000  # samples that the longest training of a search sees, in all of its epochs
_SHORT = 500  # steps of a short recovery, at most
_LEAST = 30  # of a recovery's steps, unless the baseline itself had fewer
TRIALS = 20  # that should fit into a search's time
_FEW = 2  # below so many, a search does not train at all
_TRAINING = 0.4  # of a search's time, at most, is recovery
_SEEN = 0.2  # of the samples that a recovery sees, a criterion does, at most


def cnn(
    epochs: int | tuple[int, ...] = 2,
    blocks: bool = False,
    prunes: bool = True,
    batches: int = 8,
    recurrent: bool = False,
    **training: Any,
) -> Recipe:
    """Cut channels, recover by distillation for `epochs`, quantize.

    Epochs are a short recovery, by which candidates are compared; a study trains its finalists
    longer. Several: a hole. blocks: whole blocks may go first (for a model that has some that
    keep their input's shape); prunes: False for a model without channels that can be cut; batches:
    of 64 samples, that criteria see; recurrent: it has recurrent layers, too, which int8-dynamic is
    for; training: other fields of `Distill`.
    """
    schemes = ("weight-only", "int8-static", *(("int8-dynamic",) if recurrent else ()))
    return Recipe(
        *([Maybe(DropBlocks(drop=1))] if blocks else []),
        *(
            [
                Prune(
                    ratio=Float(0.0, 0.8, step=0.1),
                    criterion=Choice("taylor", "magnitude", "fpgm", "random"),
                    allocation=Choice("global", "uniform", "sensitivity"),
                    round_to=8,
                    batches=batches,
                )
            ]
            if prunes
            else []
        ),
        Distill(epochs=_hole(epochs), **{"lr": 2e-3, **training}),
        Maybe(Quantize(scheme=Choice(*schemes), calibrate=Choice("minmax", "percentile"))),
    )


def encoder(
    epochs: int | tuple[int, ...] = 1,
    blocks: int = 4,
    cuts: tuple[str, ...] = ("all", "mlp"),
    batches: int = 2,
    tables: bool = True,
    **training: Any,
) -> Recipe:
    """Drop layers, cut heads and the feed-forward blocks' inner channels, recover by distillation
    for `epochs` (see `cnn`), quantize.

    blocks: layers that may go, at most (0: none); cuts: granularities of `Prune` that the model
    has (none: it is not pruned); batches: see `cnn`; tables: its embeddings, which are half of a
    small encoder's weights and none of its arithmetic, may be stored in 4 bits."""
    steps: list[Any] = []
    if blocks:
        drops = Choice(*range(min(blocks, 4) + 1))
        steps.append(DropBlocks(drop=drops, criterion=Choice("influence", "last", "spaced", "random")))
    if cuts:
        steps.append(
            Prune(
                ratio=Float(0.0, 0.75, step=0.25),
                granularity=_hole(cuts),
                criterion=Choice("taylor", "magnitude", "random"),
                allocation="uniform",
                round_to=16,
                batches=batches,
            )
        )
    return Recipe(
        *steps,
        Distill(epochs=_hole(epochs), **{"lr": 5e-5, "batch_size": 16, **training}),
        Maybe(
            Quantize(
                scheme=Choice("int8-dynamic", "int8-static", "weight-only"),
                **({"embeddings": Choice(4, 8)} if tables else {}),  # a search begins with the first
            )
        ),
    )


def mlp(
    epochs: int | tuple[int, ...] = 2, blocks: bool = False, prunes: bool = True, batches: int = 8, **training: Any
) -> Recipe:
    """Cut hidden units, recover by distillation for `epochs` (see `cnn`, which has the same
    arguments), quantize: for multilayer perceptrons and recurrent nets."""
    prune = Prune(
        ratio=Float(0.0, 0.8, step=0.1),
        criterion=Choice("taylor", "magnitude", "random"),
        allocation=Choice("global", "uniform"),
        round_to=8,
        batches=batches,
    )
    return Recipe(
        *([Maybe(DropBlocks(drop=1))] if blocks else []),
        *([prune] if prunes else []),
        Distill(epochs=_hole(epochs), **{"lr": 2e-3, **training}),
        Maybe(Quantize(scheme=Choice("int8-dynamic", "int8-static", "weight-only"))),
    )


def ptq() -> Recipe:
    """Quantization after training, and nothing that trains: for a model whose recovery would take
    longer than there is time for."""
    return Recipe(
        Choice(
            Quantize(
                scheme="int8-static",
                calibrate=Choice("minmax", "percentile", "mse"),
                range=Choice("minmax", "mse"),
                granularity=Choice("channel", "tensor"),
                activations=Choice("u8", "s8"),
                correct_bias=Choice(False, True),
            ),
            Quantize(scheme="int8-dynamic", range=Choice("minmax", "mse")),
            Quantize(scheme="weight-only", range=Choice("minmax", "mse")),
            Quantize(scheme="weight-only", bits=16),
        )
    )


def default(task: Task, minutes: float | None = None, threads: int = 1, trials: int = TRIALS) -> Recipe:
    """`encoder()` for a model with attention, `cnn()` for one with convolutions, else `mlp()`,
    without what the model has nothing for; every filling can be carried out on the task's model.
    `ptq()` if not even `_FEW` trials with one pass of recovery fit `minutes`.

    Recovery is short: a quarter of the baseline's own epochs, but some steps (an optimizer begins
    anew, and its first steps are harm more than help), at its learning rate and batch size;
    for a model that came trained about 500 steps; and so many seconds that `trials` trials (or
    TRIALS, if they are fewer) fit `minutes` (of the whole study; None: it is not looked at).
    Criteria see a fifth as many samples, at most.
    """
    can = abilities(task)
    trained = next((s for s in (task.baseline.steps if task.baseline else ()) if getattr(s, "epochs", 0)), None)
    n, training = len(task.splits().train), {}
    if trained is not None:
        least = math.ceil(_LEAST / max(1, -(-n // trained.batch_size)))
        epochs = min(trained.epochs, max(-(-trained.epochs // 4), least))
        training = {"lr": trained.lr, "batch_size": trained.batch_size}
    else:
        epochs = max(1, round(_SHORT / max(1, n // 64)))
    if minutes is not None:
        takes = pace(task, None, threads)
        trials = min(trials, TRIALS)
        fits = minutes * 60 * _TRAINING / trials / (n * (takes.train + takes.forward / max(epochs, 1)))
        if fits * trials < _FEW:
            return ptq()
        epochs = max(1, min(epochs, int(fits)))
    batches = max(1, min(8, round(_SEEN * epochs * n / 64)))
    if can.attentive:
        return encoder(epochs, can.blocks, can.cuts, batches, can.tables, **training)
    if can.convolutional:
        return cnn(epochs, bool(can.blocks), bool(can.cuts), batches, can.recurrent, **training)
    return mlp(epochs, bool(can.blocks), bool(can.cuts), batches, **training)


def least_minutes(task: Task, threads: int = 1) -> float:
    """Of a study in which the shortest recovery by training has a place: below, `default` gives
    `ptq()`."""
    takes = pace(task, None, threads)
    return _FEW * len(task.splits().train) * (takes.train + takes.forward) / _TRAINING / 60


def _hole(values: Any) -> Any:
    """One value as it is, several as a hole."""
    if not isinstance(values, tuple):
        return values
    return values[0] if len(values) == 1 else Choice(*values)


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


def search(
    task: Task,
    compress: bool = False,
    stopped: bool = False,
    minutes: float | None = None,
    threads: int = 1,
    trials: int = TRIALS,
) -> Recipe:
    """Architecture and training for a task's data: a net with holes that suits their shape, and how
    it is trained; with `compress` also pruning with recovery, and quantization, each of which may
    be left out.

    stopped: a stopper ends weak trainings, so each is as long as the fixed net's; else a third of
    it, by which nets are compared, and the finalists are trained on; and so short that `trials`
    trainings of the fixed net (or TRIALS, if they are fewer) fit `minutes`."""
    longest = _longest(task)
    epochs = longest if stopped else max(1, longest // 3)
    if minutes is not None and not stopped:
        takes = pace(task, _net(task, sensible), threads).train * len(task.splits().train)
        epochs = max(1, min(epochs, int(minutes * 60 * _TRAINING / min(trials, TRIALS) / takes)))
    training = Train(
        epochs=epochs,
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
    return Recipe(Build(net=_net(task, searchable)), training, *(smaller if compress else ()))


def fixed(task: Task, recipe: Recipe, times: int = 1) -> Recipe:
    """What a search is compared with: a sensible net of its own for the task's data, trained as
    long as the longest training in `recipe`, or so many times as long where that is not longer than
    suits the data."""
    longest = max((_most(step) for step in recipe.steps), default=0)
    longest = max(longest, min(times * longest, _longest(task)))
    return Recipe(
        Build(net=_net(task, sensible)),
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


def _net(task: Task, make: Callable[[Mapping[str, np.ndarray], int], Net]) -> Net:
    """`sensible` or `searchable` for the task's data, inside what makes features of them, if that
    is a part of the model."""
    front = None if task.front is None else task.front()
    if front is None:
        return make(_rows(task), task.outputs)
    kind, fields = front
    outer = find("nets", kind)(**fields)
    shape = outer.features if isinstance(outer.features, tuple) else (outer.features,)
    net: Net = dataclasses.replace(outer, net=make({"features": np.zeros((1, *shape), np.float32)}, task.outputs))
    return net


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
