"""A space: all holes of a tree, flat and conditional, with stable path names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .domains import Float, Int, Order
from .node import Domain, Node, holes, resolve

Filling = dict[str, Any]  # path -> JSON scalar, for the holes that are alive


@dataclass(frozen=True)
class Hole:
    """One hole: its path, its domain, and the (path, value) choices under which it is alive."""

    path: str
    domain: Domain
    when: tuple[tuple[str, Any], ...]


class Space:
    """The holes of `tree` (a recipe, a candidate, any node) and what can be done with them."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.holes = tuple(Hole(*h) for h in holes(tree))
        self._by_path = {h.path: h for h in self.holes}
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.holes)

    def __iter__(self) -> Iterator[Hole]:
        return iter(self.holes)

    def __getitem__(self, path: str) -> Hole:
        if path not in self._by_path:
            raise InputError("the space has no such hole", got=path, allowed=", ".join(self._by_path) or "none: it has no holes")
        return self._by_path[path]

    @property
    def size(self) -> float:
        """The number of distinct fillings; `math.inf` if a hole is continuous."""
        return _count(self.tree, None)

    def fill(self, values: Filling) -> Any:
        """The tree with its holes filled. InputError for a missing, unknown, dead or illegal value."""
        used = set()

        def choose(path: str, domain: Domain) -> Any:
            if path not in values:
                raise InputError(f"no value for the hole {path}", allowed=repr(domain))
            used.add(path)
            return values[path]

        filled = resolve(self.tree, choose)
        extra = sorted(set(values) - used)
        if extra:
            known = [p for p in extra if p in self._by_path]
            raise InputError(
                "a value for a hole that is not there" if not known else "a value for a hole that these choices leave out",
                got=extra,
                allowed=sorted(used),
            )
        return filled

    def sample(self, rng: Any) -> Filling:
        """A random filling: each living hole is drawn from its own domain."""
        return self.complete({}, rng)

    def complete(self, values: Filling, rng: Any) -> Filling:
        """A valid filling that keeps `values` where they are alive and draws the rest. InputError for an illegal value."""
        out: Filling = {}

        def choose(path: str, domain: Domain) -> Any:
            value = values[path] if path in values else domain.sample(rng)
            out[path] = domain.check(value, path)
            return out[path]

        resolve(self.tree, choose)
        return out

    def neighbours(self, values: Filling, rng: Any) -> Iterator[Filling]:
        """Fillings one change away, hole by hole; holes that a change brings to life are drawn with `rng`."""
        for path, value in values.items():
            for other in self[path].domain.near(value):
                yield self.complete({**values, path: other}, rng)

    def at(self, index: int, points: int | None = None) -> Filling:
        """The filling of rank `index` in a fixed order of all fillings; continuous holes count `points` values."""
        size = self.count(points)
        if not 0 <= index < size:
            raise InputError("no filling has this index", got=index, allowed=f"0 to {size - 1}")
        out: Filling = {}
        _unrank(self.tree, index, "", points, out)
        return out

    def key_at(self, index: int) -> str:
        """`key(space.at(index))`, remembered: who looks for an unseen filling near the end of a small space asks often."""
        if index not in self._keys:
            self._keys[index] = key(self.at(index))
        return self._keys[index]

    def count(self, points: int | None = None) -> float:
        """The number of fillings when a continuous hole counts `points` values."""
        return _count(self.tree, points)


def key(values: Filling) -> str:
    """A filling as canonical text: equal fillings, and only those, have equal keys."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _children(tree: Any, path: str) -> list[tuple[Any, str]]:
    if isinstance(tree, Node):
        return tree.parts(path)
    return [(part, f"{path}[{i}]") for i, part in enumerate(tree)] if isinstance(tree, tuple) else []


def _count(tree: Any, points: int | None) -> float:
    if isinstance(tree, Domain):
        if isinstance(tree, Order):
            return math.factorial(len(tree.items)) * math.prod(_count(item, points) for item in tree.items)
        if isinstance(tree, (Float, Int)):
            return tree.count(points)
        return sum(math.prod(_count(p, points) for p, _ in tree.branches(value, "")) for value in tree.options(points) or [])
    return math.prod(_count(part, points) for part, _ in _children(tree, ""))


def _unrank(tree: Any, index: int, path: str, points: int | None, out: Filling) -> None:
    """Mixed-radix decoding: a product divides the index, a choice walks its options' counts."""
    if not isinstance(tree, Domain):
        for part, p in _children(tree, path):
            n = int(_count(part, points))
            _unrank(part, index % n, p, points, out)
            index //= n
        return
    if isinstance(tree, (Float, Int)):
        out[path] = tree.nth(index, points)
        return
    values: list[Any] = []
    if isinstance(tree, Order):
        rank, index = divmod(index, int(math.prod(_count(i, points) for i in tree.items)))
        values = [tree.nth(rank)]
    for value in values or tree.options(points) or []:
        parts = tree.branches(value, path)
        counts = [int(_count(p, points)) for p, _ in parts]
        if index < math.prod(counts):
            out[path] = value
            for (part, p), m in zip(parts, counts, strict=True):
                _unrank(part, index % m, p, points, out)
                index //= m
            return
        index -= math.prod(counts)
