"""Tango's score for matched pairs: what b samples that only the baseline, and c that only the
candidate got right, of n, say of a drop. No numpy: a study's log is read with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)


def score(b: float, c: float, n: float, d: float) -> float:
    """The score of a drop d: low if the observed one, (b - c) / n, is lower.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 1998, equations 24 to 26 (there with the
    opposite sign): (b - c - n d) / sqrt(n (2 q + d (1 - d))), with q, the likeliest share of
    samples that only the candidate gets right given d, the root of 2n q^2 + B q + C = 0,
    B = -b - c + (2n - b + c) d, C = -c d (1 - d)."""
    middle = -b - c + (2 * n - b + c) * d
    q = max(0.0, (math.sqrt(max(0.0, middle**2 + 8 * n * c * d * (1 - d))) - middle) / (4 * n))
    variance, over = n * (2 * q + d * (1 - d)), b - c - n * d
    if variance > 0:
        return over / math.sqrt(variance)
    return math.copysign(math.inf, over) if over else 0.0


def tango(b: float, c: float, n: float) -> tuple[float, float]:
    """95 % interval of (b - c) / n: the d that the score does not reject.

    It covers where the two models hardly ever differ, which is the usual case here; Agresti & Min's
    simpler interval (2005) covered 90 % with b/n = 0.01, c = 0, n = 400, erring towards false
    certificates.
    """

    def edge(outside: float) -> float:
        return bisect(lambda d: abs(score(b, c, n, d)) <= Z95, (b - c) / n, outside)

    return edge(-1.0), edge(1.0)


def normal(z: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def bisect(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last value from `inside`, where it holds, towards `outside`, where it still does."""
    if holds(outside):
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside
