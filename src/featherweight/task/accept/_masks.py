"""What targets stand for that are as many as the outputs: yes or no at each place, labels that do
not exclude each other, a single 1 for the class, or numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TaskError
from ..data import IGNORED
from ._axes import VOID, Around, told_axis, width
from ._targets import Meaning, as_numbers, checked, probabilities, sums_to_one

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class YesOrNo:
    """Converts targets to 1 where they are `yes`, 0 where they are 0, and `IGNORED` where they are
    below 0 or one of `void`; float32, in their shape."""

    yes: int
    void: tuple[int, ...] = ()

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        left_out = (targets < 0) | np.isin(targets, self.void)
        yes, no = targets == self.yes, targets == 0
        if not (left_out | yes | no).all():
            odd = np.unique(targets[~(left_out | yes | no)])
            raise TaskError(
                "a target is neither yes nor no",
                got=odd[:5].tolist(),
                allowed=f"0 and {self.yes}; {', '.join(['below 0', *map(str, self.void)])} where it does not count",
            )
        return np.where(left_out, IGNORED, np.where(yes, 1, 0)).astype(np.float32)


@dataclass(frozen=True)
class OneHot:
    """Converts masks with a single 1 at each place to class numbers. axis: where the classes are,
    1 or -1."""

    axis: int = 1

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        if not single_ones(targets, self.axis):
            raise TaskError("these targets have a single 1 at each place", got="places with none or several")
        numbers: np.ndarray = targets.argmax(self.axis).astype(np.int64)
        return numbers


def single_ones(targets: np.ndarray, axis: int) -> bool:
    """Is there a single 1 at each place, and else 0?"""
    return bool(np.isin(targets, (0, 1)).all() and (targets.sum(axis) == 1).all())


def of_each(targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, around: Around) -> Meaning:
    """Of a target for each output."""
    shape = tuple(out.shape[1:])
    told = around.axis if around.axis is not None else told_axis(around.inputs, shape)
    if told is None and len(shape) == 2:
        told = 0  # rows and columns of one mask
    axis = 1 if told is None else told
    marks = _marks(around)
    alone = width(shape, axis) == 1
    if marks is not None and around.known <= {0, 1}:
        fits = (told,) if told is not None else (1, -1)
        for a in fits:
            if width(shape, a) > 1 and targets.shape[1:] == shape and single_ones(targets, a):
                loss = "log_loss" if sums_to_one(out, a) else "cross_entropy"
                note = "targets with a single 1 at each place are taken for classes"
                return Meaning(loss, "miou", OneHot(a), checked(classes, width(shape, a)), (note,), a)
    if marks is None or marks.yes == VOID and not alone:
        return _numbers(around, alone, marks is not None)
    notes = _said_of(marks, around)
    probable = probabilities(out)
    loss, at = ("log_loss", "@0.5") if probable else ("bce", "")
    if alone:
        what = "probabilities" if probable else "logits"
        note = f"targets of 0 and {marks.yes} at each place are taken for no and yes, outputs for the {what} of yes"
        notes.insert(0, note)
        return Meaning(loss, f"iou{at}", marks, checked(classes, 1) or ("0", "1"), tuple(notes), axis)
    note = "targets of 0 and 1 at each place are taken for labels that do not exclude each other"
    if told is None:
        note += f", and the second axis of outputs {list(shape)} a sample for the labels (class_axis=-1: the last; 0: "
        note += "there are none, but one answer of yes or no at each place)"
    notes.insert(0, note)
    metric = "macro_f1" if len(shape) > 2 else "f1"
    return Meaning(loss, f"{metric}{at}", marks, checked(classes, width(shape, axis)), tuple(notes), axis)


def some_left_out(out: torch.Tensor, classes: Sequence[str] | None, around: Around) -> Meaning | None:
    """Of labels [n, K] that do not exclude each other and of which some do not count (below 0, or
    255); None if targets say anything else."""
    known = around.known
    if not known >= {0, 1} or not (min(known) < 0 or VOID in known):
        return None
    marks = _marks(around)
    if marks is None:
        return None
    loss, at = ("log_loss", "@0.5") if probabilities(out) else ("bce", "")
    notes = ["targets of 0 and 1 are taken for labels that do not exclude each other"]
    notes += (n.replace("places", "labels").replace(", as is usual of masks", "") for n in _said_of(marks, around))
    return Meaning(loss, f"f1{at}", marks, checked(classes, out.shape[1]), tuple(notes), 0)


def _marks(around: Around) -> YesOrNo | None:
    """How yes and no are written, if that is what targets say: 0 and 1, also with places that do
    not count (below 0, 255), or 0 and 255. None if they say anything else."""
    known = around.known
    below, counted = {v for v in known if v < 0}, {v for v in known if v >= 0} - {VOID}
    if any(v != int(v) for v in known) or not counted <= {0, 1} or not counted | (known & {VOID}):
        return None
    if below - {IGNORED} and not known >= {0, 1} and around.axis is None:  # as of -1 and 1, which are numbers
        return None
    if 1 in known:
        return YesOrNo(1, (VOID,))
    return YesOrNo(VOID) if VOID in known else YesOrNo(1)


def _said_of(marks: YesOrNo, around: Around) -> list[str]:
    """What was decided of targets that are neither 0 nor 1."""
    notes = []
    if marks.yes == VOID:
        notes.append(f"masks of 0 and {VOID} have no 1: {VOID} is taken for yes, and not for what does not count")
    elif VOID in around.known:
        notes.append(said_void(VOID, "as is usual of masks"))
    if any(v < 0 for v in around.known):
        notes.append("places whose target is below 0 do not count")
    return notes


def said_void(target: int, why: str) -> str:
    """That a target does not count, and what losses and metrics get for it."""
    return f"places whose target is {target} do not count, {why}; losses and metrics are given {IGNORED} for them"


def _numbers(around: Around, alone: bool, bits: bool) -> Meaning:
    """Numbers, of which there is one for each output. TaskError if classes were asked for."""
    if around.axis is not None:
        shown = "many values" if around.values is None else str(around.values[:8].tolist())
        raise TaskError(
            "with class_axis targets that are as many as outputs say yes or no",
            got=shown,
            allowed="0 and 1" + (" (or 0 and 255)" if alone else "") + "; below 0 where it does not count",
            fix="leave class_axis out if they are numbers",
        )
    note = f"targets of 0 and {VOID} in several channels are taken for numbers (labels: divide them by {VOID})"
    return Meaning("mse", "r2", as_numbers, None, (note,) if bits else ())
