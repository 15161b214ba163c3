"""What targets stand for that are labels read from frames, as speech and handwriting have them.

Notation: outputs [n, C, T] or [n, T, C]; C classes, of which 0 is the blank, T frames; targets [n,
most labels], 0 or less after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TaskError
from ._axes import Around, told_axis
from ._targets import Meaning

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sequences:
    """Converts labels of sequences: 0 where there is none. frames: that they are read from."""

    frames: int

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        if targets.dtype.kind == "f" and not np.array_equal(targets, np.rint(targets)):
            raise TaskError("labels of sequences are whole numbers", got=targets.ravel()[:3].tolist())
        found = targets.astype(np.int64).clip(0)
        need = needed(found)
        if need.size and int(need.max()) > self.frames:
            raise TaskError(
                "labels do not fit the frames that they are read from",
                got=f"{int((need > self.frames).sum())} of {len(need)} samples need up to {int(need.max())} frames ("
                f"one a label, and a blank between equal ones); the model gives {self.frames}",
                allowed=f"labels that need at most {self.frames} frames",
                fix="leave these samples out, or give a model (or longer inputs) with more frames",
            )
        return found


def needed(labels: np.ndarray) -> np.ndarray:
    """[n]: how many frames labels [n, most], 0 where there is none, need at least."""
    out = np.zeros(len(labels), dtype=np.int64)
    before = np.zeros(len(labels), dtype=np.int64)
    for now in labels.T:  # what stands between labels is left out
        there = now > 0
        out += there * 1 + (there & (now == before))
        before = np.where(there, now, before)
    return out


def as_sequences(targets: np.ndarray, out: torch.Tensor, classes: Sequence[str] | None, around: Around) -> Meaning:
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
    axis = around.axis or (fits[0] if fits else told_axis(around.inputs, tuple(out.shape[1:])) or -1)
    top, width = int(targets.max()), int(out.shape[axis])
    if names is not None and not fits or top >= width:
        raise TaskError(
            "the model has no output for every class",
            got=f"outputs {list(out.shape[1:])} a sample, labels up to {top}"
            + (f", {len(names)} names" if names is not None else ""),
            allowed="frames of as many classes, of which 0 is the blank",
            fix=f"class_axis={-axis}, if the classes are on the other axis",
        )
    frames = int(out.shape[1 if axis == -1 else 2])
    convert = Sequences(frames)
    convert(targets)  # before anything runs
    note = f"outputs {list(out.shape[1:])} a sample are taken for {frames} frames of {width} classes; 0 is the blank"
    return Meaning("ctc", "cer", convert, names, (note,), axis)
