"""Tables of texts and labels: csv, tsv, jsonl, parquet. What a file says, or unfolds to, is held to
limits before it is made: a parquet of 10 KB can hold a billion rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingExtra, TaskError
from ._delimited import read_delimited

TEXT_COLUMNS = ("text", "sentence", "content", "body")
LABEL_COLUMNS = ("label", "class", "target", "category")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
MOST_ROWS, MOST_COLUMNS, LONGEST_TEXT = 10_000_000, 10_000, 1_000_000  # of a text: characters
_IN_MEMORY = 4  # bytes for each of a file's
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)(\.0*)?")  # "1.0" is 1; "01" is a name
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_DIGITS = 1000  # of a label that is compared as a number: Python reads no more than 4,300


@dataclass(frozen=True)
class Table:
    """The names of a table's columns, in order, and a function from one of them to its values."""

    names: Sequence[str]
    column: Callable[[str], list[Any]]


def labelled_texts(file: Path, text_column: str | None, label_column: str | None) -> tuple[list[str], list[str]]:
    """Texts and labels (as text), row by row. TaskError names the columns, or the rows,
    that cannot be used."""
    table = read_table(file)
    text_name = pick("text", text_column, TEXT_COLUMNS, table, file)
    label_name = pick("label", label_column, LABEL_COLUMNS, table, file)
    if text_name == label_name:
        raise TaskError("text and label are the same column", got=text_name, allowed=shown(table.names))
    return texts_of(file, table, text_name), labels_of(file, table, label_name)


def texts_of(file: Path, table: Table, text_column: str | None) -> list[str]:
    """The texts in a column. TaskError names the rows that have none that can be used."""
    text_name = pick("text", text_column, TEXT_COLUMNS, table, file)
    texts = table.column(text_name)
    if not texts:
        raise TaskError("the table has no rows", got=str(file))
    complain(
        file,
        f"no text in column {text_name!r}",
        [i for i, v in enumerate(texts) if not isinstance(v, str) or not v.strip()],
    )
    complain(
        file,
        f"a text of more than {LONGEST_TEXT:,} characters",
        [i for i, v in enumerate(texts) if len(v) > LONGEST_TEXT],
        "split or cut them",
    )
    check_memory(file, sum(map(len, texts)))
    _complain_of_odd(file, texts)
    return texts


def labels_of(file: Path, table: Table, name: str) -> list[str]:
    """The labels in a column, as text. TaskError names the rows that have none, and a column that
    does not look like classes."""
    labels = [label_text(v) for v in table.column(name)]
    if not labels:
        raise TaskError("the table has no rows", got=str(file))
    complain(file, f"no usable label in column {name!r}", [i for i, v in enumerate(labels) if v is None])
    _complain_of_odd(file, labels)
    found = _class_names(file, [v for v in labels if v is not None])
    if len(set(found)) > max(2, len(found) // 2):
        raise TaskError(
            "the label column does not look like classes",
            got=f"{name!r}: {len(set(found))} different values in {len(found)} rows",
            allowed=f"columns: {shown(table.names)}",
            fix="name the column of the classes with label_column",
        )
    return found


def class_numbers(labels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The number of each label's class, int64 [n], and the classes' names in order."""
    classes = sorted_labels(labels)
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[v] for v in labels], dtype=np.int64), classes


def sorted_labels(labels: Sequence[str]) -> list[str]:
    """The distinct labels: as numbers if all are whole numbers, else as text."""
    found = sorted(set(labels))
    return sorted(found, key=Decimal) if all(re.fullmatch(r"-?\d+", v) for v in found) else found


def names_of(file: Path, table: Table, name: str, what: str) -> list[str]:
    """The texts or whole numbers in a column, as text. TaskError names the rows that have none."""
    found = [label_text(v) for v in table.column(name)]
    complain(file, f"no {what} in column {name!r}", [i for i, v in enumerate(found) if v is None])
    _complain_of_odd(file, found)
    return [v for v in found if v is not None]


def _complain_of_odd(file: Path, texts: Sequence[str | None]) -> None:
    odd = [i for i, text in enumerate(texts) if not encodable(text)]
    complain(file, "text that is no Unicode (half of a surrogate pair)", odd, "write the table again, as UTF-8")


def encodable(text: str | None) -> bool:
    """JSON can say characters that do not exist."""
    try:
        return text is None or text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def shown(names: Iterable[str]) -> str:
    return ", ".join(names)[:500]


def read_table(file: Path, lists: bool = False) -> Table:
    """A .csv, .tsv, .jsonl or .parquet file. lists: a cell may be a list of plain values. TaskError
    if it cannot be read, or is too large."""
    if not file.is_file():
        raise TaskError(
            "there is no such data file", got=str(file), allowed=f"a file that ends in {', '.join(SUFFIXES)}"
        )
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise TaskError("this data file has an unknown format", got=file.name, allowed=", ".join(SUFFIXES))
    if suffix == ".parquet":
        return _read_parquet(file, lists)
    check_memory(file, file.stat().st_size)
    if suffix == ".jsonl":
        return _read_jsonl(file)
    place, rows = read_delimited(file)
    _check_counts(file, len(rows), len(place))
    # every cell is text: "None" and "NA" are words here, and "01" is no number
    return Table(list(place), lambda name: [row[place[name]] or None for row in rows])


def _check_counts(file: Path, rows: int, columns: int) -> None:
    if rows > MOST_ROWS or columns > MOST_COLUMNS:
        raise TaskError(
            "the data file is too large",
            got=f"{file}: {rows:,} rows, {columns:,} columns",
            allowed=f"{MOST_ROWS:,} rows, {MOST_COLUMNS:,} columns",
            fix="give a sample of the rows, with the text and the label",
        )


def check_memory(file: Path, size_bytes: int) -> None:
    """TaskError if what these bytes become is more than there is room for."""
    import psutil

    free = int(psutil.virtual_memory().available)
    if _IN_MEMORY * size_bytes > free:
        raise TaskError(
            "the data file is too large for this machine's memory",
            got=f"{file}: {size_bytes:,} bytes as it unfolds, for which {_IN_MEMORY} times as many are needed",
            allowed=f"{free:,} bytes are free",
            fix="give a sample of the rows",
        )


def _read_parquet(file: Path, lists: bool = False) -> Table:
    """Columns of plain values, each read on its own and in pieces."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise MissingExtra("pyarrow", "llm") from e

    def failed(e: Exception) -> TaskError:
        return TaskError("the data file cannot be read", got=f"{file}: {e}"[:500], allowed="parquet")

    # OverflowError: dates and times that Python has none of
    broken = (ValueError, OSError, LookupError, ArithmeticError, RecursionError, pa.ArrowException)
    try:
        found = pq.ParquetFile(file)
        meta, schema = found.metadata, found.schema_arrow
    except broken as e:
        raise failed(e) from e
    _check_counts(file, meta.num_rows, meta.num_columns)
    names = [n for n in schema.names if not n.startswith("__index_level_")]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise TaskError(
            f"{file.name} has columns with the same name",
            got=", ".join(map(repr, twice))[:500],
            allowed=f"names that differ: {shown(names)}",
            fix="rename them, or leave one out",
        )

    def column(name: str) -> list[Any]:
        kind = schema.field(name).type
        if not _plain(kind.value_type if lists and _is_list(kind) else kind):
            bytes_ = "binary" in str(kind)
            raise TaskError(
                "a column holds bytes, of which nobody says what text they are"
                if bytes_
                else "a column is neither text nor a number",
                got=f"{file}: {name!r}, {kind}",
                allowed="text, whole and other numbers, true and false, dates",
                fix="write it as text: table.set_column(.., column.cast(pa.string())) if it is UTF-8"
                if bytes_
                else None,
            )
        leaf = schema.names.index(name) if meta.num_columns == len(schema.names) else None
        if leaf is not None:
            groups = range(meta.num_row_groups)
            check_memory(file, sum(meta.row_group(g).column(leaf).total_uncompressed_size for g in groups))
        values: list[Any] = []
        try:
            # a text that is repeated is stored once, and stays so: a row more is a number more
            with pq.ParquetFile(file, read_dictionary=[name] if _is_text(kind) else None) as column:
                for piece in column.iter_batches(batch_size=16_384, columns=[name]):
                    part = piece.column(0)
                    if pa.types.is_dictionary(part.type):
                        words = part.dictionary.to_pylist()
                        values += [None if i is None else words[i] for i in part.indices.to_pylist()]
                    else:
                        values += [None if v != v else v for v in part.to_pylist()]
        except broken as e:
            raise failed(e) from e
        return values

    return Table(names, column)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as t

    view = getattr(t, "is_string_view", None)  # of pyarrow 16 and later
    return bool(t.is_string(kind) or t.is_large_string(kind) or view is not None and view(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind))


def _plain(kind: Any) -> bool:
    import pyarrow.types as t

    kind = kind.value_type if t.is_dictionary(kind) else kind
    text = _is_text(kind)
    number = t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind)
    return bool(text or number or t.is_temporal(kind) or t.is_null(kind))


def _read_jsonl(file: Path) -> Table:
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line, object_pairs_hook=_once)
                if not isinstance(row, dict):
                    raise TaskError(
                        "a line is no JSON object",
                        got=f"{file}:{number}: {line[:80]}",
                        allowed='{"text": "...", "label": "..."}',
                    )
                rows.append(row)
                names.update(dict.fromkeys(row))
                _check_counts(file, len(rows), len(names))
    except (OSError, ValueError, RecursionError) as e:
        raise TaskError(
            "the data file cannot be read",
            got=f"{file}, line {len(rows) + 1} or later: {e}",
            allowed="one JSON object a line, UTF-8",
        ) from e
    return Table(list(names), lambda name: [row.get(name) for row in rows])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. ValueError if a key stands twice: of two values one would be dropped without a
    word."""
    if len(found := dict(pairs)) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r:.80} stands twice")
    return found


def label_text(value: Any) -> str | None:
    """The label as text: 1.0 is "1"; None if it is missing or cannot be a class."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if value is None or isinstance(value, (list, dict)) or not str(value).strip():
        return None
    return str(value).strip()


def _class_names(file: Path, labels: list[str]) -> list[str]:
    """The labels, in which "1.0" is "1" if all are whole numbers. TaskError for two other labels
    that are one number: are they one class?"""
    kinds = dict.fromkeys(labels)
    if all(len(v) <= _DIGITS and _WHOLE.fullmatch(v) for v in kinds):
        return [str(int(v.partition(".")[0])) for v in labels]
    named: dict[Decimal, str] = {}
    for v in kinds:
        # exactly: as floats, two long ones are one
        if len(v) <= _DIGITS and _NUMBER.fullmatch(v) and named.setdefault(Decimal(v), v) != v:
            raise TaskError(
                f"{file.name} has two labels that are the same number",
                got=f"{named[Decimal(v)]!r:.80} and {v!r:.80}",
                allowed="one way to write a class",
                fix="write them alike, or as names",
            )
    return labels


def pick(what: str, given: str | None, usual: Sequence[str], table: Table, file: Path) -> str:
    """The column named, or the first of the usual names that the table has (in any case)."""
    if given is not None:
        if given not in table.names:
            raise TaskError(
                f"{file.name} has no column {given!r}",
                got=f"{what}_column={given!r}",
                allowed=f"columns: {shown(table.names)}",
            )
        return given
    by_lower = {name.strip().lower(): name for name in reversed(table.names)}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    raise TaskError(
        f"{file.name} has no column that is surely the {what}",
        got=f"columns: {shown(table.names)}",
        allowed=f"a column called {', '.join(usual)}",
        fix=f"name it with {what}_column",
    )


def complain(file: Path, what: str, rows: list[int], fix: str = "fill or remove them") -> None:
    if rows:
        said = ", ".join(str(r + 1) for r in rows[:10]) + (", ..." if len(rows) > 10 else "")
        raise TaskError(
            f"{file.name} has rows with {what}",
            got=f"{len(rows)}: rows {said} (the first row of data is 1)",
            fix=fix,
        )
