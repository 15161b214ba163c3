"""What targets stand for where a model gives more than one row of numbers a sample: a class at each
pixel, token or frame, by number or by name.

Notation: outputs [n, C, ...] or [n, ..., C], targets [n, ...]; C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TaskError
from ..data import IGNORED
from ..tags import is_tags
from ._axes import VOID, Around, values_of, width, without
from ._masks import of_each, said_void
from ._targets import Meaning, checked, sums_to_one

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AtPlaces:
    """Converts class numbers at places: those below 0, and `void`, do not count. shape: of the
    places of a sample; one: the number that stands for class 1, or None."""

    shape: tuple[int, ...]
    classes: int
    void: tuple[int, ...] = ()
    one: int | None = None

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        if targets[:1].size != math.prod(self.shape) * len(targets[:1]):
            raise TaskError(
                "samples have targets at another number of places than the model's outputs",
                got=f"targets {list(targets.shape[1:])}, outputs at {list(self.shape)} places",
                allowed="samples of one size",
                fix="pad or cut all samples to one size (of targets with -100), not each batch to its longest",
            )
        found = targets.reshape(len(targets), *self.shape)
        if found.dtype.kind == "f" and not np.array_equal(found, np.rint(found)):
            raise TaskError("class numbers are whole", got=f"{found[found != np.rint(found)][:3].tolist()}")
        out = found.astype(np.int64)
        out = np.where((out < 0) | np.isin(out, self.void), IGNORED, out)
        if self.one is not None:
            if (out == 1).any():
                raise TaskError(
                    f"masks of 0 and {self.one} have a 1, too",
                    got=f"0, 1, {self.one}",
                    allowed=f"0, 1 or 0, {self.one}",
                )
            out = np.where(out == self.one, 1, out)
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


def at_places(targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, around: Around) -> Meaning:
    """What targets stand for beside outputs of three axes or more. TaskError if they do not fit."""
    shape = tuple(out.shape[1:])
    if targets.dtype.kind in "OUS":
        return _named(targets, out, classes, around)
    if targets.size == len(targets):
        raise TaskError(
            "the model gives an answer at each of several places, and there is one target a sample",
            got=f"outputs {list(out.shape)} for {len(out)} samples, targets {list(targets.shape[1:])} a sample",
            allowed="a target for each place, or outputs [batch, classes]",
            fix="pool the outputs to one row a sample; if each sample is a batch (as of list(loader)), give the "
            "loader itself",
        )
    if targets[0].size == out[0].numel():
        return of_each(targets, out, classes, around)
    whole = targets.dtype.kind in "iub" or bool((targets == np.rint(targets)).all())
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
    if around.axis is not None and around.axis not in axes:
        raise TaskError("the classes are not on this axis", got=f"class_axis={around.axis}", allowed=axes)
    axis = around.axis or axes[0]
    notes = []
    if len(axes) > 1 and around.axis is None:
        notes.append(
            f"outputs {list(shape)} a sample have as many places as classes: the second axis is taken for the "
            "classes, as torch has it; class_axis=-1 says that it is the last"
        )
    return _classes(out, axis, classes, around, notes)


def _axes(targets: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """On which axes of outputs, 1 or -1, the classes may be."""
    plain = tuple(s for s in targets if s != 1)

    def fits(places: tuple[int, ...]) -> bool:
        return places == targets or tuple(s for s in places if s != 1) == plain

    return [axis for axis, places in ((1, shape[1:]), (-1, shape[:-1])) if fits(places)]


def _classes(out: torch.Tensor, axis: int, classes: Sequence[str] | None, around: Around, notes: list[str]) -> Meaning:
    """A class number at each place."""
    shape = tuple(out.shape[1:])
    many, places = width(shape, axis), without(shape, axis)
    names = checked(classes, many)
    convert = AtPlaces(places, many, *_left_out(around, many, notes))
    loss = "log_loss" if sums_to_one(out, axis) else "cross_entropy"
    metric = "miou" if len(places) > 1 else "entity_f1" if is_tags(names) else "token_accuracy"
    return Meaning(loss, metric, convert, names, tuple(notes), axis)


def _left_out(around: Around, many: int, notes: list[str]) -> tuple[tuple[int, ...], int | None]:
    """(the targets that do not count, beside those below 0; the one that stands for class 1 of
    two). TaskError if none counts, or if it cannot be told what 255 is."""
    void = () if around.ignored is None or around.ignored < 0 else (around.ignored,)
    if void:
        notes.append(said_void(void[0], "as the loss says"))
    if any(v < 0 for v in around.known):
        notes.append("places whose target is below 0 do not count")
    counted = {v for v in around.known if v >= 0} - set(void)
    if around.known and not counted - ({VOID} if many <= VOID else set()):
        raise TaskError("no target counts", got=sorted(around.known)[:5], allowed=f"0 to {many - 1} at some places")
    if many > VOID or VOID in void:
        return void, None
    if counted == {0, VOID}:
        if many == 2:
            notes.append(f"masks of 0 and {VOID} have no 1: {VOID} is taken for class 1, not for what does not count")
            return void, VOID
        raise TaskError(
            f"masks of 0 and {VOID} alone show no class but the first",
            got=f"{many} classes; {VOID} is what does not count in masks of classes",
            allowed=f"0 to {many - 1}",
            fix=f"number the classes from 0 to {many - 1}",
        )
    if VOID in counted:
        notes.append(said_void(VOID, "as is usual of masks"))
    return (*void, VOID), None


def _named(targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, around: Around) -> Meaning:
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
    numbered = np.where(known, numbers(np.where(known, targets, names[0])), IGNORED)
    said = at_places(numbered, out, names, replace(around, values=values_of([numbered])))
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
