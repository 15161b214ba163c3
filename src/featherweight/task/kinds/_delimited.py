"""Tables of text with a delimiter, .csv and .tsv: every row is found, or the line that cannot be
read is named.

Quotation marks are read strictly (RFC 4180): a field that begins with one ends with one, and one
inside it is doubled. A .tsv is often written without any quoting, so that a text may begin with a
mark which is never closed; a lenient reader then swallows all rows up to the next mark. So a .tsv
is read as quoted where that holds for every line by itself, else as it stands if each of its lines
has one field a column.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path

from ...errors import TaskError

TAB = "\t"
Rows = list[tuple[int, list[str]]]  # number of the first line, fields


def read_delimited(file: Path) -> tuple[dict[str, int], list[list[str]]]:
    """The place of each column by name, and the rows, of a .csv or .tsv file with a header line. Of
    columns without a name the first is taken. TaskError names the line that does not fit, another
    delimiter, or columns that have the same name."""
    tabs = file.suffix.lower() == ".tsv"
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:  # line ends inside a field stay
            text = opened.read()
    except (OSError, ValueError) as e:
        raise TaskError("the data file cannot be read", got=f"{file}: {e}", allowed="UTF-8 text") from e
    rows, problem = _tab_rows(text) if tabs else _quoted(text, ",")
    if not tabs and (problem is not None or rows and len(rows[0][1]) == 1) and (other := _delimiter(text)):
        raise TaskError(
            f"the columns of {file.name} are not separated by commas",
            got=f"{'tabs' if other == TAB else repr(other)} between them",
            allowed="commas in a .csv, tabs in a .tsv",
            fix="name it .tsv" if other == TAB else "write the table again with commas (as pandas' to_csv does)",
        )
    if problem is not None:
        raise TaskError(
            "the data file cannot be read",
            got=f"{file}, {problem}",
            allowed='fields that begin with a quotation mark end with one, and have "" for one inside'
            + ("; or a file without quoting, one line a row" if tabs else ""),
            fix="write the table again with a library (as pandas' to_csv), or mend this line",
        )
    if not rows:
        raise TaskError("the data file is empty", got=str(file), allowed="a header line, then one row a sample")
    (_, names), *body = rows
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    if twice := [name for i, name in enumerate(names) if name.strip() and first[name] != i]:
        raise TaskError(
            f"{file.name} has columns with the same name",
            got=", ".join(repr(name) for name in dict.fromkeys(twice))[:500],
            allowed=f"names that differ: {', '.join(names)}"[:500],
            fix="rename them in the header line",
        )
    for line, row in body:
        if len(row) != len(names):
            raise TaskError(
                f"{file.name} has a row that does not fit its header",
                got=f"line {line}: {len(row)} fields: {' | '.join(row)[:100]}",
                allowed=f"{len(names)} fields: {', '.join(names)}"[:500],
                fix="mend this line; a field that holds the delimiter stands between quotation marks",
            )
    return {name: first[name] for name in names}, [row for _, row in body]


def _delimiter(text: str) -> str | None:
    """What separates the columns, if it is no comma: that by which every line has as many fields,
    and more than one."""
    for delimiter in (";", TAB):
        rows, problem = _quoted(text, delimiter)
        if problem is None and rows and len(rows[0][1]) > 1 and len({len(row) for _, row in rows}) == 1:
            return delimiter
    return None


def _tab_rows(text: str) -> tuple[Rows, str | None]:
    """Quoted, if no quoted field goes on over several lines; else unquoted, if all lines have
    as many fields; else as quoted, whatever that gives."""
    rows, problem = _quoted(text, TAB)
    if problem is None and not any("\n" in field or "\r" in field for _, row in rows for field in row):
        return rows, None
    lines = enumerate(re.split("\r\n|\r|\n", text), 1)
    plain = [(n, row) for n, line in lines if _filled(row := line.split("\t"))]
    if len({len(row) for _, row in plain}) == 1:
        return plain, None
    return rows, problem


def _quoted(text: str, delimiter: str) -> tuple[Rows, str | None]:
    """The rows, without empty lines, and what is wrong with the quotation marks."""
    rows: Rows = []
    before = csv.field_size_limit(sys.maxsize)  # a text may be longer than the module's 128 KiB
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in lines:
            if _filled(row):
                rows.append((start, row))
            start = lines.line_num + 1
    except csv.Error as e:
        return rows, f"line {start}" + (f" to {lines.line_num}" if lines.line_num > start else "") + f": {e}"
    finally:
        csv.field_size_limit(before)
    return rows, None


def _filled(row: list[str]) -> bool:
    """Is there more in this line than space?"""
    return len(row) > 1 or bool(row and row[0].strip())
