"""Wilson's interval of a proportion."""

from __future__ import annotations

import math

from .student import Z95


def wilson(k: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion k/n (Wilson 1927;
    Brown, Cai & DasGupta 2001, equation 4)."""
    z2 = Z95 * Z95
    middle = (k + z2 / 2) / (n + z2)
    half = Z95 / (n + z2) * math.sqrt(k * (n - k) / n + z2 / 4)
    # At the ends the formula gives exactly 0 and 1; rounding must not put the value
    # outside its interval.
    return (0.0 if k == 0 else max(0.0, middle - half)), (1.0 if k == n else min(1.0, middle + half))
