"""Where outputs with several places have their classes, and which values targets have: what is
asked before it is said what they stand for.

Notation: a sample's outputs have `shape`, [C, ...] with the classes first, [..., C] with them last,
or [...] with one number at each place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]
VOID = 255  # what masks of 8 bits have where nobody knows
_MOST = 2000  # different values, of more they are numbers
_REACH = 1000  # whole numbers up to it are counted, which is faster than sorting
_ROWS = 64


@dataclass(frozen=True)
class Around:
    """What is known beside targets. inputs: their shapes, of one sample; axis: that of classes as
    it was said (`Task.class_axis`), or None; ignored: the target that the loss leaves out, or None;
    values: the targets that there are, rising, over all splits (None: too many to be classes)."""

    inputs: tuple[Shape, ...] = ()
    axis: int | None = None
    ignored: int | None = None
    values: np.ndarray | None = None

    @property
    def known(self) -> frozenset[float]:
        """The values."""
        return frozenset() if self.values is None else frozenset(self.values.tolist())


def values_of(parts: Iterable[np.ndarray]) -> np.ndarray | None:
    """The different values of numbers, rising; None if they are many."""
    found: set[float] = set()
    for part in parts:
        for start in range(0, len(part), _ROWS):
            found.update(_values(np.asarray(part[start : start + _ROWS]).ravel()).tolist())
            if len(found) > _MOST:
                return None
    return np.array(sorted(found))


def _values(flat: np.ndarray) -> np.ndarray:
    if not flat.size:
        return flat
    if flat.dtype.kind == "b":
        flat = flat.astype(np.uint8)
    low, high = flat.min(), flat.max()
    whole = flat.dtype.kind in "iu" or np.array_equal(flat, np.rint(flat))
    if not whole or low < -_REACH or high > _REACH:
        return np.unique(flat)
    return np.flatnonzero(np.bincount(flat.astype(np.int64) - int(low))) + int(low)


def told_axis(inputs: Sequence[Shape], shape: Shape) -> int | None:
    """Which axis of outputs [n, *shape] has the classes, as the inputs' shapes show it: 1, -1, 0
    (none: there is one number at each place), or None if they do not show it."""
    if len(shape) < 2:
        return None
    for given in inputs:
        if len(given) == len(shape) + 1 and shape in (given[1:], given[:-1]):
            return 0
    if shape[0] == 1 and shape[-1] != 1:
        return 1
    if shape[-1] == 1 and shape[0] != 1:
        return -1
    for given in inputs:
        places = {given, given[1:], given[:-1]} - {()}
        fits = [axis for axis, at in ((1, shape[1:]), (-1, shape[:-1])) if at in places]
        if fits:
            return fits[0]
    return None


def width(shape: Shape, axis: int) -> int:
    """How many classes there are on an axis; 1 if there is none."""
    return 1 if axis == 0 else shape[0] if axis == 1 else shape[-1]


def without(shape: Shape, axis: int) -> Shape:
    """The places of a sample: its outputs' shape without the classes."""
    return shape if axis == 0 else shape[1:] if axis == 1 else shape[:-1]
