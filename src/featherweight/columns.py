"""How large the parts of an output are, each by itself: beside a price of 300,000 a rate of 1 is
nothing, unless each is held to its own measure. numpy only.

Notation: y [n, ...] outputs of n rows. A *column* is what has one place along one of the other
axes: one number of each row, or one channel of each image.
"""

from __future__ import annotations

import numpy as np


def spread(y: np.ndarray) -> np.ndarray:
    """How far the finite numbers of a column are from their mean at most: of the columns that each
    number is in, the least. [1, ...]: it is the same for all rows."""
    return _least(y, centred=True)


def magnitude(y: np.ndarray) -> np.ndarray:
    """As `spread`, but from zero."""
    return _least(y, centred=False)


def _least(y: np.ndarray, centred: bool) -> np.ndarray:
    finite = np.isfinite(y)
    z = np.where(finite, y, 0)
    least = np.full((1, *y.shape[1:]), np.inf)
    for axis in range(1, y.ndim) or (None,):
        others = tuple(d for d in range(y.ndim) if d != axis)
        mean = (
            z.sum(others, dtype=np.float64, keepdims=True) / np.maximum(finite.sum(others, keepdims=True), 1)
            if centred
            else 0.0
        )
        far = np.where(finite, np.abs(z - mean), 0).max(others, keepdims=True, initial=0.0)
        least = np.minimum(least, far)
    return least
