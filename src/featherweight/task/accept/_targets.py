"""What targets stand for, going by themselves and by what the model gives: the loss and the metric
that suit them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ..rounding import blurred

if TYPE_CHECKING:
    import torch

_MANY = 0.2  # class numbers that are more than this share of the samples are counts, or numbers

# metrics of answers: above what one output means yes
ANSWERS: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "precision",
    "recall",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
)
ANSWERS += ("mcc", "kappa", "exact_match", "label_accuracy", "agreement", "pixel_accuracy", "token_accuracy")
ANSWERS += ("iou", "miou", "dice", "mean_dice", "jaccard", "mean_iou", "f1_macro", "f1_micro", "f1_weighted")
ANSWERS += ("matthews_corrcoef", "cohen_kappa", "subset_accuracy")


@dataclass(frozen=True)
class Meaning:
    """loss, metric: by name, as `Task` takes them; convert: targets [n, ...] as given to those that
    the loss takes; classes: the names of 0, 1, ..; notes: what was decided, if it could be
    otherwise; axis: of outputs with several places, that of the classes (`Task.class_axis`)."""

    loss: Any
    metric: Any
    convert: Callable[[np.ndarray], np.ndarray]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    axis: int | None = None


@dataclass(frozen=True)
class Numbered:
    """Converts labels to the numbers of their classes."""

    names: tuple[Any, ...]

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        number = {name: i for i, name in enumerate(self.names)}
        try:
            return np.array([number[_plain(v)] for v in targets.tolist()], dtype=np.int64)
        except KeyError as e:
            raise TaskError("a label is of no known class", got=repr(e.args[0]), allowed=list(self.names)[:50]) from e


def _plain(value: Any) -> Any:
    return str(value) if not isinstance(value, (int, float, bool)) else value


def as_classes(targets: np.ndarray) -> np.ndarray:
    """Class numbers [n] of whole numbers [n] or [n, 1]. TaskError for other numbers."""
    flat = targets.reshape(len(targets), *(s for s in targets.shape[1:] if s != 1))
    if flat.dtype.kind == "f" and not np.array_equal(flat, np.rint(flat)):
        raise TaskError("class numbers are whole", got=f"{flat[flat != np.rint(flat)][:3].tolist()}")
    return flat.astype(np.int64)


@dataclass(frozen=True)
class Yes:
    """0 or 1 [n] of numbers that say yes or no."""

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        if not np.isin(targets, (0, 1)).all():
            raise TaskError("these targets are 0 or 1", got=np.unique(targets)[:10].tolist())
        return as_classes(targets)


def as_numbers(targets: np.ndarray) -> np.ndarray:
    """float32, in their shape."""
    return targets.astype(np.float32)


def _of_numbers(targets: np.ndarray) -> Meaning:
    """TaskError if float32, in which models compute, cannot tell the numbers apart."""
    exact = np.asarray(targets, dtype=np.float64)
    if exact.size and np.isfinite(exact).all() and blurred(exact.reshape(-1)):
        raise TaskError(
            "float32, in which models compute, cannot tell these targets apart",
            got=f"{exact.min():.15g} to {exact.max():.15g}",
            fix=f"predict the difference from a fixed number: y - {exact.mean():.15g}; or a smaller unit",
        )
    return Meaning("mse", "r2", as_numbers)


def from_one_hot(targets: np.ndarray) -> np.ndarray:
    """Class numbers [n] of rows with a single 1. TaskError for others."""
    if not (np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all()):
        raise TaskError(
            "these targets have a single 1 a row",
            got=f"row {int(np.flatnonzero(targets.sum(1) != 1)[:1].sum())} has not",
        )
    numbers: np.ndarray = targets.argmax(1).astype(np.int64)
    return numbers


def meaning(targets: np.ndarray, out: torch.Tensor | None, classes: Sequence[str] | None) -> Meaning:
    """What the targets of all samples (or of some) stand for. out: what the model gives for a few
    samples (None: there is no model). TaskError if they do not fit each other."""
    if targets.dtype.kind == "b" and targets.size == len(targets):
        return _of_names(Numbered((False, True)), ["False", "True"], targets.ravel(), out, classes)
    if targets.dtype.kind in "OUS":
        plain = _numbers(targets)
        if plain is not None:  # whole numbers, written as text or held as objects
            said = meaning(plain, out, classes)
            return replace(said, convert=_Then(_as_whole, said.convert))
        return _of_labels(targets, out, classes)
    whole = targets.dtype.kind in "iu" or bool((targets == np.rint(targets)).all())
    width = _width(out)
    labels = checked(classes, width)
    ones = whole and bool(np.isin(targets, (0, 1)).all())
    flat = targets.size == len(targets)
    if not flat:
        return _several(targets, out, ones, labels)
    if width is None:  # no model: whole numbers that repeat are classes
        if whole and (labels is not None or targets.dtype.kind in "iu" and _few(targets)):
            return Meaning("cross_entropy", "accuracy", as_classes, labels)
        return _of_numbers(targets)
    if width == 1:
        if ones:
            chance = probabilities(out)
            names = labels or ("0", "1")
            if chance:
                return Meaning("log_loss", "accuracy@0.5", Yes(), names, (_said("a probability", names),))
            return Meaning("bce", "accuracy", Yes(), names, (_said("the logit of one class", names),))
        if whole and len(two := np.unique(targets)) == 2 and targets.dtype.kind in "iu":
            known = Numbered(tuple(two.tolist()))
            return _of_names(known, list(map(str, two)), targets.ravel(), out, classes)
        return _of_numbers(targets)
    if whole and targets.min() >= 0 and targets.max() < width:
        loss = "log_loss" if _sums(out) else "cross_entropy"
        return Meaning(loss, "accuracy", as_classes, labels)
    if whole:
        raise TaskError(
            "the model has no output for every class",
            got=f"{width} outputs, labels {int(targets.min())} to {int(targets.max())}",
            allowed="labels from 0 to outputs - 1",
            fix="number the labels from 0, or give the model more outputs",
        )
    raise TaskError(
        "the model's outputs and the targets do not fit each other",
        got=f"{width} outputs a sample; targets that are no whole numbers, one a sample",
        allowed="class numbers, or as many numbers as outputs",
    )


def _of_names(
    known: Numbered, names: list[Any], targets: np.ndarray, out: torch.Tensor | None, classes: Sequence[str] | None
) -> Meaning:
    """Of names: what their numbers stand for."""
    said = meaning(known(targets), out, classes or [str(n) for n in names])
    return replace(said, convert=_Then(known, said.convert))


class _Then:
    def __init__(self, first: Callable[[np.ndarray], np.ndarray], second: Callable[[np.ndarray], np.ndarray]) -> None:
        self.first, self.second = first, second

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        return self.second(self.first(targets))


def kinds(targets: np.ndarray, classes: Sequence[str] | None, whole: bool) -> Meaning:
    """Of embeddings: samples of one kind are to be near each other. whole: are these all
    targets?"""
    if targets.size != len(targets):
        raise TaskError(
            "of embeddings each sample has one kind", got=f"targets {list(targets.shape[1:])} a sample", allowed="[n]"
        )
    flat = targets.ravel()
    if whole and len({*flat.tolist()}) == len(flat):
        raise TaskError(
            "no kind has a second sample, so none can be found by another of its own",
            got=f"{len(flat)} samples of {len(flat)} kinds",
            allowed="targets that say which samples belong together",
            fix="give the kinds (persons, products, topics) as targets, not the numbers of the samples",
        )
    if flat.dtype.kind in "OUSb":
        names = tuple(sorted({_plain(v) for v in flat.tolist()}, key=str))
        return Meaning("contrastive", "recall_at_1", Numbered(names), tuple(map(str, names)))
    return Meaning("contrastive", "recall_at_1", as_classes, tuple(map(str, classes)) if classes is not None else None)


def _several(targets: np.ndarray, out: torch.Tensor | None, ones: bool, labels: tuple[str, ...] | None) -> Meaning:
    """Of targets with several numbers a sample."""
    if out is None and targets.ndim > 2:
        raise TaskError(
            "the nets of a search give one row of answers a sample",
            got=f"targets {list(targets.shape[1:])} a sample",
            fix="give a model",
        )
    if out is not None and out.shape[1:].numel() != targets[0].size:
        raise TaskError(
            "the model's outputs and the targets do not fit each other",
            got=f"outputs {list(out.shape[1:])} a sample, targets {list(targets.shape[1:])}",
            allowed="one class number a sample, or as many numbers as outputs",
        )
    if ones and targets.ndim == 2 and bool((targets.sum(1) == 1).all()):
        loss = "log_loss" if out is not None and _sums(out) else "cross_entropy"
        return Meaning(loss, "accuracy", from_one_hot, labels, ("targets with a single 1 each are taken for classes",))
    if ones and targets.ndim == 2:
        probable = out is not None and probabilities(out)
        metric = "micro_f1@0.5" if probable else "micro_f1"
        note = "targets of 0 and 1 are taken for labels that do not exclude each other"
        return Meaning("log_loss" if probable else "bce", metric, as_numbers, labels, (note,))
    return _of_numbers(targets)


def _named(found: list[Any], classes: Sequence[str] | None) -> list[Any]:
    if classes is None:
        return found
    checked(classes, None)
    missing = sorted({str(v) for v in found} - set(map(str, classes)))
    if missing:
        raise TaskError("labels that are no classes", got=", ".join(missing[:10]), allowed=", ".join(map(str, classes)))
    return [str(c) for c in classes]


def _width(out: torch.Tensor | None) -> int | None:
    return None if out is None else int(out.shape[1:].numel())


def _few(targets: np.ndarray) -> bool:
    kinds = len(np.unique(targets))
    return targets.min() >= 0 and kinds <= max(20, _MANY * len(targets))


def probabilities(out: torch.Tensor | None) -> bool:
    """Are all outputs between 0 and 1, as a sigmoid gives them?"""
    return out is not None and bool(((out >= 0) & (out <= 1)).all())


def sums_to_one(out: torch.Tensor | None, axis: int) -> bool:
    """Are they distributions over an axis, as a softmax gives them?"""
    if out is None or out.ndim < 2 or out.shape[axis] < 2 or not probabilities(out):
        return False
    return bool(((out.sum(axis) - 1).abs() < 1e-3).all())


def _sums(out: torch.Tensor | None) -> bool:
    return out is not None and out.ndim == 2 and sums_to_one(out, 1)


def _said(what: str, names: Sequence[str]) -> str:
    return f"the model's only output is taken for {what}: that of {names[1]!r}, and not of {names[0]!r}"


def _numbers(targets: np.ndarray) -> np.ndarray | None:
    """int64, if all labels are whole numbers, as text or as objects; else None."""
    values = targets.ravel().tolist()
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return np.array(values, dtype=np.int64)
    if all(isinstance(v, str) and re.fullmatch(r"-?[0-9]{1,15}", v) for v in values):
        return np.array([int(v) for v in values], dtype=np.int64)
    return None


def _as_whole(targets: np.ndarray) -> np.ndarray:
    found = _numbers(targets)
    if found is None:
        raise TaskError("some labels are whole numbers, and others not", got=targets.ravel()[:3].tolist())
    return found


def _of_labels(targets: np.ndarray, out: torch.Tensor | None, classes: Sequence[str] | None) -> Meaning:
    """Of names of classes."""
    nothing = ("None", "nan", "<NA>", "NaT")
    bare = [v for v in targets.ravel().tolist() if not isinstance(v, str) and str(v) in nothing]
    if bare:
        raise TaskError("labels are missing", got=f"{len(bare)} of {len(targets)}", fix="remove these samples")
    found = sorted({_plain(v) for v in targets.ravel().tolist()}, key=str)
    if len(found) > max(100, _MANY * len(targets)):
        raise TaskError(
            "the labels are no classes",
            got=f"{len(found)} different ones among {len(targets)}: {found[:3]}, ..",
            allowed="names of classes, or numbers",
        )
    called, width = _named(found, classes), _width(out)
    if width is not None and len(called) != max(width, 2):
        raise TaskError(
            "the labels have another number of names than the model has outputs",
            got=f"{len(called)} names ({', '.join(map(str, called[:5]))}{', ..' * (len(called) > 5)}), {width} outputs",
            fix="classes=[..], the names in the order of the model's outputs",
        )
    said = _of_names(Numbered(tuple(called)), called, targets, out, None)
    if classes is not None or out is None or width == 1:
        return said
    order = ", ".join(f"{n} {i}" for i, n in enumerate(called[:6])) + (", .." if len(called) > 6 else "")
    return replace(
        said, notes=(*said.notes, f"classes are numbered by name ({order}); classes=[..] says another order")
    )


def checked(classes: Sequence[str] | None, width: int | None) -> tuple[str, ...] | None:
    """The names of the classes 0, 1, ... TaskError if they cannot be."""
    if classes is None:
        return None
    names = tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else ()
    fits = len(names) > 1 and len(set(names)) == len(names) and (width is None or len(names) == max(width, 2))
    if not fits:
        raise TaskError(
            "these are no names for the classes",
            got=classes,
            allowed="a list of different names" + (f", {max(width, 2)} of them" if width is not None else ""),
        )
    return names
