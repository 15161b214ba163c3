"""What float32 makes of numbers that lie far from zero, near each other. No torch here."""

from __future__ import annotations

import numpy as np

_BLUR = 1e-4  # of a standard deviation, that rounding may move numbers
_NOISE = 1e-15  # of the largest number, below which differences are float64's own rounding
_LEAST = 1e-30  # standard deviation of which float32 holds the inverse


def blurred(numbers: np.ndarray) -> bool:
    """Does float32 round these numbers (float64, finite, at least one) by more than a ten
    thousandth of their standard deviation, as it does Unix times (to 128 s)?"""
    deviation, largest = float(numbers.std()), float(np.abs(numbers).max())
    if deviation <= _NOISE * largest:
        return False
    return deviation < _LEAST or float(np.spacing(np.float32(largest))) > _BLUR * deviation
