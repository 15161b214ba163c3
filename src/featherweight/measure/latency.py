"""The statistics of an interleaved A/B timing. Pure functions of numbers;
the clocks are in `probe`.

Notation: a round times the reference and the candidate side by side;
r = reference time / candidate time of one round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

# fewer rounds have no distribution-free 95 % interval of the median: 2 * 0.5^5 = 6.25 %
MIN_ROUNDS = 6
DISTURBED = 1.15  # times the quick rounds, and a round was disturbed
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # of the times of single inferences that are kept
Verdict = Literal["faster", "slower", "no difference shown"]


def median_ranks(n: int) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that enclose the median with at least
    95 %; None for n < 6.

    Conover, "Practical Nonparametric Statistics", 3rd ed. 1999, section 3.2: the largest k with
    P(Bin(n, 1/2) <= k - 1) <= 0.025 gives [x_(k), x_(n+1-k)].
    """
    below, k = 0.0, 0
    for i in range(n // 2):
        # P(Bin = i) through logarithms: the binomial coefficient of large n does not fit a float
        below += math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2.0))
        if below > 0.025:
            break
        k = i + 1
    return None if k == 0 else (k, n + 1 - k)


def median_interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """(median, low, high): distribution-free, at least 95 % whatever the distribution;
    None for fewer than 6 values."""
    ranks = median_ranks(len(values))
    if ranks is None:
        return None
    x = np.sort(np.asarray(values, dtype=np.float64))
    return float(np.median(x)), float(x[ranks[0] - 1]), float(x[ranks[1] - 1])


def ratio(reference: Sequence[float], candidate: Sequence[float]) -> dict[str, Any]:
    """{"ratio", "ci95"} of reference / candidate from paired times of at least 6 rounds. Above 1:
    the candidate is faster."""
    rounds = [a / max(b, 1e-12) for a, b in zip(reference, candidate, strict=True)]
    found = median_interval(rounds)
    if found is None:
        raise ValueError(f"{len(rounds)} rounds have no 95 % interval; at least {MIN_ROUNDS} are needed")
    return {"ratio": found[0], "ci95": [found[1], found[2]]}


def tight(speedup: dict[str, Any], within: float = 0.02) -> bool:
    """Is every point of the interval within `within` (relative) of the ratio?"""
    middle, (low, high) = float(speedup["ratio"]), speedup["ci95"]
    return bool(max(high - middle, middle - low) <= within * middle)


def undisturbed(sides: Sequence[Sequence[float]], quick: float | None = None) -> list[int]:
    """The rounds in which nothing slowed the machine down: those in which no side took more than
    DISTURBED times what it does in quick ones, its quickest tenth. quick: what is known of the
    first side's time where nothing disturbs it; if the quickest tenth took longer, all rounds were
    disturbed. (Each side is held to its own: to what is known of one alone, that one would look
    faster than itself.) sides: of each model the time an inference in each round, by processor.

    Noise of a machine that is shared only adds (Chen & Revels, "Robust benchmarking in noisy
    environments", 2016), for seconds at a time, and not by the same factor to two models: a ratio
    over all rounds is that of whoever else computed meanwhile."""
    times = np.asarray(sides, dtype=np.float64)
    floors = np.quantile(times, 0.1, axis=1)
    if quick is not None and floors[0] > DISTURBED * quick:
        return []
    return [int(i) for i in np.flatnonzero((times <= DISTURBED * floors[:, None]).all(axis=0))]


def percentile90(values: Sequence[float]) -> float:
    """The smallest observed value that at least 90 % of the values do not exceed (the p90 of
    MLPerf's single stream)."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), 0.9, method="inverted_cdf"))


def summary(wall_ms: Sequence[float], cpu_ms: Sequence[float], load: float) -> dict[str, Any]:
    """latency_ms of an entry. wall_ms: of every inference; cpu_ms: processor time an inference, one
    value a block; load: what others used of the machine meanwhile, 0 to 1."""
    return {
        "median": float(np.median(wall_ms)),
        "p90": percentile90(wall_ms),
        "n": len(wall_ms),
        "cpu_median": float(np.median(cpu_ms)),
        "load": load,
        "quantiles": [float(q) for q in np.quantile(np.asarray(wall_ms, dtype=np.float64), QUANTILES)],
    }


def faster(speedup: dict[str, Any]) -> Verdict:
    """The word that the interval of the ratio allows: none of "faster" and
    "slower" if it holds 1."""
    low, high = speedup["ci95"]
    return "faster" if low > 1.0 else "slower" if high < 1.0 else "no difference shown"
