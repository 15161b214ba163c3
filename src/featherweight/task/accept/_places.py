"""What targets stand for where a model gives more than one row of numbers a sample: a class at each
pixel, token or frame, numbers of any shape, or labels that are read from frames.

Notation: outputs [n, C, ...] or [n, ..., C], targets [n, ...]; C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TaskError
from ..data import IGNORED
from ..tags import is_tags
from ._targets import Meaning, as_numbers, checked

if TYPE_CHECKING:
    import torch

_VOID = 255  # what masks of 8 bits have where nobody knows


@dataclass(frozen=True)
class AtPlaces:
    """Converts class numbers at places: those below 0, and `void`, do not count. shape: of the
    places of a sample."""

    shape: tuple[int, ...]
    classes: int
    void: int | None = None

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        found = targets.reshape(len(targets), *self.shape)
        if found.dtype.kind == "f" and not np.array_equal(found, np.rint(found)):
            raise TaskError("class numbers are whole", got=f"{found[found != np.rint(found)][:3].tolist()}")
        out = found.astype(np.int64)
        out = np.where((out < 0) | (out == self.void if self.void is not None else False), IGNORED, out)
        if out.size and int(out.max()) >= self.classes:
            raise TaskError(
                "the model has no output for every class",
                got=f"{self.classes} classes, a target of {int(out.max())}",
                allowed=f"0 to {self.classes - 1}; below 0 where it does not count",
            )
        return out


@dataclass(frozen=True)
class NamedAtPlaces:
    """Converts names at places to the numbers of their classes."""

    names: tuple[str, ...]
    then: Callable[[np.ndarray], np.ndarray]

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        number = {name: i for i, name in enumerate(self.names)}
        try:
            flat = [IGNORED if v is None or v == "" else number[str(v)] for v in targets.ravel().tolist()]
        except KeyError as e:
            raise TaskError("a label is of no known class", got=repr(e.args[0]), allowed=list(self.names)[:50]) from e
        return self.then(np.array(flat, dtype=np.int64).reshape(targets.shape))


@dataclass(frozen=True)
class OneHot:
    """Converts masks with a single 1 at each place to class numbers."""

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        if not (np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all()):
            raise TaskError("these targets have a single 1 at each place", got="places with none or several")
        numbers: np.ndarray = targets.argmax(1).astype(np.int64)
        return numbers


def at_places(targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, class_axis: int | None) -> Meaning:
    """What targets stand for beside outputs of three axes or more. TaskError if they do not fit."""
    shape = tuple(out.shape[1:])
    if targets.dtype.kind in "OUS":
        return _named(targets, out, classes, class_axis)
    if targets.size == len(targets):
        raise TaskError(
            "the model gives an answer at each of several places, and there is one target a sample",
            got=f"outputs {list(out.shape)} for {len(out)} samples, targets {list(targets.shape[1:])} a sample",
            allowed="a target for each place, or outputs [batch, classes]",
            fix="pool the outputs to one row a sample; if each sample is a batch (as of list(loader)), give the "
            "loader itself",
        )
    whole = targets.dtype.kind in "iub" or bool((targets == np.rint(targets)).all())
    if targets[0].size == out[0].numel() and class_axis is None:
        return _of_each(targets, shape, whole, classes)
    axes = _axes(targets.shape[1:], shape)
    if not axes or not whole:
        raise TaskError(
            "the model's outputs and the targets do not fit each other",
            got=f"outputs {list(shape)} a sample, targets {list(targets.shape[1:])}",
            allowed="outputs [classes, ...] or [..., classes] with class numbers [...], or as many numbers as outputs",
            fix="labels that are read from frames, without a place of their own, take loss='ctc'"
            if targets.ndim == 2 and out.ndim == 3 and whole
            else None,
        )
    if class_axis is not None and class_axis not in axes:
        raise TaskError("the classes are not on this axis", got=f"class_axis={class_axis}", allowed=axes)
    axis = class_axis or axes[0]
    notes = []
    if len(axes) > 1 and class_axis is None:
        notes.append(
            f"outputs {list(shape)} a sample have as many places as classes: the second axis is taken for the "
            "classes, as torch has it; class_axis=-1 says that it is the last"
        )
    return _classes(targets, shape, axis, classes, notes)


def _axes(targets: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """On which axes of outputs, 1 or -1, the classes may be."""
    plain = tuple(s for s in targets if s != 1)

    def fits(places: tuple[int, ...]) -> bool:
        return places == targets or tuple(s for s in places if s != 1) == plain

    return [axis for axis, places in ((1, shape[1:]), (-1, shape[:-1])) if fits(places)]


def _classes(
    targets: np.ndarray, shape: tuple[int, ...], axis: int, classes: Sequence[str] | None, notes: list[str]
) -> Meaning:
    """A class number at each place."""
    width, places = (shape[0], shape[1:]) if axis == 1 else (shape[-1], shape[:-1])
    void = _VOID if width <= _VOID and bool((targets == _VOID).any()) else None
    if void is not None:
        notes.append(f"places whose target is {_VOID} do not count, as is usual of masks")
    if (targets < 0).any():
        notes.append("places whose target is below 0 do not count")
    flat = len(places) > 1
    if width == 1:
        two = checked(classes, 1) or ("0", "1")
        convert = AtPlaces(places, 2, void)
        return Meaning("bce", "iou" if flat else "f1", _Float(convert), two, tuple(notes), axis)
    names = checked(classes, width)
    metric = "miou" if flat else "entity_f1" if is_tags(names) else "token_accuracy"
    return Meaning("cross_entropy", metric, AtPlaces(places, width, void), names, tuple(notes), axis)


@dataclass(frozen=True)
class _Float:
    """0 or 1 as float32, below 0 where it does not count."""

    convert: AtPlaces

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        return self.convert(targets).astype(np.float32)


def _of_each(targets: np.ndarray, shape: tuple[int, ...], whole: bool, classes: Sequence[str] | None) -> Meaning:
    """A number for each output."""
    ones = whole and bool(np.isin(targets, (0, 1)).all())
    several = len(shape) > 2 and shape[0] > 1
    if not ones:
        return Meaning("mse", "r2", as_numbers)
    if several and targets.shape[1:] == shape and bool((targets.sum(1) == 1).all()):
        note = "targets with a single 1 at each place are taken for classes"
        return Meaning("cross_entropy", "miou", OneHot(), checked(classes, shape[0]), (note,), 1)
    if several:
        note = "targets of 0 and 1 at each place are taken for labels that do not exclude each other"
        return Meaning("bce", "macro_f1", as_numbers, checked(classes, shape[0]), (note,), 1)
    note = "targets of 0 and 1 at each place are taken for yes or no, outputs for the logits of yes"
    return Meaning("bce", "iou", as_numbers, checked(classes, 1) or ("0", "1"), (note,), 1)


def _named(targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, class_axis: int | None) -> Meaning:
    """Names at places, as O, B-PER, I-PER."""
    found = sorted({str(v) for v in targets.ravel().tolist() if v is not None and v != ""})
    names = [str(c) for c in classes] if classes is not None else found
    missing = sorted(set(found) - set(names))
    if missing:
        raise TaskError("labels that are no classes", got=", ".join(missing[:10]), allowed=", ".join(names))
    if len(names) not in (out.shape[1], out.shape[-1]):
        raise TaskError(
            "the labels have another number of names than the model has outputs",
            got=f"{len(names)} names ({', '.join(names[:5])}{', ..' * (len(names) > 5)}), "
            f"outputs {list(out.shape[1:])}",
            fix="classes=[..], the names in the order of the model's outputs",
        )
    numbers = np.vectorize({n: i for i, n in enumerate(names)}.get, otypes=[np.int64])
    known = np.where(np.isin(targets.astype(str), names), 1, 0)
    said = at_places(np.where(known, numbers(np.where(known, targets, names[0])), IGNORED), out, names, class_axis)
    order = ", ".join(f"{n} {i}" for i, n in enumerate(names[:6])) + (", .." if len(names) > 6 else "")
    notes = () if classes is not None else (f"classes are numbered by name ({order}); classes=[..] says another order",)
    return Meaning(
        said.loss,
        said.metric,
        NamedAtPlaces(tuple(names), said.convert),
        said.classes,
        (*said.notes, *notes),
        said.axis,
    )


@dataclass(frozen=True)
class Sequences:
    """Converts labels of sequences: 0 where there is none."""

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        if targets.dtype.kind == "f" and not np.array_equal(targets, np.rint(targets)):
            raise TaskError("labels of sequences are whole numbers", got=targets.ravel()[:3].tolist())
        return targets.astype(np.int64).clip(0)


def as_sequences(
    targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, class_axis: int | None
) -> Meaning:
    """Labels that are read from frames (loss "ctc"): 0 is the blank."""
    if out.ndim != 3 or targets.ndim != 2 or targets.dtype.kind not in "iuf":
        raise TaskError(
            "ctc reads labels from frames",
            got=f"outputs {list(out.shape)}, targets {list(targets.shape)} of {targets.dtype}",
            allowed="outputs [batch, frames, classes] or [batch, classes, frames], targets [n, most labels] of whole "
            "numbers, 0 or less after the last",
        )
    names = None if classes is None else tuple(map(str, classes))
    fits = [a for a in (-1, 1) if names is not None and out.shape[a] == len(names)]
    axis = class_axis or (fits[0] if fits else -1)
    top, width = int(targets.max()), int(out.shape[axis])
    if names is not None and not fits or top >= width:
        raise TaskError(
            "the model has no output for every class",
            got=f"outputs {list(out.shape[1:])} a sample, labels up to {top}"
            + (f", {len(names)} names" if names is not None else ""),
            allowed="frames of as many classes, of which 0 is the blank",
            fix="class_axis=1 if the classes stand before the frames",
        )
    frames = int(out.shape[1 if axis == -1 else 2])
    note = f"outputs {list(out.shape[1:])} a sample are taken for {frames} frames of {width} classes; 0 is the blank"
    return Meaning("ctc", "cer", Sequences(), names, (note,), axis)
