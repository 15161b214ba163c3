"""Fillings made from others: the middle of a space, mutation, crossover."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import Domain, Filling, Space
from .domains import Choice, Float, Int, Maybe, Order

FINEST = 8  # a step of a continuous hole is at least 2^-FINEST of half its range


def centre(space: Space) -> Filling:
    """The filling in the middle: numbers at half their range, also among three options or more;
    else the first option; every Maybe there, orders as written."""
    return space.walk(lambda path, domain: middle(domain))


def mutated(space: Space, filling: Filling, rng: np.random.Generator, rate: float = 1.5, local: float = 0.5) -> Filling:
    """`filling` with `rate` holes changed in the mean, at least one: each by a step (`stepped`)
    with probability `local`, else drawn anew."""
    # not in the filling's own order, which a store may change
    alive = [h for h in space.holes if h.path in filling]
    paths = [h.path for h in alive if not _single(h.domain)]
    if not paths:
        return space.complete(filling, rng)
    again = rng.random(len(paths)) < rate / len(paths)
    again[int(rng.integers(len(paths)))] = True
    drawn = {p for p, a in zip(paths, again, strict=True) if a}
    kept = {h.path: filling[h.path] for h in alive if h.path not in drawn}
    for path in paths:
        if path in drawn and rng.random() < local:
            kept[path] = stepped(space[path].domain, filling[path], rng)
    return space.complete(kept, rng)


def between(space: Space, a: Filling, b: Filling, nearer: Filling) -> Iterator[Filling]:
    """Fillings halfway from a to b: numbers, and options that are numbers, in the middle of both,
    where there are two (and of neighbours) the one on the side of `nearer`, which is a or b; all
    else as in b. Then those with the numbers of a but one, for each in turn; none with all of
    them."""

    def filled(numbers: Callable[[str, Domain], Any]) -> Filling:
        def choose(path: str, domain: Domain) -> Any:
            if path not in a or path not in b or not _numbers(domain):
                return b.get(path, a.get(path, middle(domain)))
            return numbers(path, domain)

        return space.walk(choose)

    differ = [h.path for h in space.holes if _numbers(h.domain) and a.get(h.path) != b.get(h.path)]
    half = filled(lambda path, domain: _halfway(domain, nearer[path], (b if nearer is a else a)[path]))
    if any(half.get(path) != a.get(path) for path in differ):
        yield half
    for kept in differ:
        yield filled(lambda path, domain: (b if path == kept else a)[path])  # noqa: B023 (used at once)


def _numbers(domain: Domain) -> bool:
    """Is it a range of numbers, or a choice among some?"""
    if isinstance(domain, (Float, Int)):
        return True
    values = domain.options(None) or []
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def _halfway(domain: Domain, a: Any, b: Any) -> Any:
    """Of a domain of numbers, on the side of a where two are in the middle."""
    if isinstance(domain, (Float, Int)) and (domain.log or domain.step is None):
        half = math.sqrt(a * b) if domain.log else (a + b) / 2
        return domain.check(min(max(half, domain.low), domain.high), "", snap=True)
    if isinstance(domain, (Float, Int)):
        first, last = (round((v - domain.low) / domain.step) for v in (a, b))
        return domain.nth(first + int((last - first) / 2), None)
    ranked = sorted(domain.options(None) or [])
    first, last = ranked.index(a), ranked.index(b)
    return ranked[first + int((last - first) / 2)]


def _single(domain: Domain) -> bool:
    if isinstance(domain, (Float, Int)):
        return domain.count(None) == 1
    return isinstance(domain, Choice) and len(domain.items) == 1


def stepped(domain: Domain, value: Any, rng: np.random.Generator) -> Any:
    """Another value of a hole: the same if it has only one.

    Numbers, and options that are numbers, move up or down by 2^(-k u) of half their range, u
    uniform in [0, 1]: mostly a little, now and then far (Muehlenbein and Schlierkamp-Voosen,
    "Predictive models for the breeder genetic algorithm", 1993, section 2); what has steps moves by
    one at least. Names change to any other; an Order swaps two items.
    """
    if isinstance(domain, Order):
        items = value.split(">")
        i, j = (int(x) for x in rng.permutation(len(items))[:2])
        items[i], items[j] = items[j], items[i]
        return ">".join(items)
    far = 0.5 * 2.0 ** (-FINEST * float(rng.random())) * (1.0 if rng.random() < 0.5 else -1.0)
    if isinstance(domain, (Float, Int)):
        return _number_moved(domain, value, far)
    options = domain.options(None) or []
    if len(options) < 2:
        return value
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options):
        ranked = sorted(options)
        at = next(i for i, v in enumerate(ranked) if (type(v), v) == (type(value), value))  # 1 and 1.0 are two options
        return ranked[_index_moved(at, len(ranked), far)]
    others = [v for v in options if (type(v), v) != (type(value), value)]
    return others[int(rng.integers(len(others)))]


def _number_moved(domain: Float | Int, value: Any, far: float) -> Any:
    """A number moved by `far` of its range (in the logarithm if `log`),
    reflected where there is no room."""
    n = domain.count(None)
    if n == 1:
        return value
    if not domain.log and n < math.inf:
        i = round((value - domain.low) / domain.step)
        return domain.nth(_index_moved(i, int(n), far), None)
    low, high, at = (
        (math.log(domain.low), math.log(domain.high), math.log(value))
        if domain.log
        else (domain.low, domain.high, value)
    )
    moved = at + far * (high - low)
    moved = moved if low <= moved <= high else at - far * (high - low)
    raw = math.exp(moved) if domain.log else moved
    out = domain.check(min(max(raw, domain.low), domain.high), "", snap=True)
    if isinstance(domain, Int) and out == value:  # rounded back: to the next one
        return domain.nth(
            _index_moved(round((value - domain.low) / domain.step), int(n), math.copysign(1e-12, far)), None
        )
    return out


def _index_moved(i: int, n: int, far: float) -> int:
    """Index `i` of `n` > 1 moved by `far` (at most a half) of the range, by one at least; the other
    way where there is no room."""
    by = max(1, round(abs(far) * (n - 1))) * (1 if far > 0 else -1)
    return next(j for j in (i + by, i - by, i + 1, i - 1) if 0 <= j < n)


def crossover(space: Space, a: Filling, b: Filling, rng: np.random.Generator) -> Filling:
    """A child of two fillings: a part of its holes from `a`, the others from `b`, at least one that
    differs from each if there are two.

    Holes travel in groups with a common beginning of their paths, cut at a random depth: at the
    least depth whole steps or branches are swapped (`prune.*`, all that is alive under a Choice),
    at the greatest each hole is on its own (uniform crossover; Syswerda 1989). A hole that only one
    parent has is taken from it, if the child has it; one that none has is drawn.
    """
    paths = [h.path for h in space.holes if h.path in a or h.path in b]
    differing = [p for p in paths if p not in a or p not in b or (type(a[p]), a[p]) != (type(b[p]), b[p])]
    cuts = [re.split(r"[.\[]", p) for p in differing]
    levels = [d for d in range(1, max(map(len, cuts), default=0) + 1) if len({tuple(c[:d]) for c in cuts}) > 1]
    if not levels:
        return space.complete(a, rng)
    depth = levels[int(rng.integers(len(levels)))]
    groups = list(dict.fromkeys(tuple(c[:depth]) for c in cuts))
    coins = rng.random(len(groups)) < 0.5
    if coins.all() or not coins.any():
        one = int(rng.integers(len(groups)))
        coins[one] = not coins[one]
    from_a = dict(zip(groups, coins.tolist(), strict=True))
    child = {**b, **a}  # a hole that both have alike, or that only one has
    for path, cut in zip(differing, cuts, strict=True):
        if path in a and path in b and not from_a[tuple(cut[:depth])]:
            child[path] = b[path]
    return space.complete(child, rng)


def middle(domain: Domain) -> Any:
    """The value that `centre` gives a hole."""
    if isinstance(domain, (Float, Int)):
        values = domain.options(3) or []
        return values[len(values) // 2]
    if isinstance(domain, Maybe):
        return True
    options = domain.options(None if isinstance(domain, Choice) else 1) or [None]
    ordered = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
    return sorted(options)[len(options) // 2] if ordered and len(options) > 2 else options[0]
