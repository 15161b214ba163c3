"""Fillings as points of a unit cube, for methods that only know [0, 1]^d.

Every hole of a space has coordinates of its own, also one that is alive only under some choices;
the coordinates of a dead hole are ignored. A number takes one coordinate (its quantile: equal bins
where its values can be counted, logarithmic where it is), so does a Choice or a Maybe (equal bins
in the order of its options). An Order takes one an item, and the ranking is the order (random keys;
Bean, "Genetic algorithms and random keys for sequencing and optimization", 1994). A hole with a
single value takes none.

    u      a point                             [d], in [0, 1]
    bins   values of a coordinate's hole       [d], 0 where it is continuous or has more
                                               than `FINE` values
"""

from __future__ import annotations

import bisect
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import Domain, Filling, Float, Int, Order, Space

FINE = 200  # a hole of more values counts as continuous


class Cube:
    """The cube of a space. `dims` is its dimension d, `bins` the number of values along
    each coordinate."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.start: dict[str, int] = {}  # path -> its first coordinate
        self.bins: list[int] = []
        for hole in space.holes:
            self.start[hole.path] = len(self.bins)
            self.bins += _bins(hole.domain)
        self.dims = len(self.bins)

    def filling(self, u: ArrayLike) -> Filling:
        """The filling at a point [d]; coordinates outside [0, 1] are clipped."""
        inside = np.clip(np.asarray(u, dtype=float), 0.0, 1.0).tolist()

        def choose(path: str, domain: Domain) -> Any:
            at = self.start[path]
            if isinstance(domain, Order):
                keys = inside[at : at + len(domain.names)]
                return ">".join(
                    name for _, name in sorted(zip(keys, domain.names, strict=True), key=lambda pair: pair[0])
                )
            return _value(domain, inside[at] if _bins(domain) else 0.0)

        return self.space.walk(choose)

    def point(self, filling: Filling) -> np.ndarray:
        """A point [d] whose filling is `filling`: the middle of its bin;
        0.5 in the coordinates of dead holes."""
        u = np.full(self.dims, 0.5)
        for path, value in filling.items():
            at, domain = self.start[path], self.space[path].domain
            if isinstance(domain, Order):
                order = value.split(">")
                u[at : at + len(order)] = [(order.index(name) + 0.5) / len(order) for name in domain.names]
            elif _bins(domain):
                u[at] = _quantile(domain, value)
        return u


def _bins(domain: Domain) -> list[int]:
    """One entry a coordinate of the hole."""
    if isinstance(domain, Order):
        return [0] * len(domain.names)
    n = domain.count(None) if isinstance(domain, (Float, Int)) else len(domain.options(None) or [])
    if n == 1:
        return []
    return [int(n) if n <= FINE and not _logarithmic(domain) else 0]


def _logarithmic(domain: Domain) -> bool:
    return isinstance(domain, (Float, Int)) and bool(domain.log)


def _value(domain: Domain, u: float) -> Any:
    """The value at quantile `u` of [0, 1]."""
    if isinstance(domain, (Float, Int)):
        n = domain.count(None)
        if _logarithmic(domain):
            low, high = math.log(domain.low), math.log(domain.high)
            return domain.check(min(max(math.exp(low + u * (high - low)), domain.low), domain.high), "", snap=True)
        if n < math.inf:
            return domain.nth(min(int(u * n), int(n) - 1), None)
        return min(max(domain.low + u * (domain.high - domain.low), domain.low), domain.high)
    options = domain.options(None) or []
    return options[min(int(u * len(options)), len(options) - 1)]


def _quantile(domain: Domain, value: Any) -> float:
    """The inverse of `_value`: the middle of the bin of `value`."""
    if isinstance(domain, (Float, Int)):
        n = domain.count(None)
        if n == math.inf or _logarithmic(domain):
            return float(domain.position(value))
        index = bisect.bisect_left(range(int(n)), value, key=lambda i: domain.nth(i, None))
        return float((index + 0.5) / n)
    options = domain.options(None) or []
    index = next(i for i, option in enumerate(options) if type(option) is type(value) and option == value)
    return (index + 0.5) / len(options)
