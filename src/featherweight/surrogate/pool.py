"""Candidates for a model to judge: changes of good fillings, random ones,
and neighbours of those that look best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..space import Domain, Filling, Space
from ..space.domains import Float
from ..space.space import key

Judge = Callable[["list[Filling]"], np.ndarray]  # fillings -> the more the better, [q]

_ON = 0.4  # chance that one more hole is changed
_NEAR = 16  # neighbours of a filling that are looked at
_TOP = 3  # fillings whose neighbours are looked at in a round


class Pool:
    """Distinct candidates and how they were judged, in the order in which they came; `barred(key)`:
    whether one may not enter."""

    def __init__(self, judge: Judge, barred: Callable[[str], bool]) -> None:
        self.fillings: list[Filling] = []
        self.keys: list[str] = []
        self.scores = np.empty(0)
        self._judge, self._barred = judge, barred
        self._in: set[str] = set()

    def extend(self, candidates: Iterable[Filling]) -> bool:
        """Judges those that are new; whether there were any."""
        new = []
        for filling in candidates:
            name = key(filling)
            if name not in self._in and not self._barred(name):
                self._in.add(name)
                self.keys.append(name)
                new.append(filling)
        if new:
            self.fillings += new
            self.scores = np.append(self.scores, self._judge(new))
        return bool(new)

    def climb(self, space: Space, rounds: int, rng: np.random.Generator) -> None:
        """Local search: in each round the neighbours of the best so far come in (hill climbing on
        the acquisition, as in SMAC; Hutter, Hoos and Leyton-Brown, "Sequential model-based
        optimization for general algorithm configuration", 2011, section 4.3)."""
        for _ in range(rounds):
            best = np.argsort(-self.scores, kind="stable")[:_TOP]
            if not self.extend([f for i in best for f in near(space, self.fillings[i], rng)]):
                return


def draw(space: Space, parents: Sequence[Filling], changed: int, drawn: int, rng: np.random.Generator) -> list[Filling]:
    """`changed` variations of the parents, the first ones most often,
    and `drawn` random fillings."""
    which = (len(parents) * rng.random(changed) ** 1.5).astype(int)
    return [varied(space, parents[i], rng) for i in which] + [space.sample(rng) for _ in range(drawn)]


def varied(space: Space, filling: Filling, rng: np.random.Generator) -> Filling:
    """`filling` with one hole changed, or two, three... with ever less chance:
    each drawn anew or moved to a near value."""
    # not in the filling's own order, which a store may change
    paths = [h.path for h in space.holes if h.path in filling]
    if not paths:
        return {}
    count = 1
    while count < len(paths) and rng.random() < _ON:
        count += 1
    out = dict(filling)
    for i in rng.permutation(len(paths))[:count]:
        path = paths[i]
        domain = space[path].domain
        out[path] = domain.sample(rng) if rng.random() < 0.5 else moved(domain, filling[path], rng)
    return space.complete(out, rng)


def moved(domain: Domain, value: Any, rng: np.random.Generator) -> Any:
    """A value near `value`: a real number by a normal step whose scale is drawn between 0.1 % and
    10 % of the range, else one of `domain.near`; `value` itself where there is no other."""
    if isinstance(domain, Float) and domain.step is None:
        place = domain.position(value) + float(rng.standard_normal()) * 10.0 ** -rng.uniform(1.0, 3.0)
        place = min(max(place, 0.0), 1.0)
        raw = (
            domain.low * (domain.high / domain.low) ** place
            if domain.log
            else domain.low + place * (domain.high - domain.low)
        )
        return float(min(max(raw, domain.low), domain.high))
    others = domain.near(value)
    return others[int(rng.integers(len(others)))] if others else value


def near(space: Space, filling: Filling, rng: np.random.Generator) -> list[Filling]:
    """Up to `_NEAR` fillings one change away; of a real number one close by as well as
    the fixed steps."""
    moves: list[tuple[str, Any]] = []
    for path in (h.path for h in space.holes if h.path in filling):
        domain = space[path].domain
        moves += [(path, v) for v in domain.near(filling[path])]
        if isinstance(domain, Float) and domain.step is None:
            moves.append((path, moved(domain, filling[path], rng)))
    if len(moves) > _NEAR:
        moves = [moves[i] for i in rng.permutation(len(moves))[:_NEAR]]
    return [space.complete({**filling, path: value}, rng) for path, value in moves]
