"""The columns of a table as inputs of a model: which are numbers, dates and categories, and what
the training split says of them.

What a column is goes by the whole file; what numbers are made of it (means, deviations, the list of
its values) by the rows of the training split alone, once it is cut.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.predict import columns, day, number_of, text_of
from ...errors import TaskError
from ..data import ArraySplit, Splits, Subset
from ..fronts.widths import widths
from ..rounding import blurred
from ..splitting import split
from ._table import Table, encodable

MOST_VALUES = 1000  # of a column of categories: those that are there most often
LEAST_SEEN = 2  # rows of the training split that have a value, for it to count as one
_MANY = 20  # values that any column of texts may have
_CODE = re.compile(r"0[0-9]+")  # as postal codes have it: no number


@dataclass(frozen=True)
class Column:
    """kind: number, date or category; missing: has some row no value?"""

    name: str
    kind: str
    missing: bool


@dataclass(frozen=True)
class Prepared:
    """how: the columns as `deploy.predict.columns` takes them; deviation: of each of numbers, as
    the model is given it; units: mean and deviation of targets that are numbers."""

    splits: Splits
    how: list[dict[str, Any]]
    deviation: tuple[float, ...]
    units: tuple[float, float] | None

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the numbers as the model is given them."""
        numbers = [c for c in self.how if c["type"] != "category"]
        return tuple((c["fill"] - c.get("origin", 0.0)) / c.get("unit", 1.0) for c in numbers)

    @property
    def missing(self) -> int:
        return sum(c.get("missing", False) for c in self.how)

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(len(c["values"]) + 1 for c in self.how if c["type"] == "category")

    def features(self, widest: int) -> int:
        """Numbers that a net is given of a row."""
        return len(self.mean) + self.missing + sum(width for _, width in widths(self.values, widest))


def described(
    file: Path, table: Table, names: Sequence[str], categorical: Sequence[str]
) -> tuple[list[Column], tuple[str, ...]]:
    """What each of these columns is, numbers that may be missing first, and which are left out, and
    why. TaskError for a column that is neither."""
    found: list[Column] = []
    left: list[str] = []
    for name in names:
        cells = table.column(name)
        made = _describe(file, name, cells, name in categorical)
        if isinstance(made, str):
            left.append(f"{name!r} ({made})")
        else:
            found.append(made)
    if not found:
        raise TaskError(f"{file.name} has no column to learn from", got="; ".join(left)[:500] or "none but the target")
    found.sort(key=lambda c: (c.kind == "category", not c.missing))  # else in the file's order
    return found, (f"left out of the inputs: {', '.join(left)}"[:500],) if left else ()


def _describe(file: Path, name: str, cells: list[Any], category: bool) -> Column | str:
    """The column, or why it is left out."""
    texts = [text_of(c) for c in cells]
    present = [i for i, t in enumerate(texts) if t is not None]
    missing, values = len(present) < len(cells), {texts[i] for i in present}
    if any(isinstance(cells[i], (list, dict)) for i in present):
        raise TaskError(f"column {name!r} of {file.name} has lists in it", allowed="text, numbers, dates")
    if not all(encodable(t) for t in values):
        raise TaskError(f"column {name!r} of {file.name} has text that is no Unicode", fix="write it again, as UTF-8")
    if len(values) + missing < 2:
        return "always the same" if present else "empty"
    numbers = [number_of(cells[i]) for i in present]
    n = sum(v is not None for v in numbers)
    coded = any(_CODE.fullmatch(t) for t in values if t is not None)
    if n == len(present) and not category and not coded:
        steps = {b - a for a, b in zip(numbers, numbers[1:], strict=False)}  # type: ignore[operator]
        return (
            "counts the rows" if not missing and len(cells) > 2 and steps == {1.0} else Column(name, "number", missing)
        )
    if n == 0 and not category and all(day(cells[i]) is not None for i in present):
        return Column(name, "date", missing)
    if len(present) / 2 < n < len(present) and not category and not coded:
        odd = [i for i, v in zip(present, numbers, strict=True) if v is None]
        raise TaskError(
            f"column {name!r} of {file.name} is numbers in most rows, and in others not",
            got="; ".join(f"row {i + 1}: {texts[i]!r:.40}" for i in odd[:5]) + (", .." if len(odd) > 5 else ""),
            allowed="numbers, or nothing where there is none",
            fix=f"mend these cells, or say that it holds names: categorical={name}",
        )
    if len(values) > max(_MANY, len(cells) / 2) and not category:
        return "another text in nearly every row"
    return Column(name, "category", missing)


def prepared(
    found: list[Column],
    table: Table,
    targets: np.ndarray,
    classes: Sequence[str] | None,
    groups: Sequence[str] | None,
    seed: int,
) -> Prepared:
    """The splits, cut by what the file says, and then made with what the training split says."""
    cells = {c.name: table.column(c.name) for c in found}
    texts = {c.name: [text_of(v) for v in cells[c.name]] for c in found if c.kind == "category"}
    raw = [
        {"name": c.name, "type": c.kind, "values": sorted({t for t in texts[c.name] if t is not None})}
        if c.kind == "category"
        else {"name": c.name, "type": c.kind, "missing": c.missing, **_placed(_known(c, cells[c.name])), "fill": 0.0}
        for c in found
    ]
    cut = split(ArraySplit(columns(cells, raw), targets, classes), seed=seed, groups=groups)
    train = _rows(cut.train)
    how, deviation = [], []
    for column, given in zip(found, raw, strict=True):
        if column.kind == "category":
            counts = Counter(t for i in train.tolist() if (t := texts[column.name][i]) is not None)
            kept = [t for t, n in sorted(counts.items(), key=lambda v: (-v[1], v[0])) if n >= LEAST_SEEN]
            how.append({**given, "values": kept[:MOST_VALUES]})
            continue
        known = _known(column, [cells[column.name][i] for i in train.tolist()])
        place = _placed(known)
        how.append({"name": column.name, "type": column.kind, "missing": column.missing, **place})
        how[-1]["fill"] = float(known.mean())
        deviation.append(1.0 if place else float(known.std()))
    whole = ArraySplit(columns(cells, how), targets, classes)
    parts = [Subset(whole, _rows(part)) for part in (cut.train, cut.valid, cut.test)]
    units = None
    if classes is None:
        units = float(targets[train].mean(dtype=np.float64)), float(targets[train].std(dtype=np.float64))
    made = replace(cut, train=parts[0], valid=parts[1], test=parts[2])
    return Prepared(made, how, tuple(deviation), units)


def _known(column: Column, cells: Sequence[Any]) -> np.ndarray:
    """The numbers that there are, float64; a zero if there is none."""
    of = day if column.kind == "date" else number_of
    return np.array([v for cell in cells if (v := of(cell)) is not None] or [0.0])


def _placed(known: np.ndarray) -> dict[str, float]:
    """Where float32 would blur how the numbers differ, what is taken off them, and what they are
    divided by, before they are made float32; else nothing."""
    return {"origin": float(known.mean()), "unit": float(known.std())} if blurred(known) else {}


def _rows(part: Any) -> np.ndarray:
    index: np.ndarray = part.index
    return index
