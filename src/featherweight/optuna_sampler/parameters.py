"""Optuna's parameters as a space of ours: a hole each, and the conditions between them as the
trials show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..seeding import derive
from ..space import Domain, Filling, Space
from ..space.domains import Choice, Float, Int
from ..space.vary import middle

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Row = dict[str, Any]  # parameter -> value of its hole, in the order of suggestion
# the parent, and which of its values bring a parameter to life
Condition = tuple[str, frozenset[Any]]
PARENTS = 64  # an Int of more values is not taken for a parent


def domain(distribution: BaseDistribution) -> Domain:
    """The hole of a parameter. InputError for what no hole can be (numbers beyond 2^53)."""
    d: Any = distribution
    if hasattr(d, "choices"):
        return Choice(*(_options(d)))
    if isinstance(d.low, int):
        return Int(d.low, d.high, log=d.log, step=d.step)
    return Float(d.low, d.high, log=d.log, step=d.step)


def _options(d: Any) -> list[Any]:
    """Numbers and texts as they are; if there is anything else among the choices,
    all by their places."""
    plain = all(isinstance(c, (str, bool, int)) or (isinstance(c, float) and math.isfinite(c)) for c in d.choices)
    distinct = len({_name(c) for c in d.choices}) == len(d.choices)
    return list(d.choices) if plain and distinct else [f"choice {i}" for i in range(len(d.choices))]


def inside(distribution: BaseDistribution, value: Any) -> Any:
    """A parameter's value as its hole's."""
    d: Any = distribution
    return _options(d)[int(d.to_internal_repr(value))] if hasattr(d, "choices") else value


def outside(distribution: BaseDistribution, value: Any) -> Any:
    """The inverse of `inside`."""
    d: Any = distribution
    if not hasattr(d, "choices"):
        return value
    return d.choices[[_name(o) for o in _options(d)].index(_name(value))]


def _name(value: Any) -> Any:
    """1, 1.0 and True are different."""
    return type(value).__name__, value


class Switch(Choice):
    """Plain values, some of which bring parameters to life: the same hole under each of several
    values. It is a Choice to strategies."""

    def __init__(self, options: Sequence[Any], below: Callable[[Any], list[tuple[Domain, str]]]) -> None:
        super().__init__(*options)
        self._set(_below={_name(v): below(v) for v in options})

    _below: dict[Any, list[tuple[Domain, str]]]

    def _key(self) -> tuple[Any, ...]:
        return (*super()._key(), repr(self._below))

    def branches(self, value: Any, path: str) -> list[tuple[Any, str]]:
        return list(self._below[_name(value)])

    def build(self, value: Any, parts: list[Any]) -> Any:
        return (value, *parts)


class Parameters:
    """The space of the parameters whose condition is known, and the way between rows and fillings.
    The other parameters are left out.

    flat: a row may lack parameters, which then stand at the middle of their range.
    """

    def __init__(
        self, known: Mapping[str, BaseDistribution], conditions: Mapping[str, Condition | None], flat: bool = False
    ) -> None:
        self.known, self.conditions, self.flat = dict(known), dict(conditions), flat
        self.roots = [n for n in known if n not in conditions]
        kept = [*self.roots, *(n for n in known if self._rooted(n))]
        self.paths = {n: f"[{i}]" for i, n in enumerate(kept)}
        self.names = {path: n for n, path in self.paths.items()}
        self.space = Space(tuple(self._hole(n) for n in self.roots))
        self.fingerprint = derive(
            0,
            repr(self.paths),
            repr(self.space.tree),
            repr([c and (c[0], sorted(map(str, c[1]))) for c in conditions.values()]),
        )

    def _rooted(self, name: str) -> bool:
        """Whether a conditional parameter's condition is known,
        and its parent's, up to the root."""
        condition = self.conditions.get(name)
        return condition is not None and (condition[0] not in self.conditions or self._rooted(condition[0]))

    def _hole(self, name: str) -> Domain:
        plain = domain(self.known[name])
        children = {n: c[1] for n, c in self.conditions.items() if c is not None and c[0] == name}
        if not children:
            return plain
        holes = {n: self._hole(n) for n in children}
        values: list[Any] = plain.options(None) or []
        return Switch(
            values, lambda value: [(holes[n], self.paths[n]) for n, under in children.items() if _name(value) in under]
        )

    def filling(self, row: Row) -> Filling | None:
        """The filling of a row; None if the row does not fit the space."""

        def choose(path: str, hole: Domain) -> Any:
            name = self.names[path]
            return middle(hole) if self.flat and name not in row else row[name]

        try:
            filling = self.space.walk(choose)
        except (KeyError, InputError):
            # a parameter that should be there is not, or is out of its range
            return None
        return filling if all(self.paths[n] in filling for n in row if n in self.paths) else None

    def suggested(self, filling: Filling) -> dict[str, Any]:
        """A filling as Optuna's values by name."""
        return {self.names[path]: outside(self.known[self.names[path]], value) for path, value in filling.items()}


def conditions(rows: Sequence[Row], known: Mapping[str, BaseDistribution]) -> dict[str, Condition | None]:
    """Of each known parameter that some row lacks, the condition that fits all rows;
    None if there is none.

    A parent is suggested before, has values that can be counted, and under exactly some of them the
    parameter is there. Of several, the one that is there least often (the nearest in the tree),
    then the one suggested last before it.
    """
    out: dict[str, Condition | None] = {}
    for name in known:
        having = [row for row in rows if name in row]
        if len(having) < len(rows):
            found = sorted(_parents(name, rows, having, known), key=lambda f: f[0])
            out[name] = found[0][1] if found else None
    return out


def _parents(
    name: str, rows: Sequence[Row], having: Sequence[Row], known: Mapping[str, BaseDistribution]
) -> Iterator[tuple[tuple[int, int], Condition]]:
    """Parents that explain when `name` is there, with their rank."""
    if not having:
        return
    for place, parent in enumerate(having[0]):
        if parent == name:
            return
        if parent not in known or not _counted(known[parent]) or not all(parent in row for row in having):
            continue
        under = frozenset(_name(row[parent]) for row in having)
        if all(name in row for row in rows if parent in row and _name(row[parent]) in under):
            yield (sum(parent in row for row in rows), -place), (parent, under)


def _counted(distribution: BaseDistribution) -> bool:
    hole = domain(distribution)
    return isinstance(hole, Choice) or (isinstance(hole, Int) and hole.count(None) <= PARENTS)
