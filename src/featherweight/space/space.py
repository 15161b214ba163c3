"""A space: all holes of a tree, flat and conditional, with stable path names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .domains import Float, Int, Order
from .node import Chooser, Domain, Node, holes, resolve

_REMEMBERED = 100_000  # fillings whose features are kept

# path -> JSON scalar, for the holes that are alive; the order of its keys means nothing
Filling = dict[str, Any]


@dataclass(frozen=True)
class Hole:
    """One hole: its path, its domain, and the (path, value) choices under which it is alive."""

    path: str
    domain: Domain
    when: tuple[tuple[str, Any], ...]


class Space:
    """The holes of `tree` (a recipe, a candidate, any node) and what can be done with them.

    features: of a filled tree, what is known of it before it runs (`params`, `macs`, predicted
    costs), always the same names;
    refuses: of a filled tree, why it must not run (a limit that it cannot hold), None if it may.
    """

    def __init__(
        self,
        tree: Any,
        features: Callable[[Any], Mapping[str, float]] | None = None,
        refuses: Callable[[Any], str | None] | None = None,
    ) -> None:
        self.tree = tree
        self.holes = tuple(Hole(*h) for h in holes(tree))
        self._by_path = {h.path: h for h in self.holes}
        self._keys: dict[int, str] = {}
        self._slots = _slots(tree, "")
        self._features, self._refuses = features, refuses
        # by key: features and refusal, the oldest dropped
        self._known: dict[str, tuple[dict[str, float], str | None]] = {}

    def __len__(self) -> int:
        return len(self.holes)

    def __iter__(self) -> Iterator[Hole]:
        return iter(self.holes)

    def __getitem__(self, path: str) -> Hole:
        if path not in self._by_path:
            raise InputError(
                "the space has no such hole", got=path, allowed=", ".join(self._by_path) or "none: it has no holes"
            )
        return self._by_path[path]

    @property
    def size(self) -> float:
        """The number of distinct fillings; `math.inf` if a hole is continuous."""
        return _count(self.tree, None)

    def fill(self, values: Filling) -> Any:
        """The tree with its holes filled. InputError for a missing, unknown,
        dead or illegal value."""
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
                "a value for a hole that is not there"
                if not known
                else "a value for a hole that these choices leave out",
                got=extra,
                allowed=sorted(used),
            )
        return filled

    def sample(self, rng: Any) -> Filling:
        """A random filling: each living hole is drawn from its own domain."""
        return self.complete({}, rng)

    def complete(self, values: Filling, rng: Any) -> Filling:
        """A valid filling that keeps `values` where they are alive and draws the rest.
        InputError for an illegal value."""
        return self.walk(lambda path, domain: values[path] if path in values else domain.sample(rng))

    def walk(self, choose: Chooser) -> Filling:
        """The filling that `choose(path, domain)` gives, asked for each living hole in turn;
        builds no tree, so it is fast."""
        out: Filling = {}

        def visit(slots: tuple[_Slot, ...]) -> None:
            for slot in slots:
                value = out[slot.path] = slot.domain.check(choose(slot.path, slot.domain), slot.path)
                below = slot.below(value)
                if below:
                    visit(below)

        visit(self._slots)
        return out

    def features(self, values: Filling) -> dict[str, float]:
        """What is known of a filling before it runs, by name;
        {} if the space was given no way to know."""
        return self._about(values)[0]

    def refused(self, values: Filling) -> str | None:
        """Why a filling must not run, as far as can be known before; None if it may."""
        return self._about(values)[1]

    def _about(self, values: Filling) -> tuple[dict[str, float], str | None]:
        if self._features is None and self._refuses is None:
            return {}, None
        name = key(values)
        if name not in self._known:
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            tree = self.fill(values)
            why = self._refuses(tree) if self._refuses else None
            self._known[name] = (dict(self._features(tree)) if self._features and why is None else {}, why)
        return self._known[name]

    def neighbours(self, values: Filling, rng: Any) -> Iterator[Filling]:
        """Fillings one change away, hole by hole in the space's own order
        (a filling's is its store's); holes that a change brings to life are drawn with `rng`.
        InputError for a hole that the space does not have."""
        for path in values:
            self[path]  # says so if there is no such hole
        for hole in self.holes:
            if hole.path in values:
                for other in hole.domain.near(values[hole.path]):
                    yield self.complete({**values, hole.path: other}, rng)

    def at(self, index: int, points: int | None = None) -> Filling:
        """The filling of rank `index` in a fixed order of all fillings;
        continuous holes count `points` values."""
        size = self.count(points)
        if not 0 <= index < size:
            raise InputError("no filling has this index", got=index, allowed=f"0 to {size - 1}")
        out: Filling = {}
        _unrank(self.tree, index, "", points, out)
        return out

    def key_at(self, index: int) -> str:
        """`key(space.at(index))`, remembered: who looks for an unseen filling near the end of a
        small space asks often."""
        if index not in self._keys:
            self._keys[index] = key(self.at(index))
        return self._keys[index]

    def count(self, points: int | None = None) -> float:
        """The number of fillings when a continuous hole counts `points` values."""
        return _count(self.tree, points)


class _Slot:
    """A hole and, for each value met, the slots below it."""

    def __init__(self, path: str, domain: Domain) -> None:
        self.path, self.domain = path, domain
        self._below: dict[Any, tuple[_Slot, ...]] = {}
        self._leaf = isinstance(domain, (Float, Int))

    def below(self, value: Any) -> tuple[_Slot, ...]:
        if self._leaf:
            return ()
        name = value if isinstance(value, str) else (type(value), value)
        if isinstance(self.domain, Order):
            name = ""  # the same parts whatever the order
        if name not in self._below:
            self._below[name] = tuple(s for part, p in self.domain.branches(value, self.path) for s in _slots(part, p))
        return self._below[name]


def _slots(tree: Any, path: str) -> tuple[_Slot, ...]:
    """The outermost holes of a tree, in the order in which `resolve` meets them."""
    if isinstance(tree, Domain):
        return (_Slot(path, tree),)
    return tuple(s for part, p in _children(tree, path) for s in _slots(part, p))


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
        return sum(
            math.prod(_count(p, points) for p, _ in tree.branches(value, "")) for value in tree.options(points) or []
        )
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
