"""How well a proxy ranks: rank correlation with what it stands for,
and the threshold of a first filter.

Notation: n nets, x [n] scores, y [n] what they should rank like (higher is better in both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError


def spearman(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Spearman's rho: the correlation of the ranks, equals sharing their mean rank. NaN if one side
    is constant. InputError below 3 nets."""
    x, y = _pair(scores, truth)
    return float(_rho(x[None], y[None])[0])


def kendall(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Kendall's tau-b (Kendall 1945). NaN if one side is constant. InputError below 3 nets."""
    from scipy.stats import kendalltau, rankdata

    x, y = _pair(scores, truth)
    # ranks: -inf is a score, and differences of infinities are none
    return float(kendalltau(rankdata(x), rankdata(y)).statistic)


def agreement(
    proxy: str, scores: Sequence[float], truth: Sequence[float], rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Any]:
    """{"proxy", "n", "spearman", "ci95": [low, high], "kendall"}: with the percentile bootstrap's
    interval of rho over nets (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    chapter 13). Where one side is constant, rho, tau and interval are None."""
    x, y = _pair(scores, truth)
    rho = float(_rho(x[None], y[None])[0])
    if math.isnan(rho):
        return {"proxy": proxy, "n": len(x), "spearman": None, "ci95": None, "kendall": None}
    drawn = rng.integers(len(x), size=(resamples, len(x)))
    again = _rho(x[drawn], y[drawn])
    low, high = np.quantile(again[~np.isnan(again)], [0.025, 0.975])
    return {
        "proxy": proxy,
        "n": len(x),
        "spearman": rho,
        "ci95": [float(low), float(high)],
        "kendall": kendall(scores, truth),
    }


def threshold(scores: Sequence[float], keep: float) -> float:
    """The score that the best share `keep` of a sample of fillings has: a first filter lets pass
    what scores at least this.

    At least one of the scores passes. InputError: no scores, a NaN, or a share outside (0, 1]."""
    if not scores or any(s != s for s in scores) or not 0 < keep <= 1:
        raise InputError(
            "a threshold needs scores and a share to keep",
            got=f"{len(scores)} scores, keep={keep}",
            allowed="scores that are numbers, 0 < keep <= 1",
        )
    return sorted(scores, reverse=True)[max(math.ceil(keep * len(scores) - 1e-9), 1) - 1]


def _pair(scores: Sequence[float], truth: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(scores, dtype=float), np.asarray(truth, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or np.isnan(x).any() or np.isnan(y).any():
        raise InputError(
            "a rank correlation needs two lists of equal length",
            got=f"shapes {x.shape} and {y.shape}",
            allowed="3 numbers or more, none of them NaN",
        )
    return x, y


def _rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row by row: [r, n], [r, n] -> [r]."""
    from scipy.stats import rankdata

    a, b = rankdata(x, axis=1), rankdata(y, axis=1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    rho: np.ndarray = np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)
    return rho
