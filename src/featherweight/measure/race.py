"""The race: is a candidate's drop within the limit? A paired sequential test that may stop after
any batch. numpy only.

Source: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86,
2024 (arXiv:2010.09686): the hedged capital process (Theorem 3) in its version for sampling without
replacement from a finite population (the section "Betting while sampling without replacement").
The population is the split, in a random order; what is estimated is the drop on all of it.

Notation: N samples of the split, t those seen; d [t] the drop of each, baseline's score minus
candidate's, in [a, b]; X = (d - a) / (b - a) in [0, 1]; m a value that the mean of X over the split
might have; m_t the mean of the samples that are left before the t-th draw if m is right; lambda_t
the bet; K+ and K- the capital of who bets that the mean is above, below m.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

# c: a bet never risks more than this share of the capital; the paper suggests 1/2 or 3/4
TRUNCATION = 0.75
_HALVINGS = 60
_ROUNDING = 1e-9  # of a sum of N values in [0, 1]


@dataclass(frozen=True)
class Verdict:
    """held: the drop is within the limit; sure: the test decided before the split was used up
    (False: all samples were seen, and the drop on them decided); drop: mean over the n samples
    seen, in the metric's unit, positive: the candidate is worse; [low, high]: where the drop on the
    whole split lies, with probability 1 - alpha (all samples seen: it is `drop` itself)."""

    held: bool
    sure: bool
    drop: float
    low: float
    high: float
    n: int


def race(
    baseline_scores: np.ndarray,
    candidate_batches: Iterable[np.ndarray],
    max_drop: float,
    alpha: float = 0.05,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Verdict:
    """Compare candidate and baseline sample by sample until it is clear whether the mean drop
    exceeds `max_drop`.

    baseline_scores: [N], higher is better; candidate_batches: the candidate's scores [k] of the
    same samples in the same order, batch by batch; only as many are read as are needed. **The order
    must be random**, drawn without looking at the scores. alpha: chance that a sure verdict is
    wrong, or that [low, high] ever, after whichever batch, misses the drop on the whole split.
    bounds: what one sample's drop can be; None: unbounded scores (squared errors), all samples are
    seen and none of this applies.

    The verdict is about this split; what it says of data not seen is for `certify`. InputError if
    there are no samples, if there are fewer or more scores than the baseline has, if a drop is
    outside `bounds`, or if max_drop or alpha is no such number.
    """
    base = np.asarray(baseline_scores, dtype=np.float64)
    total = len(base)
    if base.ndim != 1 or total == 0:
        raise InputError(
            "a race needs the baseline's scores",
            got=f"shape {base.shape}",
            allowed="one value a sample, at least one sample",
        )
    if not math.isfinite(max_drop) or not 0 < alpha < 1:
        raise InputError(
            "a race cannot be run so",
            got=f"max_drop={max_drop}, alpha={alpha}",
            allowed="a finite max_drop, alpha between 0 and 1",
        )
    drops = np.empty(total)
    seen = 0
    for batch in candidate_batches:
        scores = np.asarray(batch, dtype=np.float64)
        if scores.ndim != 1 or seen + len(scores) > total:
            raise InputError(
                "the candidate's scores do not match the baseline's",
                got=f"shape {scores.shape} after {seen}",
                allowed=f"{total} in all",
            )
        drops[seen : seen + len(scores)] = base[seen : seen + len(scores)] - scores
        seen += len(scores)
        if bounds is None or seen == 0:
            continue
        x, limit = _unit(drops[:seen], bounds), (max_drop - bounds[0]) / (bounds[1] - bounds[0])
        if seen == total:
            continue
        broken = above(x, limit, total, alpha)
        if broken or below(x, limit, total, alpha):
            low, high = (bounds[0] + (bounds[1] - bounds[0]) * v for v in interval(x, total, alpha))
            return Verdict(not broken, True, float(drops[:seen].mean()), low, high, seen)
    if seen < total:
        raise InputError(
            "the candidate's scores do not match the baseline's", got=f"{seen} scores", allowed=f"{total}, one a sample"
        )
    drop = float(drops.mean())
    return Verdict(drop <= max_drop, False, drop, drop, drop, total)


def above(x: np.ndarray, m: float, total: int, alpha: float) -> bool:
    """Was it clear, at some moment, that the mean of the whole population is above m? x: [t] in
    [0, 1], the draws so far."""
    # Ville's inequality, half of alpha for each side
    return float(log_capital(x, m, total, alpha).max()) >= math.log(2 / alpha)


def below(x: np.ndarray, m: float, total: int, alpha: float) -> bool:
    """Was it clear, at some moment, that the mean of the whole population is below m?"""
    # the bet on "below" is the bet on "above" with heads and tails changed
    return above(1 - x, 1 - m, total, alpha)


def interval(x: np.ndarray, total: int, alpha: float) -> tuple[float, float]:
    """[low, high]: the means m that no bet has refuted so far;
    the running intersection of the confidence sequence.

    The capital K+ falls as m rises (with these bets; Theorem 3),
    so the refuted ones are an interval at each end.
    """

    def edge(values: np.ndarray) -> float:
        if not above(values, 0.0, total, alpha):
            return 0.0
        inside, outside = 1.0, 0.0  # m = 1 is never refuted by a bet on more
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if above(values, middle, total, alpha) else (middle, outside)
        return outside

    return edge(x), 1 - edge(1 - x)


def log_capital(x: np.ndarray, m: float, total: int, alpha: float) -> np.ndarray:
    """log K+ after 0, 1, .., t draws [t + 1]; infinite from where m has become impossible. x:
    [t] draws in [0, 1], t <= total.

    K+_t(m) = prod_i (1 + lambda_i (X_i - m_i)), m_i = (N m - sum_{j < i} X_j) / (N - i + 1):
    without replacement the mean of what is left, given what was drawn, is m_i, so the factors have
    mean 1 if m is right. Below 0, m_i says that m is too small for what was drawn.
    """
    t = len(x)
    drawn = np.concatenate([[0.0], np.cumsum(x)])  # [t + 1] sum of the draws before
    left = total * m - drawn  # [t + 1] what the other draws must add up to
    # [t] m_i; the clipping is for rounding and for what is infinite below
    mean = np.clip(left[:t] / (total - np.arange(t)), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        # truncated, so that it stays positive
        factor = 1 + np.minimum(bets(x, alpha), TRUNCATION / mean) * (x - mean)
    capital = np.concatenate([[0.0], np.cumsum(np.log(factor))])
    impossible = np.maximum.accumulate(left < -_ROUNDING * total)  # the draws are not negative
    return np.where(impossible, np.inf, capital)


def bets(x: np.ndarray, alpha: float) -> np.ndarray:
    """lambda_1 .. lambda_t [t], each from the draws before it: sqrt(2 log(2 / alpha) /
    (v_{t-1} t log(1 + t))), "predictable plug-in";

    v_t = (1/4 + sum_{i <= t} (X_i - u_i)^2) / (t + 1), u_t = (1/2 + sum_{i <= t} X_i) / (t + 1).
    """
    t = np.arange(1, len(x) + 1)
    u = (0.5 + np.cumsum(x)) / (t + 1)
    v = (0.25 + np.cumsum((x - u) ** 2)) / (t + 1)
    before = np.concatenate([[0.25], v[:-1]])
    bet: np.ndarray = np.sqrt(2 * math.log(2 / alpha) / (before * t * np.log1p(t)))
    return bet


def _unit(drops: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Drops moved from `bounds` to [0, 1]; InputError if one is outside."""
    low, high = bounds
    if not low < high or not (np.isfinite(drops).all() and (drops >= low).all() and (drops <= high).all()):
        raise InputError(
            "a drop is outside the bounds of the race",
            got=f"{drops.min()} to {drops.max()}",
            allowed=f"{low} to {high}",
            fix="give bounds=None",
        )
    x: np.ndarray = (drops - low) / (high - low)
    return x
