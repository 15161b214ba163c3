"""Failures that no sample has shown yet. No numpy: a study's log is read with it.

Where n samples are without a failure, a share r of all that there are may fail all the same: it is
below x with probability 1 - (1 - x)^n (the "rule of three": r is under 3/n with 95 %). A mean over
values that hardly vary on few samples knows nothing of it, so its variance is no measure of what a
drop may be. What is known of the true drop here is therefore the observed one, its standard error
(Student's t), and on top the share r of failures not seen, each at the cost of a wrong answer.

Notation: d the observed drop, e its standard error, n samples, C the drop that one failing sample
means, L the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .tango import bisect, normal

_FAR = 24.0  # of the exponential distribution, what is beyond is below 1e-10
_STEPS = 60  # of Simpson's rule in each of three parts, even
_WIDE = 8.0  # standard errors on either side of the place where the two meet


def p_value(d: float, e: float, n: int, cost: float, limit: float, cdf: Callable[[float], float] = normal) -> float:
    """The probability of a true drop of `limit` or more: of d + e T + r C, with T by `cdf` and
    P(r < x) = 1 - (1 - x)^n.

    With e = 0: (1 - (L - d) / C)^n, the probability of no failure among n where that share fails;
    for right-or-wrong values (C = 1) it is the exact one."""
    if e == 0.0:
        room = limit - d
        if room <= 0:
            return 1.0
        return (1 - room / cost) ** n if cost > room else 0.0

    def beyond(s: float) -> float:  # r = 1 - exp(-s / n), s exponential
        return math.exp(-s) * cdf((d - math.expm1(-s / n) * cost - limit) / e)

    room = limit - d
    turn = -n * math.log1p(-room / cost) if 0 < room < cost else _FAR  # where r C is what is left of the limit
    width = _WIDE * e * n / cost if cost > 0 else _FAR
    ends = [0.0, *(min(max(x, 0.0), _FAR) for x in (turn - width, turn + width)), _FAR]
    return min(1.0, sum(_simpson(beyond, a, b) for a, b in zip(ends, ends[1:], strict=False)))


def _simpson(f: Callable[[float], float], a: float, b: float) -> float:
    width = (b - a) / _STEPS
    inner = sum((4 if i % 2 else 2) * f(a + i * width) for i in range(1, _STEPS))
    return width / 3 * (f(a) + inner + f(b))


def hidden(n: int, cost: float, level: float) -> float:
    """What failures that n samples do not show may cost: the least limit that can be certified of
    what does not differ on any of them."""
    return cost * -math.expm1(math.log(level) / n)


def provable(e: float, n: int, cost: float, limit: float, level: float) -> float:
    """The largest observed drop that certifies `limit` at this level; -inf if none does, because
    the samples are too few."""
    low = limit - 40 * e - cost
    if p_value(low, e, n, cost, limit) > level:
        return -math.inf
    return bisect(lambda d: p_value(d, e, n, cost, limit) <= level, low, limit)
