"""Dominance and hypervolume. Every objective is to be minimised. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

Point = Sequence[float]


def dominates(a: Point, b: Point) -> bool:
    """Is `a` nowhere worse than `b`, and somewhere better?"""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the non-dominated points, in order of the first objective; of equal points the first is kept.

    A point with a NaN is on no front. Sorted first, so a point can be dominated only by an earlier one: O(n log n) for
    two objectives, O(n * front) else.
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


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that `points` dominate within the box below `reference`.

    By slicing along the last objective (HSO; While et al., "A faster algorithm for calculating hypervolume", 2006).
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
