"""The tree that a recipe is: nodes with named fields, some of them holes.

Every operation on a space (fill, sample, enumerate, list) is one walk over this tree, so that no
two of them can disagree about which holes exist or what they are called.

Notation: a *path* names a hole (`prune.ratio`); a *chooser* gives the value for a path;
a *scalar* is a JSON value.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from ..errors import InputError, RecipeError

Chooser = Callable[[str, "Domain"], Any]
SCALARS = (str, int, float, bool, type(None))
_REMEMBERED = 10_000
# scalars that were found legal in a field, in their canonical form
_CHECKED: dict[tuple[type, str, type, Any], Any] = {}


class Domain(ABC):
    """Abstract: what may stand in a field. Immutable. Values are JSON scalars;
    `tag` names it in JSON."""

    tag: ClassVar[str]

    @abstractmethod
    def check(self, value: Any, path: str) -> Any:
        """The value in its canonical form; InputError if the domain does not hold it."""

    @abstractmethod
    def sample(self, rng: Any) -> Any:
        """A value drawn with a numpy generator."""

    @abstractmethod
    def options(self, points: int | None) -> list[Any] | None:
        """All values; for a continuous domain `points` evenly spaced ones,
        or None if `points` is None."""

    @abstractmethod
    def near(self, value: Any) -> list[Any]:
        """The values next to `value`, nearest first."""

    def branches(self, value: Any, path: str) -> list[tuple[Any, str]]:
        """The subtrees that are alive when `value` is chosen, with their paths."""
        return []

    def build(self, value: Any, parts: list[Any]) -> Any:
        """What stands in the field, from the value chosen and the resolved branches."""
        return value

    @abstractmethod
    def to_json(self) -> Any:
        """The body that stands under `tag` in JSON."""


class Node:
    """Abstract base of everything with fields that may be holes.
    Subclasses are frozen dataclasses."""

    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:
            cls.kind = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            name = (type(self), f.name, type(value), value) if type(value) in (str, int, bool) else None
            # a search makes the same few fields thousands of times
            if name is not None and name in _CHECKED:
                object.__setattr__(self, f.name, _CHECKED[name])
                continue
            value = check_field(f, value, f"{self.kind}.{f.name}")
            object.__setattr__(self, f.name, value)
            if name is not None:
                if len(_CHECKED) >= _REMEMBERED:
                    _CHECKED.clear()
                _CHECKED[name] = value

    def parts(self, path: str) -> list[tuple[Any, str]]:
        """The children with their paths, in field order."""
        return [(getattr(self, f.name), join(path, f.name)) for f in dataclasses.fields(self)]  # type: ignore[arg-type]

    def rebuild(self, parts: list[Any]) -> Any:
        """The same node with other children."""
        return type(self)(**{f.name: p for f, p in zip(dataclasses.fields(self), parts, strict=True)})  # type: ignore[arg-type]

    @classmethod
    def space(cls, **fixed: Any) -> Any:
        """This node with every field open to the range that it declares,
        except those fixed here."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        unknown = set(fixed) - {f.name for f in fields}
        if unknown:
            raise InputError(f"{cls.__name__} has no such field", got=sorted(unknown), allowed=[f.name for f in fields])
        declared = {f.name: f.metadata["search"] for f in fields if f.metadata.get("search") is not None}
        return cls(**{**declared, **fixed})


def param(default: Any, *, search: Domain | None = None, legal: Domain | None = None, doc: str = "") -> Any:
    """A field of a node: its default, the range that `space()` opens, the values it may ever take,
    and one line of help."""
    return dataclasses.field(default=default, metadata={"search": search, "legal": legal, "doc": doc})


_PLAIN: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}
_TUPLE = re.compile(r"tuple\[(\w+),\.\.\.\]")


def check_field(f: dataclasses.Field[Any], value: Any, path: str, kinds: list[str] | None = None) -> Any:
    """The value of a field in its canonical form, so that equal fields hash alike: ints in float
    fields become floats, lists become tuples. InputError if its type is not the annotated one
    (where that is made of plain types and tuples of them), or if it, or an end of the hole that
    stands there, is outside the legal range.
    """
    # the annotation is text, or a class where the module does not postpone annotations
    if kinds is None:
        kinds = (f.type.__name__ if isinstance(f.type, type) else str(f.type)).replace(" ", "").split("|")
    inside = [m[1] for k in kinds if (m := _TUPLE.fullmatch(k))]
    strict = all(k in _PLAIN or _TUPLE.fullmatch(k) for k in kinds)
    if isinstance(value, (list, tuple)) and (inside or not strict):
        return tuple(check_field(f, v, path, inside or kinds) for v in value)
    if isinstance(value, Domain):
        _check_hole(f, value, path, kinds, inside)
        return value
    if isinstance(value, Node) and not strict:
        return value
    if not isinstance(value, SCALARS) or (strict and isinstance(value, (list, tuple, Node))):
        raise InputError(
            f"{path} cannot hold this",
            got=f"{type(value).__name__}: {value!r}",
            allowed=str(f.type)
            if strict
            else "a number, text, true/false, none, a hole (Float, Int, Choice, Maybe, Order) or a recipe",
        )
    return _check_scalar(f, value, path, kinds, strict)


def _check_scalar(f: dataclasses.Field[Any], value: Any, path: str, kinds: list[str], strict: bool) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= 1e300:
            raise InputError(f"{path} is not a finite number", got=repr(value))
        if isinstance(value, float) or ("float" in kinds and "int" not in kinds):
            value = float(value) + 0.0  # -0.0 becomes 0.0
        if isinstance(value, float) and "int" in kinds and "float" not in kinds and value.is_integer():
            value = int(value)
    fits = any(
        isinstance(value, _PLAIN[k]) and (k == "bool" or not isinstance(value, bool)) for k in kinds if k in _PLAIN
    )
    if strict and not fits:
        raise InputError(f"{path} has the wrong type", got=repr(value), allowed=str(f.type))
    if value is None and "None" in kinds:
        return value
    legal = f.metadata.get("legal")
    return legal.check(value, path) if legal is not None else value


def _check_hole(f: dataclasses.Field[Any], hole: Domain, path: str, kinds: list[str], inside: list[str]) -> None:
    """Everything that may come to stand in the field has to be allowed there."""
    if hole.tag == "float" and set(kinds) <= _PLAIN.keys() - {"float"}:
        raise InputError(f"{path} cannot hold a Float", got=repr(hole), allowed=str(f.type))
    if hole.tag in ("float", "int"):
        for end in hole.options(2) or []:
            check_field(f, end, path, kinds)
    elif hole.tag == "order":
        check_field(f, hole.items, path, kinds)  # type: ignore[attr-defined]
    elif hole.tag == "maybe":
        for item in (None, hole.item):  # type: ignore[attr-defined]
            check_field(f, item, path, kinds)
    else:
        for item in hole.items:  # type: ignore[attr-defined]
            check_field(f, item, path, kinds)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def label(item: Any) -> str:
    """What a step or an option is called in a path."""
    if isinstance(item, Domain):
        inner = getattr(item, "item", None)
        return getattr(item, "name", None) or (label(inner) if isinstance(inner, Node) else item.tag)
    return item.kind if isinstance(item, Node) else str(item)


def labels(items: Iterable[Any]) -> list[str]:
    """Labels made unique: the second `prune` is `prune_2`."""
    out: list[str] = []
    for item in items:
        name, n = label(item), 1
        while name in out:
            n += 1
            name = f"{label(item)}_{n}"
        out.append(name)
    return out


def resolve(tree: Any, choose: Chooser, path: str = "") -> Any:
    """Fill every hole of `tree` with what `choose(path, domain)` gives.
    The walk that all else is made of."""
    if isinstance(tree, Domain):
        value = tree.check(choose(path, tree), path)
        return tree.build(value, [resolve(part, choose, p) for part, p in tree.branches(value, path)])
    if isinstance(tree, Node):
        return tree.rebuild([resolve(part, choose, p) for part, p in tree.parts(path)])
    if isinstance(tree, tuple):
        return tuple(resolve(part, choose, f"{path}[{i}]") for i, part in enumerate(tree))
    return tree


def holes(
    tree: Any, path: str = "", when: tuple[tuple[str, Any], ...] = ()
) -> Iterator[tuple[str, Domain, tuple[tuple[str, Any], ...]]]:
    """Every hole on every branch: (path, domain, the choices under which it is alive)."""
    if isinstance(tree, Domain):
        yield path, tree, when
        branching = tree.options(2) or []
        seen: set[str] = set()
        for value in branching:
            for part, p in tree.branches(value, path):
                key = f"{p}"
                if key in seen:
                    continue  # an order has the same parts whatever the order
                seen.add(key)
                alive = when if tree.tag == "order" else (*when, (path, value))
                yield from holes(part, p, alive)
    elif isinstance(tree, Node):
        for part, p in tree.parts(path):
            yield from holes(part, p, when)
    elif isinstance(tree, tuple):
        for i, part in enumerate(tree):
            yield from holes(part, f"{path}[{i}]", when)


def is_filled(tree: Any) -> bool:
    return next(holes(tree), None) is None


def require_filled(tree: Any, what: str) -> None:
    """RecipeError that names the first open hole, if there is one."""
    first = next(holes(tree), None)
    if first is not None:
        raise RecipeError(
            f"{what} still has holes", got=f"{first[0]} = {first[1]}", fix="fill it first: recipe.fill({...})"
        )
