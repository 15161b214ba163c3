"""The certificate of a drop: a paired 95 % interval on test samples, and one of three words.

Notation: v [n] the baseline's value a sample, w [n] the candidate's, d the drop (positive:
the candidate is worse), b and c the samples that only the baseline and only the candidate got
right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ._student import Z95
from .accuracy import Metric, Score, bootstrap, metric, student

Interval = tuple[float, float]
_MOST = 10**9  # samples; beyond it the answer is "no number of samples"


def certify(
    what: str | Metric | Score,
    baseline_outputs: np.ndarray,
    outputs: np.ndarray,
    targets: np.ndarray,
    max_drop: float,
    seed: int,
) -> dict[str, Any]:
    """{"drop", "ci95", "n", "split": "test", "verdict", "needs"}.

    drop: the baseline's metric minus the candidate's (the other way round where lower is better),
    on the same samples. verdict: "certified" if the interval lies at or below `max_drop`, "refuted"
    if it lies above, else "not certifiable", and `needs` says how many more test samples would
    decide, going by the drop and the disagreement seen. Intervals: for right-or-wrong values
    Tango's score interval; Student's paired t for other per-sample values; paired percentile
    bootstrap for whole metrics.
    """
    if not 0 <= max_drop < math.inf:
        raise InputError(
            "max_drop is not a limit", got=max_drop, allowed="a number of at least 0, in the metric's unit"
        )
    m = metric(what)
    v, w = m.scores(baseline_outputs, targets), m.scores(outputs, targets)
    sign, n = m.sign, len(targets)
    if isinstance(v, float) or isinstance(w, float):
        both = bootstrap(m, [baseline_outputs, outputs], targets, seed)
        low, high = (float(q) for q in np.quantile(sign * (both[:, 0] - both[:, 1]), (0.025, 0.975)))
        drop = sign * (float(v) - float(w))
        grown = _shrinking(drop, (low, high), n)
    elif m.is_zero_one(v) and m.is_zero_one(w):
        b, c = (int(((v > w) if sign > 0 else (v < w)).sum()), int(((v < w) if sign > 0 else (v > w)).sum()))
        drop, (low, high) = (b - c) / n, tango(b, c, n)

        def grown(samples: float) -> Interval:
            return tango(b * samples / n, c * samples / n, samples)
    else:
        low, high = student(sign * (v - w), m.name)
        drop = float((sign * (v - w)).mean())
        grown = _shrinking(drop, (low, high), n)
    verdict = "certified" if high <= max_drop else "refuted" if low > max_drop else "not certifiable"
    needs = _needs(drop, max_drop, n, grown) if verdict == "not certifiable" else None
    return {"drop": drop, "ci95": [low, high], "n": n, "split": "test", "verdict": verdict, "needs": needs}


def tango(b: float, c: float, n: float) -> Interval:
    """95 % score interval of (b - c) / n for matched pairs:
    the d that a score test does not reject.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 1998, equations 24 to 26 (there with the
    opposite sign): |b - c - n d| <= z sqrt(n (2 q + d (1 - d))), with q, the likeliest share of
    samples that only the candidate gets right given d, the root of 2n q^2 + B q + C = 0,
    B = -b - c + (2n - b + c) d, C = -c d (1 - d). It covers where the two models hardly ever
    differ, which is the usual case here; Agresti & Min's simpler interval (2005) covered 90 % with
    b/n = 0.01, c = 0, n = 400, erring towards false certificates.
    """

    def score(d: float) -> float:
        middle = -b - c + (2 * n - b + c) * d
        q = max(0.0, (math.sqrt(max(0.0, middle**2 + 8 * n * c * d * (1 - d))) - middle) / (4 * n))
        variance = n * (2 * q + d * (1 - d))
        return (
            (b - c - n * d) / math.sqrt(variance)
            if variance > 0
            else math.copysign(math.inf, (b - c) / n - d)
            if b - c != n * d
            else 0.0
        )

    def edge(inside: float, outside: float) -> float:
        if abs(score(outside)) <= Z95:
            return outside
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(score(middle)) <= Z95 else (inside, middle)
        return inside

    drop = (b - c) / n
    return edge(drop, -1.0), edge(drop, 1.0)


def _shrinking(drop: float, interval: Interval, n: int) -> Callable[[float], Interval]:
    """The interval that more samples of the same kind would give:
    its arms shrink as 1 / sqrt(samples)."""

    def grown(samples: float) -> Interval:
        scale = math.sqrt(n / samples)
        return drop + (interval[0] - drop) * scale, drop + (interval[1] - drop) * scale

    return grown


def _needs(drop: float, max_drop: float, n: int, grown: Callable[[float], Interval]) -> str:
    """How many more samples would decide if they were like these, in words,
    rounded up to two digits."""
    refute = drop > max_drop

    def decided(samples: int) -> bool:
        low, high = grown(float(samples))
        return low > max_drop if refute else high <= max_drop

    if abs(drop - max_drop) < 1e-12 or not decided(_MOST):
        return "no number of test samples would decide: the observed drop is at the limit"
    low, high = n, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    more = high - n
    step = 10 ** max(0, len(str(more)) - 2)
    return (
        f"about {-(-more // step) * step:,} more test samples to {'refute' if refute else 'certify'} it, going by these"
    )
