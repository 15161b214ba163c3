"""Fillings as rows of numbers, for models that learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import Domain, Filling, Float, Int, Order, Space

DEAD = -1.0  # stands in the columns of a hole that is not alive; living ones are in [0, 1]


class Encoding:
    """The columns of a space: one for a number or for options that are numbers (its place in the
    range or among them), one an option for names (1 or 0), one an item for an Order
    (its place in the order); `DEAD` where the hole is not alive."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.start: dict[str, int] = {}  # path -> its first column
        self.names: list[str] = []
        self._tables: dict[str, dict[Any, tuple[float, ...]]] = {}
        for hole in space.holes:
            self.start[hole.path] = len(self.names)
            columns, table = _columns(hole.path, hole.domain)
            self.names += columns
            if table is not None:
                self._tables[hole.path] = table
        self.width = len(self.names)

    def rows(self, fillings: Sequence[Filling]) -> np.ndarray:
        """[n, width] float64."""
        out = np.full((len(fillings), self.width), DEAD)
        for row, filling in zip(out, fillings, strict=True):
            for path, value in filling.items():
                at = self.start[path]
                table = self._tables.get(path)
                if table is not None:
                    cells = table[_name(value)]
                    row[at : at + len(cells)] = cells
                    continue
                domain: Any = self.space[path].domain
                if isinstance(domain, Order):
                    places = value.split(">")
                    row[at : at + len(places)] = [places.index(n) / (len(places) - 1) for n in domain.names]
                else:
                    row[at] = domain.position(value)
        return out


def _name(value: Any) -> Any:
    return value if isinstance(value, str) else (type(value), value)


def _columns(path: str, domain: Domain) -> tuple[list[str], dict[Any, tuple[float, ...]] | None]:
    """Names of a hole's columns, and the cells of each value where these can be listed."""
    if isinstance(domain, (Float, Int)):
        return [path], None
    if isinstance(domain, Order):
        return [f"{path}>{name}" for name in domain.names], None
    values = domain.options(None) or []
    # 1, 1.0 and True are equal, but three options
    if all(isinstance(v, (int, float)) for v in values) and len(set(values)) == len(values):
        ranked = sorted(values)
        return [path], {_name(v): (ranked.index(v) / max(len(values) - 1, 1),) for v in values}
    return [f"{path}={v}" for v in values], {
        _name(v): tuple(float(i == j) for j in range(len(values))) for i, v in enumerate(values)
    }


class Description:
    """What a model is told of a filling: its encoding, how often each value occurs among holes
    alike, and its static features.

    Holes alike have equal domains (the operations of a cell's edges, the widths of the layers):
    the sum of their columns counts an option or adds up a number, which a tree would otherwise need
    a split a hole for. Features stand as signed logarithms, in order of name. `names` of the
    features are learnt from the first filling that has some; `width` grows then.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.encoding = space, Encoding(space)
        self.names: tuple[str, ...] = ()
        ends = [*self.encoding.start.values(), self.encoding.width][1:]
        alike: dict[tuple[str, int], list[int]] = {}
        for hole, end in zip(space.holes, ends, strict=True):
            start = self.encoding.start[hole.path]
            alike.setdefault((repr(hole.domain), end - start), []).append(start)
        self._alike = [(starts, width) for (_, width), starts in alike.items() if len(starts) > 1]

    @property
    def width(self) -> int:
        return self.encoding.width + sum(width for _, width in self._alike) + len(self.names)

    def learn(self, fillings: Sequence[Filling]) -> bool:
        """Takes the names of the features from the first filling that has some;
        whether there are new ones."""
        if self.names:
            return False
        self.names = next((tuple(sorted(found)) for f in fillings if (found := self.space.features(f))), ())
        return bool(self.names)

    def rows(self, fillings: Sequence[Filling]) -> np.ndarray:
        """[n, width] float64, finite. A feature that is not known, or no number, counts as 0."""
        holes = self.encoding.rows(fillings)
        alive = np.maximum(holes, 0.0)
        sums = [np.sum([alive[:, s : s + width] for s in starts], axis=0) for starts, width in self._alike]
        if not self.names:
            return np.hstack([holes, *sums])
        known = np.zeros((len(fillings), len(self.names)))
        for row, filling in zip(known, fillings, strict=True):
            found = self.space.features(filling)
            row[:] = [found.get(name, 0.0) for name in self.names]
        known = np.nan_to_num(known, nan=0.0, posinf=1e300, neginf=-1e300)
        return np.hstack([holes, *sums, np.sign(known) * np.log1p(np.abs(known))])
