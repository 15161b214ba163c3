"""A candidate against the baseline on the same samples: the drop, its interval, and the evidence
that it is below a limit.

Notation: v [n] the baseline's value a sample, w [n] the candidate's, b and c the samples that only
the baseline and only the candidate got right, d a drop (positive: the candidate is worse).
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import InputError
from ..proof.tango import bisect, normal, score, tango
from ..records import Paired
from ._student import t975
from .accuracy import Metric, bootstrap

Interval = tuple[float, float]
# up to so many samples on which the two differ, or would at the limit, probabilities are summed up
# and not taken from the normal distribution
_SUMMED = 400.0
# of the probability is given away, so that not every rate of differing has to be looked at (Berger
# & Boos)
_BEYOND = 5e-4
_RATES = 41  # of differing, that are looked at


def compare(
    m: Metric, baseline_outputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[Paired, np.ndarray | None]:
    """The candidate against the baseline, and, for a metric that is no mean over samples, the drops
    of 1,000 resamples drawn under `seed` (else None).

    InputError if the metric cannot be computed, or of a single sample that is not right or
    wrong."""
    v, w = m.scores(baseline_outputs, targets), m.scores(outputs, targets)
    n = len(targets)
    if isinstance(v, float) or isinstance(w, float):
        both = bootstrap(m, [baseline_outputs, outputs], targets, seed)
        drops = m.sign * (both[:, 0] - both[:, 1])
        return Paired(m.sign * (float(v) - float(w)), n, float(drops.std(ddof=1)) * math.sqrt(n)), drops
    d = m.sign * (v - w)
    if m.is_zero_one(v) and m.is_zero_one(w):
        lost, won = int((d > 0).sum()), int((d < 0).sum())
        drop = (lost - won) / n
        return Paired(drop, n, math.sqrt(max(0.0, (lost + won) / n - drop**2)), lost, won), None
    if n < 2:
        raise InputError(f"{m.name} of one sample has no interval", got="1 sample", allowed="at least 2")
    return Paired(float(d.mean()), n, float(d.std(ddof=1))), None


def interval(paired: Paired, drops: np.ndarray | None = None) -> Interval:
    """The 95 % interval of the drop: Tango's for right-or-wrong values, the resamples' quantiles
    where there are `drops`, Student's t else."""
    if drops is not None:
        low, high = np.quantile(drops, (0.025, 0.975))
        return float(low), float(high)
    if paired.lost is not None and paired.won is not None:
        return tango(paired.lost, paired.won, paired.n)
    half = t975(paired.n - 1) * paired.sd / math.sqrt(paired.n)
    return paired.drop - half, paired.drop + half


def p_value(paired: Paired, max_drop: float, drops: np.ndarray | None = None) -> float:
    """How probable so small a drop would be, at most, if the true one were `max_drop` or more.

    Right-or-wrong values: the probability of Tango's score being as low or lower, summed over all
    tables, at the rate of differing that makes it largest (Berger & Boos, "P values maximized over
    a confidence set for the nuisance parameter", JASA 89, 1994); with many differing samples, the
    normal distribution of the score. Others: the share of resamples, or Student's t."""
    if drops is not None:
        return (1 + int((drops >= max_drop).sum())) / (1 + len(drops))
    if paired.lost is not None and paired.won is not None:
        b, c, n = int(paired.lost), int(paired.won), paired.n
        if b + c + n * max_drop <= _SUMMED:
            return _summed(b, c, n, max_drop)
        return normal(score(b, c, n, max_drop))
    if paired.sd == 0.0:
        return 0.0 if paired.drop < max_drop else 1.0
    from scipy.stats import t

    return float(t.cdf((paired.drop - max_drop) / (paired.sd / math.sqrt(paired.n)), paired.n - 1))


def upper(paired: Paired, level: float, drops: np.ndarray | None = None) -> float:
    """The least limit that the evidence puts the drop below, at this level: `p_value` of it is at
    most `level`."""
    if drops is not None:
        return float(np.quantile(drops, 1 - level))
    far = 1.0 if paired.lost is not None else paired.drop + 20 * max(paired.sd, 1e-12)
    return bisect(lambda d: p_value(paired, d) > level, paired.drop, far)


def _summed(b: int, c: int, n: int, d: float) -> float:
    """The probability of a score as low as that of (b, c) or lower, at the rate of winning samples
    (only the candidate right) that makes it largest among the plausible ones."""
    from scipy.stats import beta, binom

    if d >= 1.0:  # every sample would be lost
        return 1.0 if b == n else 0.0
    most = float(beta.ppf(1 - _BEYOND, c + 1, n - c)) if c < n else 1.0  # Clopper & Pearson
    rates = np.linspace(0.0, min(most, (1 - d) / 2), _RATES)  # [R] winning; losing at rate + d
    seen = score(b, c, n, d) + 1e-9
    top = int(binom.ppf(1 - 1e-7, n, min(1.0, 2 * rates[-1] + d)))
    differing = np.arange(top + 1)  # [N]
    losing = np.array([_most_losing(k, n, d, seen) for k in range(top + 1)])  # [N]
    worst = 0.0
    for rate in rates:
        both = 2 * rate + d
        some = binom.pmf(differing, n, both)
        given = binom.cdf(losing, differing, (rate + d) / both) if both > 0 else (losing >= 0).astype(float)
        worst = max(worst, float((some * np.where(losing >= 0, given, 0.0)).sum()))
    return min(1.0, worst + _BEYOND)


def _most_losing(differing: int, n: int, d: float, seen: float) -> int:
    """Of so many differing samples, the most that the candidate may lose with a score of at
    most `seen`; -1 if none. The score rises with the samples lost."""
    low, high = -1, differing
    while low < high:
        middle = (low + high + 1) // 2
        fits = score(middle, differing - middle, n, d) <= seen
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
