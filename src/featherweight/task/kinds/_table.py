"""Tables of texts and labels: csv, tsv, jsonl, parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import MissingExtra, TaskError
from ._delimited import read_delimited

TEXT_COLUMNS = ("text", "sentence", "content", "body")
LABEL_COLUMNS = ("label", "class", "target", "category")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
Columns = dict[str, list[Any]]
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)(\.0*)?")  # "1.0" is 1; "01" is a name
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def labelled_texts(file: Path, text_column: str | None, label_column: str | None) -> tuple[list[str], list[str]]:
    """Texts and labels (as text), row by row. TaskError names the columns, or the rows,
    that cannot be used."""
    table = read_table(file)
    text_name = _pick("text", text_column, TEXT_COLUMNS, table, file)
    label_name = _pick("label", label_column, LABEL_COLUMNS, table, file)
    if text_name == label_name:
        raise TaskError("text and label are the same column", got=text_name, allowed=", ".join(table))
    texts, labels = table[text_name], [_label(v) for v in table[label_name]]
    if not texts:
        raise TaskError("the table has no rows", got=str(file))
    _complain(
        file,
        f"no text in column {text_name!r}",
        [i for i, v in enumerate(texts) if not isinstance(v, str) or not v.strip()],
    )
    _complain(file, f"no usable label in column {label_name!r}", [i for i, v in enumerate(labels) if v is None])
    found = _classes(file, [v for v in labels if v is not None])
    if len(set(found)) > max(2, len(found) // 2):
        raise TaskError(
            "the label column does not look like classes",
            got=f"{label_name!r}: {len(set(found))} different values in {len(found)} rows",
            allowed=f"columns: {', '.join(table)}",
            fix="name the column of the classes with label_column",
        )
    return [str(t) for t in texts], found


def read_table(file: Path) -> Columns:
    """{column name: values} of a .csv, .tsv, .jsonl or .parquet file."""
    if not file.is_file():
        raise TaskError(
            "there is no such data file", got=str(file), allowed=f"a file that ends in {', '.join(SUFFIXES)}"
        )
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise TaskError("this data file has an unknown format", got=file.name, allowed=", ".join(SUFFIXES))
    if suffix == ".jsonl":
        return _read_jsonl(file)
    if suffix != ".parquet":  # every cell is text: "None" and "NA" are words here, and "01" is no number
        return dict(read_delimited(file))
    import pandas as pd

    try:
        frame = pd.read_parquet(file)
    except ImportError as e:
        raise MissingExtra("pyarrow", "llm") from e
    except (ValueError, OSError) as e:
        raise TaskError("the data file cannot be read", got=f"{file}: {e}", allowed="parquet") from e
    return {str(name): [None if v is None or v != v else v for v in frame[name].tolist()] for name in frame.columns}


def _read_jsonl(file: Path) -> Columns:
    rows: list[dict[str, Any]] = []
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TaskError(
                        "a line is no JSON object",
                        got=f"{file}:{number}: {line[:80]}",
                        allowed='{"text": "...", "label": "..."}',
                    )
                rows.append(row)
    except (OSError, ValueError) as e:
        raise TaskError(
            "the data file cannot be read",
            got=f"{file}, line {len(rows) + 1} or later: {e}",
            allowed="one JSON object a line, UTF-8",
        ) from e
    names = dict.fromkeys(str(k) for row in rows for k in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _label(value: Any) -> str | None:
    """The label as text: 1.0 is "1"; None if it is missing or cannot be a class."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if value is None or isinstance(value, (list, dict)) or not str(value).strip():
        return None
    return str(value).strip()


def _classes(file: Path, labels: list[str]) -> list[str]:
    """The labels, in which "1.0" is "1" if all are whole numbers. TaskError for two other labels
    that are one number: are they one class?"""
    if all(_WHOLE.fullmatch(v) for v in labels):
        return [str(int(v.partition(".")[0])) for v in labels]
    named: dict[float, str] = {}
    for v in dict.fromkeys(labels):
        if _NUMBER.fullmatch(v) and named.setdefault(float(v), v) != v:
            raise TaskError(
                f"{file.name} has two labels that are the same number",
                got=f"{named[float(v)]!r} and {v!r}",
                allowed="one way to write a class",
                fix="write them alike, or as names",
            )
    return labels


def _pick(what: str, given: str | None, usual: Sequence[str], table: Columns, file: Path) -> str:
    """The column named, or the first of the usual names that the table has (in any case)."""
    if given is not None:
        if given not in table:
            raise TaskError(
                f"{file.name} has no column {given!r}",
                got=f"{what}_column={given!r}",
                allowed=f"columns: {', '.join(table)}",
            )
        return given
    by_lower = {name.strip().lower(): name for name in reversed(list(table))}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    raise TaskError(
        f"{file.name} has no column that is surely the {what}",
        got=f"columns: {', '.join(table)}",
        allowed=f"a column called {', '.join(usual)}",
        fix=f"name it with {what}_column",
    )


def _complain(file: Path, what: str, rows: list[int]) -> None:
    if rows:
        shown = ", ".join(str(r + 1) for r in rows[:10]) + (", ..." if len(rows) > 10 else "")
        raise TaskError(
            f"{file.name} has rows with {what}",
            got=f"{len(rows)}: rows {shown} (the first row of data is 1)",
            fix="fill or remove them",
        )
