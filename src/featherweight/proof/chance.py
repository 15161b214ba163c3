"""What a validation split tells of a certificate to come, and what a test split can prove at all.

Notation: d the drop seen on n validation samples, s the standard deviation of one sample's drop,
m test samples, T the largest drop that m samples can certify of a candidate that differs so often.
The drop on test is about normal around d with variance s^2 (1/n + 1/m), so a certificate comes
with probability Phi((T - d) / (s sqrt(1/n + 1/m))).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from statistics import NormalDist
from typing import Any

from ..records import Paired
from . import unseen
from .levels import ALPHA, FIRST
from .tango import normal, score

_NORMAL = NormalDist()
LEVEL = ALPHA * FIRST  # of the first look
SUMMED = (
    400.0  # up to so many samples that differ or would at the limit, probabilities are summed up (Tango's score else)
)
GIVEN_AWAY = 5e-4  # of the probability, so that not every rate of differing has to be looked at (Berger & Boos)
ASSUMED = 0.01  # share of samples that a slimmed model decides otherwise than the original, before one was measured


def chance(paired: Paired, samples: int, max_drop: float, level: float = LEVEL) -> float:
    """The probability that a certificate of `max_drop` at this level comes out on so many test
    samples."""
    drop, spread, most = _predicted(paired, samples, max_drop, level)
    if spread == 0.0:
        return 1.0 if drop <= most else 0.0
    return normal((most - drop) / spread)


def allowance(paired: Paired, samples: int, max_drop: float, confidence: float, level: float = LEVEL) -> float:
    """The largest drop on validation with which the chance, were all else the same, would be
    `confidence`."""
    _, spread, most = _predicted(paired, samples, max_drop, level)
    return most - _NORMAL.inv_cdf(confidence) * spread


def recovered(paired: Paired, share: float, base: float = 0.0) -> Paired:
    """What would be seen if longer training left this share of the drop: the samples that are lost
    beyond those that are won again are fewer by the rest of it. One that is better than the
    baseline stays as it is. base: what the baseline lacks itself, where drops are from a best
    value."""
    if paired.drop <= base:
        return paired
    drop = base + share * (paired.drop - base)
    if paired.lost is None or paired.won is None:
        return replace(paired, drop=drop)
    lost = max(0.0, paired.won + drop * paired.n)  # in the mean: parts of a sample
    drop = (lost - paired.won) / paired.n
    return replace(paired, drop=drop, lost=lost, sd=math.sqrt(max(0.0, (lost + paired.won) / paired.n - drop**2)))


def needed(drop: float, differing: float, max_drop: float, level: float = LEVEL) -> int | None:
    """Test samples with which such a candidate is certified one time in two; None if no number
    is enough."""
    if drop >= max_drop:
        return None
    return _least(lambda n: provable(differing, n, max_drop, level) >= drop)


def _least(enough: Callable[[int], bool]) -> int | None:
    """The least number of samples that is enough, to a thousandth; None if 10^10 are not."""
    low, high = 1, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > 10**10:
            return None
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def outlook(samples: int, max_drop: float, seen: Sequence[Paired] = (), level: float = LEVEL) -> dict[str, Any]:
    """What so many test samples can prove, as data for a sentence: {"samples", "max_drop",
    "provable": the largest drop with which a candidate is certified one time in two (None: none
    is), "half": a half of max_drop, "needed": samples that would certify that (None: no number),
    "differing": the share of samples that are right for one of the two only, or None, "even": the
    largest such share with which one that is as good as the baseline is certified one time in two
    (None: none is), "suited": the least floor of which so many samples certify a half (None: the
    one asked for is, or none), "sd": of one sample's drop, "hidden": what failures that none of the
    samples shows may cost (of a metric that is right or wrong: None), "assumed": was it?}.

    seen: candidates measured so far, of which the middle one counts; none: `ASSUMED`, and a metric
    that is right or wrong.
    """
    counts = [(p.lost + p.won + 1) / (p.n + 1) for p in seen if p.lost is not None and p.won is not None]
    half, out = max_drop / 2, {"samples": samples, "max_drop": max_drop, "half": max_drop / 2, "assumed": not seen}
    if counts or not seen:
        differing = statistics.median(counts) if counts else ASSUMED
        most = provable(differing, samples, max_drop, level)
        enough = needed(half, max(differing, half), max_drop, level)
        even = _even(samples, max_drop, level)
        least = _suited(lambda floor: provable(differing, samples, floor, level), max_drop, 1.0)
        found = {"provable": _finite(most), "needed": enough, "suited": least, "hidden": None}
        return out | {"differing": differing, "even": even, "sd": None, **found}
    sd, cost = statistics.median(p.sd for p in seen), statistics.median(p.cost or 0.0 for p in seen)

    def certified(n: int) -> bool:
        return _provable_mean(sd, cost, n, max_drop, level) >= half

    most = _provable_mean(sd, cost, samples, max_drop, level)
    enough = _least(certified) if half > 0 else None
    least = _suited(lambda floor: _provable_mean(sd, cost, samples, floor, level), max_drop, 1000 * max_drop)
    hidden = unseen.hidden(samples, cost, level)
    found = {"provable": _finite(most), "needed": enough, "suited": least, "hidden": hidden}
    return out | {"differing": None, "even": None, "sd": sd, **found}


def _suited(provable: Callable[[float], float], asked: float, most: float) -> float | None:
    """The least floor over the one asked for, of which a half can be certified; None if that one
    is such, or none up to `most`."""
    if asked <= 0 or provable(asked) >= asked / 2 or provable(most) < most / 2:
        return None
    low, high = asked, most
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if provable(middle) >= middle / 2 else (middle, high)
    return high


def attainable(samples: int, floor: float, seen: Sequence[Paired] = (), level: float = LEVEL) -> dict[str, Any]:
    """What so many test samples can prove of a floor of the metric itself, as data for a sentence:
    {"samples", "min_metric", "provable": the least value with which a candidate is certified one
    time in two (None: none is), "needed": samples that would certify a candidate as good as the
    first one seen, the baseline (None: none was seen, or no number), "as_good": its value}.

    seen: compared with the best value (`Paired.best`); none: a metric that is right or wrong."""
    counted = not seen or seen[0].lost is not None
    best = (seen[0].best or 0.0) if seen else 1.0
    sd, cost = (statistics.median(x) for x in ([p.sd for p in seen] or [0.0], [p.cost or 0.0 for p in seen] or [0.0]))

    def least(n: int) -> float:
        return best - (fewest if counted else partial(_provable_mean, sd, cost))(n, best - floor, level)

    base = best - seen[0].drop if seen else None
    needed = _least(lambda n: least(n) <= base) if base is not None and base > floor else None
    found = least(samples)
    reached = _finite(found) if not counted or found <= 1 else None
    return {"samples": samples, "min_metric": floor, "provable": reached, "needed": needed, "as_good": base}


def _even(samples: int, max_drop: float, level: float) -> float | None:
    """See `outlook`: "even"."""
    low, high = 0.0, 1.0
    if provable(low, samples, max_drop, level) < 0:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if provable(middle, samples, max_drop, level) >= 0 else (low, middle)
    return low


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _predicted(paired: Paired, samples: int, max_drop: float, level: float) -> tuple[float, float, float]:
    """(d, the standard deviation of test's drop around it, T). A table of counts is taken with half
    a sample more on either side (Jeffreys), so that two models that never differed on few samples
    may still differ."""
    n, m = paired.n, max(samples, 1)
    if paired.lost is None or paired.won is None:
        both, cost = math.sqrt(1 / n + 1 / m), paired.cost or 0.0
        most = _provable_mean(paired.sd, cost, m, max_drop, level)
        # what a failure costs is known no better than by its mean over these samples
        doubt = most - _provable_mean(paired.sd, cost * (1 + both), m, max_drop, level)
        return paired.drop, math.hypot(paired.sd * both, doubt if math.isfinite(doubt) else 0.0), most
    if paired.best is not None:  # what it is held to is never wrong
        drop = (paired.lost + 0.5) / (n + 1)
        most = fewest(m, max_drop, level) + 0.5 / m  # half a sample: wrong ones are counted
        return drop, math.sqrt(drop * (1 - drop) * (1 / n + 1 / m)), most
    differing = (paired.lost + paired.won + 1) / (n + 1)
    drop = (paired.lost - paired.won) / (n + 1)
    return drop, math.sqrt((differing - drop**2) * (1 / n + 1 / m)), provable(differing, m, max_drop, level)


@lru_cache(maxsize=4096)
def _provable_mean(sd: float, cost: float, samples: int, max_drop: float, level: float) -> float:
    """T for other metrics, with failures that are not seen (`proof.unseen`)."""
    return unseen.provable(sd / math.sqrt(samples), samples, cost, max_drop, level)


@lru_cache(maxsize=4096)
def fewest(samples: int, limit: float, level: float = LEVEL) -> float:
    """The largest share of samples that may be wrong and a share below `limit` is certified: that
    so few or fewer would be wrong has at most the probability `level` if the limit were the truth.
    -inf: none may. With many, by the score, as certificates go."""
    if samples * limit > SUMMED:
        return provable(0.0, samples, limit, level)
    if not 0 < limit < 1:
        return -math.inf if limit <= 0 else 1.0
    below, wrong = GIVEN_AWAY, -1
    for k in range(samples + 1):
        log = math.lgamma(samples + 1) - math.lgamma(k + 1) - math.lgamma(samples - k + 1)
        below += math.exp(log + k * math.log(limit) + (samples - k) * math.log1p(-limit))
        if below > level:
            break
        wrong = k
    return wrong / samples if wrong >= 0 else -math.inf


@lru_cache(maxsize=4096)
def provable(differing: float, samples: int, max_drop: float, level: float = LEVEL) -> float:
    """T: the largest observed drop that certifies `max_drop` on so many samples, for a candidate
    that is right where the baseline is wrong, or the other way round, on this share of them.
    -inf: none does, the samples are too few. A metric that is right or wrong."""
    critical = _NORMAL.inv_cdf(level)

    def certifies(drop: float) -> bool:
        both = max(differing, abs(drop))
        return score(samples * (both + drop) / 2, samples * (both - drop) / 2, samples, max_drop) <= critical

    low, high = -differing, max_drop
    if not certifies(low):
        return -math.inf
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if certifies(middle) else (low, middle)
    return low
