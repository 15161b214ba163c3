"""A candidate against the baseline on the same samples: the drop, its interval, and the evidence
that it is below a limit.

Notation: v [n] the baseline's value a sample, w [n] the candidate's, b and c the samples that only
the baseline and only the candidate got right, d a drop (positive: the candidate is worse).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..records import Paired
from ._student import Z95, t975
from .accuracy import Metric, bootstrap

Interval = tuple[float, float]
# up to so many samples on which the two differ, or would at the limit, probabilities are summed up
# and not taken from the normal distribution
_SUMMED = 400.0
_BEYOND = 5e-4  # of the probability is given away, so that not every rate of differing has to be looked at (Berger & Boos)
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
        b, c, n = paired.lost, paired.won, paired.n
        if b + c + n * max_drop <= _SUMMED:
            return _summed(b, c, n, max_drop)
        return normal(float(score(b, c, n, max_drop)))
    if paired.sd == 0.0:
        return 0.0 if paired.drop < max_drop else 1.0
    from scipy.stats import t

    return float(t.cdf((paired.drop - max_drop) / (paired.sd / math.sqrt(paired.n)), paired.n - 1))


def score(b: float | np.ndarray, c: float | np.ndarray, n: float, d: float) -> np.ndarray:
    """Tango's score of a drop d, low if the observed one, (b - c) / n, is lower.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 1998, equations 24 to 26 (there with the
    opposite sign): (b - c - n d) / sqrt(n (2 q + d (1 - d))), with q, the likeliest share of
    samples that only the candidate gets right given d, the root of 2n q^2 + B q + C = 0,
    B = -b - c + (2n - b + c) d, C = -c d (1 - d)."""
    b, c = np.asarray(b, dtype=float), np.asarray(c, dtype=float)
    middle = -b - c + (2 * n - b + c) * d
    q = np.maximum(0.0, (np.sqrt(np.maximum(0.0, middle**2 + 8 * n * c * d * (1 - d))) - middle) / (4 * n))
    variance = n * (2 * q + d * (1 - d))
    over = b - c - n * d
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(variance > 0, over / np.sqrt(variance), np.where(over == 0, 0.0, np.copysign(np.inf, over)))
    return np.asarray(out)


def tango(b: float, c: float, n: float) -> Interval:
    """95 % score interval of (b - c) / n for matched pairs: the d that a score test does not
    reject.

    It covers where the two models hardly ever differ, which is the usual case here; Agresti & Min's
    simpler interval (2005) covered 90 % with b/n = 0.01, c = 0, n = 400, erring towards false
    certificates.
    """

    def edge(inside: float, outside: float) -> float:
        return _bisect(lambda d: abs(float(score(b, c, n, d))) <= Z95, inside, outside)

    drop = (b - c) / n
    return edge(drop, -1.0), edge(drop, 1.0)


def upper(paired: Paired, level: float, drops: np.ndarray | None = None) -> float:
    """The least limit that the evidence puts the drop below, at this level: `p_value` of it is at
    most `level`."""
    if drops is not None:
        return float(np.quantile(drops, 1 - level))
    far = 1.0 if paired.lost is not None else paired.drop + 20 * max(paired.sd, 1e-12)
    return _bisect(lambda d: p_value(paired, d) > level, paired.drop, far)


def normal(z: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _bisect(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last value from `inside`, where it holds, towards `outside`, where it still does."""
    if holds(outside):
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


def _summed(b: int, c: int, n: int, d: float) -> float:
    """The probability of a score as low as that of (b, c) or lower, at the rate of winning samples
    (only the candidate right) that makes it largest among the plausible ones."""
    from scipy.stats import beta, binom

    if d >= 1.0:
        return 1.0
    most = float(beta.ppf(1 - _BEYOND, c + 1, n - c)) if c < n else 1.0  # Clopper & Pearson
    rates = np.linspace(0.0, min(most, (1 - d) / 2), _RATES)  # [R] winning; losing at rate + d
    seen = float(score(b, c, n, d)) + 1e-9
    top = int(binom.ppf(1 - 1e-7, n, min(1.0, 2 * rates[-1] + d)))
    differing = np.arange(top + 1)  # [N]
    losing = _most_losing(differing, n, d, seen)  # [N]
    worst = 0.0
    for rate in rates:
        both = 2 * rate + d
        some = binom.pmf(differing, n, both)
        given = binom.cdf(losing, differing, (rate + d) / both) if both > 0 else (losing >= 0).astype(float)
        worst = max(worst, float((some * np.where(losing >= 0, given, 0.0)).sum()))
    return min(1.0, worst + _BEYOND)


def _most_losing(differing: np.ndarray, n: int, d: float, seen: float) -> np.ndarray:
    """Of so many differing samples [N], the most that the candidate may lose with a score of at
    most `seen`; -1 if none. The score rises with the samples lost."""
    low, high = np.full(len(differing), -1), differing.copy()
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = score(middle, differing - middle, n, d) <= seen
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low
