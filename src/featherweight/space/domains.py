"""The five domains: Float, Int, Choice, Maybe, Order."""

from __future__ import annotations

import math
from abc import abstractmethod
from itertools import islice, permutations
from typing import Any, ClassVar

from ..errors import InputError
from .node import SCALARS, Domain, Node, join, labels

_MOST = 2**53  # whole numbers up to here are exact as floats, and so in any JSON reader


def _bad(path: str, value: Any, allowed: str) -> InputError:
    return InputError(f"{path or 'the value'} is out of its range", got=repr(value), allowed=allowed)


class _Frozen(Domain):
    """Equality, hash and repr from the JSON form; no assignment after construction."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.tag, self._key()))

    def _key(self) -> tuple[Any, ...]:
        return tuple(self.__dict__.values())

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items() if not k.startswith("_") and v is not None)
        return f"{type(self).__name__}({inside})"


class _Number(_Frozen):
    low: Any
    high: Any
    log: bool
    step: Any

    def _count(self) -> int | None:
        """Number of values, or None if continuous."""
        if self.low == self.high:
            return 1
        return None if self.step is None else int(math.floor((self.high - self.low) / self.step + 1e-9)) + 1

    def count(self, points: int | None) -> float:
        """How many `options(points)` there are, without listing them;
        `math.inf` if continuous and `points` is None."""
        n = self._count()
        if points is None or (n is not None and n <= points):
            return math.inf if n is None else n
        return len(self.options(points) or [])

    def nth(self, index: int, points: int | None) -> Any:
        """`options(points)[index]`, without listing them where all values count."""
        n = self._count()
        if n is not None and (points is None or n <= points):
            return self._at(index)
        return (self.options(points) or [])[index]

    @abstractmethod
    def _at(self, i: int) -> Any:
        """The value of index `i`, where there is a step."""

    def _unit(self, u: float) -> float:
        """A point of [0, 1] mapped to [low, high], evenly in the logarithm if `log`."""
        if self.log:
            return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return float(self.low + u * (self.high - self.low))

    def position(self, value: float) -> float:
        """Where `value` lies between low (0) and high (1), in the logarithm if `log`.
        The inverse of `_unit`."""
        if self.high == self.low:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def options(self, points: int | None) -> list[Any] | None:
        n = self._count()
        if n is not None and (points is None or n <= points or not self.log):
            if points is None or n <= points:
                return [self._at(i) for i in range(n)]
            return [self._at(round(i * (n - 1) / (points - 1))) for i in range(points)] if points > 1 else [self._at(0)]
        if points is None:
            return None
        raw = [self._unit(i / (points - 1)) for i in range(points)] if points > 1 else [self._unit(0.5)]
        return list(dict.fromkeys(self.check(min(max(v, self.low), self.high), "", snap=True) for v in raw))

    @abstractmethod
    def check(self, value: Any, path: str, snap: bool = False) -> Any:
        """`snap`: take the nearest value of the domain instead of refusing one
        between two steps."""

    def __str__(self) -> str:
        plain = self.step is None or (isinstance(self, Int) and self.step == 1)
        how = ", even in the logarithm" if self.log else "" if plain else f" in steps of {self.step:g}"
        return f"{'a whole number' if isinstance(self, Int) else 'a number'} from {self.low:g} to {self.high:g}{how}"

    def to_json(self) -> Any:
        out: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.log:
            out["log"] = True
        if self.step is not None and not (isinstance(self, Int) and self.step == 1):
            out["step"] = self.step
        return out


class Float(_Number):
    """A real number in [low, high]; `log`: uniform in the logarithm; `step`:
    only low, low+step, ..."""

    tag: ClassVar[str] = "float"

    def __init__(self, low: float, high: float, *, log: bool = False, step: float | None = None) -> None:
        numbers = all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= 1e300
            for v in (low, high, 1 if step is None else step)
        )
        if (
            not numbers
            or not isinstance(log, bool)
            or low > high
            or (log and low <= 0)
            or (step is not None and (step <= 0 or (high - low) / step > _MOST))
        ):
            raise InputError(
                "a Float needs finite low <= high, low > 0 if log, step > 0 (and not absurdly small)",
                got=f"low={low}, high={high}, log={log}, step={step}",
            )
        if log and step is not None:
            raise InputError("a Float has either log or step", got=f"log={log}, step={step}", fix="drop one of them")
        self._set(low=float(low) + 0.0, high=float(high) + 0.0, log=log, step=None if step is None else float(step))

    def _at(self, i: int) -> float:
        """low + i step, without the last digits that addition leaves
        (0.1 * 3 = 0.30000000000000004)."""
        if i == 0 or self.step is None:
            return float(self.low)
        digits = 12 - math.floor(math.log10(max(abs(self.low), abs(self.high), self.step)))
        return float(min(max(round(self.low + i * self.step, digits), self.low), self.high)) + 0.0

    def check(self, value: Any, path: str, snap: bool = False) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise _bad(path, value, f"a number in [{self.low}, {self.high}]")
        if self.step is None:
            return float(value) + 0.0
        i = min(round((value - self.low) / self.step), (self._count() or 1) - 1)
        if not snap and abs(self._at(i) - value) > 1e-9 * max(self.step, abs(value)):
            raise _bad(path, value, f"{self.low} plus a multiple of {self.step}, up to {self.high}")
        return self._at(i)

    def sample(self, rng: Any) -> float:
        n = self._count()
        if n is not None:
            return self._at(int(rng.integers(n)))
        return float(min(max(self._unit(float(rng.random())), self.low), self.high))

    def near(self, value: Any) -> list[Any]:
        if self.step is not None:
            i = round((value - self.low) / self.step)
            n = self._count() or 1
            return [self._at(j) for j in (i + 1, i - 1, i + 3, i - 3) if 0 <= j < n]
        u = self.position(value)
        around = [self._unit(min(max(u + d, 0.0), 1.0)) for d in (0.1, -0.1, 0.03, -0.03)]
        return list(dict.fromkeys(v for w in around if (v := min(max(w, self.low), self.high)) != value))


class Int(_Number):
    """A whole number in [low, high], every `step`; `log`: uniform in the logarithm."""

    tag: ClassVar[str] = "int"

    def __init__(self, low: int, high: int, *, log: bool = False, step: int = 1) -> None:
        whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (low, high, step))
        if (
            not whole
            or not isinstance(log, bool)
            or not -_MOST <= low <= high <= _MOST
            or not 1 <= step <= _MOST
            or (log and low < 1)
        ):
            raise InputError(
                "an Int needs whole low <= high (below 2^53), step >= 1, and low >= 1 if log",
                got=f"low={low}, high={high}, log={log}, step={step}",
            )
        self._set(low=low, high=high, log=log, step=step)

    def _at(self, i: int) -> int:
        return int(self.low + i * self.step)

    def check(self, value: Any, path: str, snap: bool = False) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise _bad(path, value, f"a whole number in [{self.low}, {self.high}]")
        i = min(round((value - self.low) / self.step), (self._count() or 1) - 1)
        if not snap and self._at(i) != value:
            raise _bad(path, value, f"{self.low} plus a multiple of {self.step}, up to {self.high}")
        return self._at(i)

    def sample(self, rng: Any) -> int:
        if not self.log:
            return self._at(int(rng.integers(self._count())))
        return self.check(min(max(self._unit(float(rng.random())), self.low), self.high), "", snap=True)

    def near(self, value: Any) -> list[Any]:
        i, n = round((value - self.low) / self.step), self._count() or 1
        hop = max(2, n // 5)
        return [self._at(j) for j in dict.fromkeys((i + 1, i - 1, i + hop, i - hop)) if 0 <= j < n]


class Choice(_Frozen):
    """One of several options: JSON scalars, or nodes and recipes (which may have
    holes of their own).

    The value of the hole is the scalar itself, or the label of a structured option
    (`prune`, `prune_2`).
    """

    tag: ClassVar[str] = "choice"

    def __init__(self, *options: Any, name: str | None = None) -> None:
        if not options:
            raise InputError("a Choice needs at least one option", got="none")
        if name is not None and not (isinstance(name, str) and name.isidentifier()):
            raise InputError(
                "a Choice's name is a word, because it stands in paths", got=repr(name), allowed="letters, digits and _"
            )
        options = tuple(_item(o, "a Choice") for o in options)
        structured = [o for o in options if not isinstance(o, SCALARS)]
        names = iter(labels(structured))
        table = {}
        for o in options:
            key = _scalar_key(o) if isinstance(o, SCALARS) else next(names)
            if key in table:
                raise InputError("a Choice has each option once", got=repr(o), fix="remove the repeated option")
            table[key] = o
        self._set(items=options, name=name, _table=table)

    def _key(self) -> tuple[Any, ...]:
        return (tuple(_scalar_key(o) if isinstance(o, SCALARS) else o for o in self.items), self.name)

    items: tuple[Any, ...]
    name: str | None
    _table: dict[Any, Any]

    def options(self, points: int | None) -> list[Any] | None:
        return [o if isinstance(o, SCALARS) else key for key, o in self._table.items()]

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.options(None) or []))

    def check(self, value: Any, path: str) -> Any:
        key = _scalar_key(value) if isinstance(value, SCALARS) else None
        if key not in self._table and isinstance(value, str) and value in self._table:
            key = value
        if key is None or key not in self._table:
            raise _bad(path, value, ", ".join(repr(o) for o in self.options(None) or []))
        option = self._table[key]
        return option if isinstance(option, SCALARS) else key

    def sample(self, rng: Any) -> Any:
        values = self.options(None) or []
        return values[int(rng.integers(len(values)))]

    def near(self, value: Any) -> list[Any]:
        """Numbers keep their order (the neighbours of 4 in 1, 2, 4, 8 are 8 and 2);
        names are all equally near."""
        values = self.options(None) or []
        others = [v for v in values if _scalar_key(v) != _scalar_key(value)]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            ranked = sorted(values)
            i = ranked.index(value)
            return sorted(others, key=lambda v: abs(ranked.index(v) - i))
        return others

    def branches(self, value: Any, path: str) -> list[tuple[Any, str]]:
        option = self._table.get(value) if isinstance(value, str) else None
        return [] if option is None or isinstance(option, SCALARS) else [(option, join(path, value))]

    def build(self, value: Any, parts: list[Any]) -> Any:
        return parts[0] if parts else value

    def to_json(self) -> Any:
        return list(self.items) if self.name is None else {"options": list(self.items), "name": self.name}


def _item(value: Any, what: str) -> Any:
    """An option or a part of a domain in its canonical form:
    lists become tuples, -0.0 becomes 0.0."""
    if isinstance(value, (list, tuple)):
        return tuple(_item(v, what) for v in value)
    if isinstance(value, float):
        value = float(value) + 0.0
    if not isinstance(value, (*SCALARS, Domain, Node)) or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(
            f"{what} cannot hold this",
            got=f"{type(value).__name__}: {value!r}",
            allowed="a finite number, text, true/false, none, a list, a transform, a recipe or another hole",
        )
    return value


def _scalar_key(value: Any) -> Any:
    """1, 1.0 and True are different options; text is its own key."""
    return value if isinstance(value, str) else (type(value).__name__, value)


class Maybe(_Frozen):
    """A step or a value that may be left out. The hole is true or false;
    what is inside lives only when it is true."""

    tag: ClassVar[str] = "maybe"
    item: Any

    def __init__(self, item: Any) -> None:
        if item is None or isinstance(item, Maybe):
            raise InputError("a Maybe holds a step, a value or another kind of hole", got=repr(item))
        self._set(item=_item(item, "a Maybe"))

    def _key(self) -> tuple[Any, ...]:
        return (_scalar_key(self.item) if isinstance(self.item, SCALARS) else self.item,)

    def options(self, points: int | None) -> list[Any] | None:
        return [False, True]

    def __str__(self) -> str:
        return "there (true) or left out (false)"

    def check(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool):
            raise _bad(path, value, "true (there) or false (left out)")
        return value

    def sample(self, rng: Any) -> bool:
        return bool(rng.integers(2))

    def near(self, value: Any) -> list[Any]:
        return [not value]

    def branches(self, value: Any, path: str) -> list[tuple[Any, str]]:
        if not value:
            return []
        return [(self.item, join(path, "value") if isinstance(self.item, Domain) else path)]

    def build(self, value: Any, parts: list[Any]) -> Any:
        return parts[0] if value else None

    def to_json(self) -> Any:
        return self.item


class Order(_Frozen):
    """Steps whose order is open. The value is the order of their labels:
    `prune>distill>quantize`."""

    tag: ClassVar[str] = "order"
    items: tuple[Any, ...]
    _names: tuple[str, ...]

    def __init__(self, *items: Any) -> None:
        if len(items) < 2 or len(items) > 8:
            raise InputError("an Order has 2 to 8 items", got=len(items))
        items = tuple(_item(i, "an Order") for i in items)
        names = tuple(labels(items))
        if any(">" in n for n in names):
            raise InputError(
                "an Order's items cannot have '>' in their names, which separates them", got=", ".join(names)
            )
        self._set(items=items, _names=names)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of the items, as written."""
        return self._names

    def nth(self, index: int) -> str:
        """The order of rank `index` among all, counted as `options` lists them
        (factorial number system)."""
        names, out = list(self._names), []
        for left in range(len(names) - 1, -1, -1):
            i, index = divmod(index, math.factorial(left))
            out.append(names.pop(i))
        return ">".join(out)

    def options(self, points: int | None) -> list[Any] | None:
        return [">".join(p) for p in islice(permutations(self._names), points)]

    def __str__(self) -> str:
        return f"an order of {', '.join(self._names)}"

    def check(self, value: Any, path: str) -> str:
        if not isinstance(value, str) or sorted(value.split(">")) != sorted(self._names):
            raise _bad(path, value, f"each of these once, joined by '>': {', '.join(self._names)}")
        return value

    def sample(self, rng: Any) -> str:
        return ">".join(self._names[int(i)] for i in rng.permutation(len(self._names)))

    def near(self, value: Any) -> list[Any]:
        names = value.split(">")
        swaps = [[*names[:i], names[i + 1], names[i], *names[i + 2 :]] for i in range(len(names) - 1)]
        return [">".join(s) for s in swaps]

    def branches(self, value: Any, path: str) -> list[tuple[Any, str]]:
        return [(item, join(path, name)) for item, name in zip(self.items, self._names, strict=True)]

    def build(self, value: Any, parts: list[Any]) -> Any:
        by_name = dict(zip(self._names, parts, strict=True))
        return tuple(by_name[name] for name in value.split(">"))

    def to_json(self) -> Any:
        return list(self.items)
