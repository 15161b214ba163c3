"""Dominance, fronts, crowding and hypervolume. Every objective is to be
minimised. No torch here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

Point = Sequence[float]


def dominates(a: Point, b: Point) -> bool:
    """Is `a` nowhere worse than `b`, and somewhere better?"""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the non-dominated points, in order of the first objective;
    of equal points the first is kept.

    A point with a NaN is on no front. Sorted first, so a point can be dominated only by an earlier
    one: O(n log n) for two objectives, O(n * front) else.
    """
    order = sorted((i for i, p in enumerate(points) if not any(x != x for x in p)), key=lambda i: (tuple(points[i]), i))
    kept: list[int] = []
    best_second = float("inf")
    for i in order:
        p = points[i]
        if len(p) == 1:
            return [i]
        if len(p) == 2:
            if not kept or p[1] < best_second:
                kept.append(i)
                best_second = p[1]
        elif not any(all(x <= y for x, y in zip(points[j], p, strict=True)) for j in kept):
            kept.append(i)
    return kept


def ranks(points: Sequence[Point] | np.ndarray, violations: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """The front of each of `points` [n, m]: 0 for those that nothing dominates, 1 for those that
    only front 0 does, ... [n] int.

    Non-dominated sorting with constrained domination (Deb et al., "A fast and elitist
    multiobjective genetic algorithm: NSGA-II", 2002, sections III-A and VI): feasible ones
    (violation 0) come first, by their objectives; then the others by violation, equal ones
    together; what holds a NaN is last. None: all are feasible. O(n log n) for up to two objectives,
    O(n^2 m) in numpy else. InputError if points and violations are not equally many.
    """
    import numpy as np

    values = _matrix(points)  # [n, m]
    broken = np.zeros(len(values)) if violations is None else np.asarray(violations, dtype=float)  # [n]
    if broken.shape != (len(values),):
        raise InputError(
            "each point needs its violation", got=f"{len(values)} points, violations of shape {broken.shape}"
        )
    out = np.zeros(len(values), dtype=int)
    bad = np.isnan(values).any(1) | np.isnan(broken)
    legal, last = ~bad & (broken <= 0), 0
    if legal.any():
        out[legal] = _sorted_fronts(values[legal])
        last = int(out[legal].max()) + 1
    beyond = ~bad & (broken > 0)
    levels, place = np.unique(broken[beyond], return_inverse=True)
    out[beyond] = last + place
    out[bad] = last + len(levels)
    return out


def _matrix(points: Sequence[Point] | np.ndarray) -> np.ndarray:
    import numpy as np

    return np.asarray(points, dtype=float) if len(points) else np.empty((0, 1))


def _sorted_fronts(values: np.ndarray) -> np.ndarray:
    """The front of each row of `values` [n, m], n > 0, no NaN."""
    import numpy as np

    # rows in lexicographic order: dominated by earlier ones only
    distinct, place = np.unique(values, axis=0, return_inverse=True)
    n, m = distinct.shape
    if m == 1:
        return np.asarray(place).reshape(-1)
    level = np.zeros(n, dtype=int)
    # the least second objective of each front rises from front to front (Jensen 2003, section III)
    if m == 2:
        least: list[float] = []
        for i, y in enumerate(distinct[:, 1].tolist()):
            level[i] = at = bisect_right(least, y)
            least[at : at + 1] = [y]
        return np.asarray(level[place.reshape(-1)])
    above = np.ones((n, n), dtype=bool)  # [i, j]: i dominates j
    for column in distinct.T:
        above &= column[:, None] <= column[None, :]
    np.fill_diagonal(above, False)
    left, count, k = np.ones(n, dtype=bool), above.sum(0), 0
    while left.any():
        now = left & (count == 0)
        level[now] = k
        left &= ~now
        count -= above[now].sum(0)
        k += 1
    return np.asarray(level[place.reshape(-1)])


def crowding(points: Sequence[Point] | np.ndarray) -> np.ndarray:
    """How much room each of the points [n, m] of one front has: for each objective, the distance
    between its two neighbours over the range, summed; infinite at the ends. [n] float
    (Deb et al. 2002, section III-B). Points must be finite."""
    import numpy as np

    values = _matrix(points)
    out = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ranked: Any = column[order]
        if not len(ranked) or ranked[-1] == ranked[0]:
            continue
        out[order[1:-1]] += (ranked[2:] - ranked[:-2]) / (ranked[-1] - ranked[0])
        out[order[[0, -1]]] = np.inf
    return out


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that `points` dominate within the box below `reference`.

    By slicing along the last objective (HSO; While et al., "A faster algorithm for calculating
    hypervolume", 2006).
    """
    inside = [tuple(p) for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    inside = [inside[i] for i in front(inside)]
    if len(reference) == 1:
        return float(reference[0] - inside[0][0])
    if len(reference) == 2:
        volume, ceiling = 0.0, float(reference[1])
        for x, y in inside:
            volume += (reference[0] - x) * (ceiling - y)
            ceiling = y
        return volume
    inside.sort(key=lambda p: p[-1])
    volume = 0.0
    for k, p in enumerate(inside):
        depth = (inside[k + 1][-1] if k + 1 < len(inside) else reference[-1]) - p[-1]
        if depth > 0:
            volume += depth * hypervolume([q[:-1] for q in inside[: k + 1]], reference[:-1])
    return volume
