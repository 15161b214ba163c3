"""Grid search in an order whose every beginning covers the space evenly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..records import History
from ..space import Space
from ..space.space import key
from .base import Proposal, Strategy


@dataclass(frozen=True)
class Grid(Strategy):
    """All fillings of a finite space. In a space with a continuous hole a number takes `points`
    evenly spaced values; when all of these fillings are done, the spacing is halved and the
    grid goes on.

    The k-th filling has the rank k * stride modulo the number of fillings. The stride is coprime to
    that number, so each filling comes once, and near its golden section, so that the ranks of any
    beginning are spread evenly (the additive recurrence of Knuth, The Art of Computer Programming
    3, section 6.4). It needs no random numbers.
    """

    points: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.points, int) or isinstance(self.points, bool) or self.points < 2:
            raise InputError("a grid needs at least 2 points", got=self.points, allowed="a whole number of at least 2")

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        """The note holds where in the order a filling stands, so the next call starts behind it:
        O(1) on average."""
        finite = space.size < math.inf
        points, position = _last(history, self.points)
        out: list[Proposal] = []
        also: set[str] = set()
        while len(out) < n:
            count = int(space.count(None if finite else points))
            if position >= count:
                if finite:
                    break
                points, position = 2 * points - 1, 0
                continue
            filling = space.at(position * _stride(count) % count, None if finite else points)
            text = key(filling)
            if not history.seen_key(text) and text not in also:
                also.add(text)
                out.append(Proposal(filling, {"points": points, "position": position}))
            position += 1
        return out


def _last(history: History, points: int) -> tuple[int, int]:
    """The spacing in use and the first position that no trial of the grid has taken."""
    for number in range(len(history) - 1, -1, -1):
        note = history[number].note
        if "position" in note:
            return int(note["points"]), int(note["position"]) + 1
    return points, 0


def _stride(count: int) -> int:
    """A number coprime to `count` next to its golden section;
    whole arithmetic, because counts pass 2^53."""
    stride = max(1, count * 618033988749895 // 10**15)
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride
