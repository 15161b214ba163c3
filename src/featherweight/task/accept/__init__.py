"""A task of what people have: a model and data.

task_of(net, (X, y))
task_of(net, {"train": train_set, "test": loader})
task_of(net, X)                     # without labels: the net's own behaviour is kept
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ...recipe import Recipe, Transform
from ..data import Split, Splits
from ..splitting import given, presplit, split
from ..task import Task
from ._axes import Around, values_of
from ._batches import Samples, Wanted
from ._fetched import as_long
from ._form import Form, Read
from ._frames import as_sequences
from ._front import front_of
from ._identity import identity
from ._losses import ignored_by, loss_of, metric_of
from ._masks import some_left_out
from ._module import Model, alone, arranged, called_by, far_out, model_of, tried
from ._own import own
from ._places import at_places
from ._samples import Arrays, samples
from ._suiting import at_its_turn, suiting
from ._targets import Meaning, kinds, meaning

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["builder", "task_of", "unwrapped", "wrapped"]

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
PARTS |= dict.fromkeys(("valid", "val", "validation", "dev", "eval"), "valid")
_ASKED = 16  # samples that the model is asked about
_MAY_BE_SEEN = (
    "the model comes with its weights: if it was trained on some of these data, it looks better on them than it is. "
    'Give {"train": .., "test": ..} with what it has not seen as test'
)
_SOME = 4096  # targets of lazy data that are looked at, to see what they stand for


def task_of(
    model: Any,
    data: Any,
    *,
    loss: Any = None,
    metric: Any = None,
    baseline: Any = None,
    label: str | None = None,
    output: str | int | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    class_axis: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A task of a model and data as they are.

    model: a module with its weights, a class or function without arguments that makes one,
    "FILE.py:NAME", or None (for `search`). data: (inputs, targets), or inputs alone, as arrays,
    tensors, DataFrames or nested lists; a torch Dataset or DataLoader; a Hugging Face dataset; an
    .npz file; a Split; or {"train": .., "valid": .., "test": ..} of these. Inputs go to the
    arguments of the model's forward by name, or in their order.

    One set of data is cut by `fw.split`. Of train and test, valid is cut from train, or, if the
    model comes with weights (which may have learned train by heart), from test.

    loss, metric: names, functions of (outputs, targets), or torch's losses; by default what suits
    the targets and the outputs. Without targets the original's outputs are the targets. baseline:
    how the model is trained before anything else (a `Train`, a Recipe, or epochs); None: its
    weights are ready. label: the column or key of the targets. output: which of the model's outputs
    counts, by key or place. classes: names of the classes 0, 1, ... class_axis: of outputs with an
    answer at each place of a sample, which axis has the classes, 1 or -1, or 0 if there is one
    number at each place, which says yes or no (None: as targets and inputs show). TaskError for
    what does not fit, with what would.
    """
    made = None if model is None else model_of(model)
    wanted = made.wanted if made is not None else Wanted()
    parts = {part: _read(one, wanted, label) for part, one in _parts(data).items()}
    as_long(parts.values())
    first = next(iter(parts.values()))
    inputs, _ = first.read(np.arange(min(_ASKED, len(first))))
    order, by_name = arranged(tuple(inputs), wanted)
    out: torch.Tensor | None = None
    casts: dict[str, Any] = {}
    if made is not None:
        made, out, _, casts = tried(made, order, by_name, inputs, output)
        if out.ndim > 2 and any(isinstance(one, list) for one in _parts(data).values()):
            alone(made, order, inputs, out)
    given_loss = loss_of(loss) if loss is not None else None
    looks = out
    if made is not None and out is not None and given_loss != "log_loss":
        looks = far_out(made, order, inputs, casts, out)
    known = _seen(first, parts)
    shapes = tuple(v.shape[1:] for v in inputs.values())
    around = Around(shapes, class_axis, ignored_by(loss), _values(known, first, parts, out))
    _check_labels(known, made, baseline)
    names = classes if classes is not None else first.classes
    tokens = any(v.dtype.kind in "iu" for v in inputs.values())
    means = (
        own(looks, (given_loss, metric), around, tokens)  # type: ignore[arg-type]
        if known is None
        else _meant(known, looks, names, (given_loss, metric), around, len(known) == len(first))
    )
    asked = _loss(given_loss, means, out)
    told = at_its_turn(metric_of(metric), means, asked) if metric is not None else suiting(means.metric, asked, loss)
    rename = dict(zip(order, called_by(order, wanted), strict=True))
    form = Form(rename, casts, means, made.make if known is None and made is not None else None)
    comes = made is not None and made.comes
    notes = [*dict.fromkeys(note for part in parts.values() for note in part.notes)]
    notes += means.notes if loss is None or known is None or means.axis is not None else ()
    notes += [_MAY_BE_SEEN] if comes and baseline is None and len(parts) == 1 and known is not None else []
    task = Task(
        name=name or _task_name(made, data),
        model=made.make if made is not None else None,
        data=partial(_data, data, parts, form, comes, split_seed),
        loss=asked,
        metric=told,
        baseline=_baseline(baseline),
        split_seed=split_seed,
        notes=tuple(notes),
        sources=() if made is None or made.file is None else made.file.files,
        identity=_identity(made, asked, told),
        class_axis=means.axis,
    )
    if made is None:
        task.front = partial(front_of, task)
    return task


def _data(data: Any, parts: Mapping[str, Samples], form: Form, comes: bool, seed: int) -> Split | Splits:
    """The splits; those that were cut before keep what they know of groups and copies."""
    if isinstance(data, Splits):
        return form.cut_before(data)
    return _splits({part: form.split(one) for part, one in parts.items()}, comes, seed)


def _check_labels(known: np.ndarray | None, made: Model | None, baseline: Any) -> None:
    """TaskError where there are no targets, and have to be."""
    if known is None and made is None:
        raise TaskError("a search needs targets", got="inputs alone", fix="data=(inputs, targets)")
    if known is None and not made.comes and baseline is None:  # type: ignore[union-attr]
        raise TaskError(
            "without labels the model's own behaviour is kept, and this model has none yet",
            got="a class or function that makes it anew",
            fix="give the module with its weights, or data with targets",
        )


def _loss(given: Any, means: Meaning, out: torch.Tensor | None) -> Any:
    """The loss that was asked for, or that the targets ask for."""
    asked = given if given is not None else means.loss
    if given is not None and asked == "log_loss" and out is not None and not bool(((out >= 0) & (out <= 1)).all()):
        raise TaskError(
            "this loss takes probabilities, and the model gives other numbers",
            got=f"outputs from {float(out.min()):.3g} to {float(out.max()):.3g}",
            fix="of logits: loss='bce' (nn.BCEWithLogitsLoss()) or 'cross_entropy'",
        )
    return asked


def builder(model: Any) -> Callable[[], nn.Module]:
    """What makes a model that was given in any form that `task_of` takes."""
    return model if callable(model) else model_of(model).make


def wrapped(module: nn.Module) -> nn.Module:
    """The module as `task_of` wraps one that is called by name or gives several tensors."""
    from ._adapter import wrapped as around

    return around(module)


def unwrapped(module: nn.Module) -> nn.Module:
    """What `wrapped` has wrapped; any other module as it is."""
    from ._adapter import Adapter

    return module.model if isinstance(module, Adapter) else module


def _parts(data: Any) -> dict[str, Any]:
    """The data by the name of their split; "" if they are one set."""
    if isinstance(data, Splits):
        return {"train": data.train, "valid": data.valid, "test": data.test}
    names = [str(name).lower() for name in data] if isinstance(data, Mapping) else []
    if sum(n in PARTS for n in names) > 1 or names and set(names) <= set(PARTS):
        found: dict[str, Any] = {}
        for name, one in zip(names, data.values(), strict=True):
            if name not in PARTS:
                raise TaskError("this is no split", got=name, allowed='"train", "valid" and "test"')
            if PARTS[name] in found:
                raise TaskError(f"the {PARTS[name]} split is given twice", got=", ".join(names))
            found[PARTS[name]] = one
        if len(found) == 1:
            return {"": next(iter(found.values()))}
        if "train" not in found:
            raise TaskError(
                "the data have no train split", got=", ".join(map(str, data)), allowed='"train", "valid" and "test"'
            )
        return {part: found[part] for part in ("train", "valid", "test") if part in found}
    return {"": data}


def _read(data: Any, wanted: Wanted, label: str | None) -> Samples:
    found: Samples = Read(data) if isinstance(data, Split) else samples(data, wanted, label)
    if not len(found):
        raise TaskError("the data are empty", got=f"0 samples in a {type(data).__name__}")
    return found


def _seen(first: Samples, parts: Mapping[str, Samples]) -> np.ndarray | None:
    """Targets to judge by: all where they lie ready, else some. TaskError if some splits have them
    and others not."""
    have = {part: one.read(np.arange(1))[1] is not None for part, one in parts.items()}
    if len(set(have.values())) > 1:
        bare = [part for part, has in have.items() if not has]
        raise TaskError(f"the {' and '.join(bare)} split has no targets, and others have")
    if not have[next(iter(have))]:
        return None
    found = _some(first)
    if found is not None and found.dtype.kind in "OUS":  # names: all have to be known
        return first.targets()
    return found


def _values(
    known: np.ndarray | None, first: Samples, parts: Mapping[str, Samples], out: torch.Tensor | None
) -> np.ndarray | None:
    """The different targets over all splits, as far as they are looked at; only where there are
    several a sample."""
    if known is None or out is None or known.ndim < 2 or known.dtype.kind not in "biuf":
        return None
    others = (_some(part) for part in parts.values() if part is not first)
    return values_of([known, *(found for found in others if found is not None and found.dtype.kind in "biuf")])


def _some(part: Samples) -> np.ndarray | None:
    """The targets of all samples where they lie ready, else of some."""
    if isinstance(part, Arrays):
        return part.targets()
    return part.read(np.linspace(0, len(part) - 1, min(_SOME, len(part))).astype(np.int64))[1]


def _meant(
    targets: np.ndarray,
    out: torch.Tensor | None,
    classes: Sequence[str] | None,
    asked: tuple[Any, Any],
    around: Around,
    whole: bool,
) -> Meaning:
    """As the targets say; of a loss that was given, targets as they are where they say nothing.
    asked: the loss and the metric that were, or None; whole: are these all targets?"""
    loss, metric = asked
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise TaskError(
            "the targets hold NaN or infinite values",
            got=f"{int((~np.isfinite(targets)).sum())} of {targets.size}",
            fix="remove these samples, or fill them",
        )
    if loss == "contrastive" or loss is None and isinstance(metric, str) and metric.startswith("recall_at_"):
        return kinds(targets, classes, whole)
    if loss == "ctc" or loss is None and metric in ("cer", "wer"):
        if out is None:
            raise TaskError("the nets of a search read no labels from frames", got="no model", fix="give a model")
        return as_sequences(targets, out, classes, around)
    _check_counted(targets, around)
    try:
        if out is not None and out.ndim > 2:
            return at_places(targets, out, classes, around)
        if out is not None and out.ndim == 2 and targets.shape[1:] == out.shape[1:] != (1,):
            found = some_left_out(out, classes, around)
            if found is not None:
                return found
        return meaning(targets, out, classes)
    except TaskError:
        if loss is None or targets.dtype.kind in "OUS":
            raise
        return Meaning(loss, None, _as_they_are, tuple(classes) if classes is not None else None, axis=around.axis)


def _check_counted(targets: np.ndarray, around: Around) -> None:
    """TaskError if the loss leaves samples out that have one target each: the metric would count
    them."""
    if around.ignored is not None and targets.size == len(targets) and bool((targets == around.ignored).any()):
        raise TaskError(
            "the loss leaves samples out, which the metric would count",
            got=f"ignore_index={around.ignored}: {int((targets == around.ignored).sum())} of {len(targets)} samples",
            fix="leave these samples out of the data",
        )


def _as_they_are(targets: np.ndarray) -> np.ndarray:
    return targets.astype(np.float32) if targets.dtype.kind == "f" else targets


def _splits(parts: dict[str, Split], comes: bool, seed: int) -> Splits | Split:
    if "" in parts:
        return split(parts[""], seed=seed)
    train = parts["train"]
    if "valid" in parts and "test" in parts:
        return given(train, parts["valid"], parts["test"])
    held = parts.get("test") or parts["valid"]
    if comes:
        return presplit(train, held, 0.5, seed, valid_from="test")
    return presplit(train, held, 0.2, seed)


def _baseline(given: Any) -> Recipe | None:
    if given is None or isinstance(given, Recipe):
        return given
    if isinstance(given, Transform):
        return Recipe(given)
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return Recipe.from_json([{"train": {"epochs": given}}])
    if isinstance(given, (list, tuple)) and all(isinstance(s, Transform) for s in given):
        return Recipe(*given)
    raise TaskError(
        "baseline says how the model is trained",
        got=repr(given)[:200],
        allowed="fw.Train(epochs=10), a Recipe, or epochs",
    )


def _task_name(made: Model | None, data: Any) -> str:
    own = made.name if made is not None else type(data).__name__ if not isinstance(data, (tuple, dict)) else "data"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", own).lower()).strip("-") or "task"


def _identity(made: Model | None, loss: Any, metric: Any) -> tuple[str, ...]:
    given = [] if made is None else [made.own if made.comes else made.make]
    return tuple(identity(one) for one in (*given, *(v for v in (loss, metric) if not isinstance(v, str))))
