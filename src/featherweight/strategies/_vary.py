"""Fillings made from others: the middle of a space, mutation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..space import Domain, Filling, Space
from ..space.domains import Choice, Float, Int, Maybe

if TYPE_CHECKING:
    import numpy as np


def centre(space: Space) -> Filling:
    """The filling in the middle: numbers at half their range, also among options; else the first option; every Maybe there, orders as written."""
    return space.walk(lambda path, domain: middle(domain))


def mutated(space: Space, filling: Filling, rng: np.random.Generator, rate: float = 1.5) -> Filling:
    """`filling` with `rate` holes drawn anew in the mean, at least one."""
    paths = [h.path for h in space.holes if h.path in filling]  # not in the filling's own order, which a store may change
    if not paths:
        return {}
    again = rng.random(len(paths)) < rate / len(paths)
    again[int(rng.integers(len(paths)))] = True
    return space.complete({p: filling[p] for p, a in zip(paths, again, strict=True) if not a}, rng)


def middle(domain: Domain) -> Any:
    """The value that `centre` gives a hole."""
    if isinstance(domain, (Float, Int)):
        values = domain.options(3) or []
        return values[len(values) // 2]
    if isinstance(domain, Maybe):
        return True
    options = domain.options(None if isinstance(domain, Choice) else 1) or [None]
    ordered = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
    return sorted(options)[len(options) // 2] if ordered else options[0]
