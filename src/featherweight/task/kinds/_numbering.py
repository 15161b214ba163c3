"""Does a trained net number its classes as the labels do? If it does not, all that is measured of
it is noise, and that is to be seen before anything is trained.

Notation: n answers, C outputs; said, true: class numbers [n].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...seeding import generator

CLASSES, EACH = 50, 6  # that are looked at, at most: classes, and samples of each
_FITS, _TWICE = 0.5, 2.0  # another numbering fits if it is right so often, and so many times as often


@dataclass(frozen=True)
class Numbering:
    """Shares of answers that are right, on average over classes: as the labels are numbered, and
    under the best other numbering (found on one half of the answers, judged on the other); n: of
    answers; places: {label: output} of that numbering."""

    right: float
    other: float
    n: int
    places: dict[int, int]

    @property
    def misfits(self) -> bool:
        """Is it plainly another numbering that the net has?"""
        return self.other >= _FITS and self.other > _TWICE * self.right


def numbering(said: np.ndarray, true: np.ndarray, outputs: int) -> Numbering:
    """How the answers fit the labels, and any other one-to-one numbering (assignment by the
    Hungarian method). outputs: C; answers of each class go to both halves in turns."""
    kinds, codes = np.unique(true, return_inverse=True)
    turn = np.zeros(len(true), dtype=np.int64)
    for k in range(len(kinds)):
        rows = np.flatnonzero(codes == k)
        turn[rows] = np.arange(len(rows)) % 2
    found = []
    for half in (0, 1):
        places = _assigned(said[turn == half], codes[turn == half], len(kinds), outputs)
        there = codes[turn != half]
        if len(there):
            found.append(_balanced(places[there] == said[turn != half], there))
    best = _assigned(said, codes, len(kinds), outputs)
    return Numbering(
        _balanced(said == true, codes),
        float(np.mean(found)) if len(found) == 2 else 0.0,
        len(true),
        {int(k): int(v) for k, v in zip(kinds, best, strict=True) if v >= 0},
    )


def _assigned(said: np.ndarray, codes: np.ndarray, kinds: int, outputs: int) -> np.ndarray:
    """The output of each kind that fits best, [kinds]; -1 where there is none."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((kinds, outputs))
    np.add.at(counts, (codes, said), 1)
    rows, columns = linear_sum_assignment(-counts)
    out = np.full(kinds, -1)
    out[rows] = np.where(counts[rows, columns] > 0, columns, -1)
    return out


def _balanced(right: np.ndarray, codes: np.ndarray) -> float:
    """The mean over kinds of the share that is right."""
    n = np.bincount(codes)
    return float((np.bincount(codes, right.astype(np.float64))[n > 0] / n[n > 0]).mean())


def some_of_each(targets: np.ndarray, seed: int) -> np.ndarray:
    """Rows, in order, of up to `EACH` samples of up to `CLASSES` classes."""
    rng = generator(seed, "numbering")
    kinds = rng.permutation(np.unique(targets))[:CLASSES]
    rows = [rng.permutation(np.flatnonzero(targets == k))[:EACH] for k in kinds.tolist()]
    return np.sort(np.concatenate(rows))
