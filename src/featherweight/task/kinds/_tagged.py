"""Sentences whose words have tags: CoNLL files, and tables of lists of words and tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import TaskError
from ._table import LONGEST_TEXT, MOST_ROWS, Table, check_memory, complain, encodable, label_text, pick, read_table

WORDS_COLUMNS = ("tokens", "words", "token", "word", "text", "sentence")
TAGS_COLUMNS = ("ner_tags", "tags", "labels", "ner", "tag", "label")
CONLL = (".conll", ".txt", ".bio", ".iob", ".iob2", ".ner", ".tsv")
TABLES = (".jsonl", ".parquet", ".csv", ".tsv")
_DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class Tagged:
    """Words and tags of each sentence, as many of each, and what is to be said of them. numbered:
    are tags whole numbers, and not names?"""

    words: list[list[str]]
    tags: list[list[str]]
    numbered: bool
    notes: tuple[str, ...] = ()


def tagged_sentences(file: Path, words_column: str | None, tags_column: str | None) -> Tagged:
    """Sentences of a CoNLL file (columns given by number, from 1; -1 is the last), or of a table
    whose cells are lists, or texts with a space between words. TaskError names what is wrong."""
    if not file.is_file():
        raise TaskError(
            "there is no such data file",
            got=str(file),
            allowed=f"CoNLL ({', '.join(CONLL)}), or a table ({', '.join(TABLES)})",
        )
    suffix = file.suffix.lower()
    if suffix in CONLL and not (suffix == ".tsv" and _has_header(file, words_column)):
        words, tags = _conll(file, words_column, tags_column)
    elif suffix in TABLES:
        words, tags = _of_table(file, read_table(file, lists=True), words_column, tags_column)
    else:
        raise TaskError(
            "this data file has an unknown format", got=file.name, allowed=", ".join(dict.fromkeys((*CONLL, *TABLES)))
        )
    kept = [i for i, row in enumerate(words) if row]
    if not kept:
        raise TaskError("the data file has no words", got=str(file))
    empty = len(words) - len(kept)
    notes = (f"{empty:,} sentences without words are left out",) if empty else ()
    tags = [tags[i] for i in kept]
    numbered = all(re.fullmatch("[0-9]{1,9}", t) for row in tags for t in row)
    return Tagged([words[i] for i in kept], tags, numbered, notes)


def _has_header(file: Path, words_column: str | None) -> bool:
    """Does a .tsv begin with the names of columns, as a table does?"""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            first = lines.readline().rstrip("\r\n").split("\t")
    except (OSError, ValueError):
        return False  # said when it is read
    names = [name.strip().lower() for name in first]
    return bool(words_column in first or set(names) & set(WORDS_COLUMNS) and set(names) & set(TAGS_COLUMNS))


def _conll(file: Path, words_column: str | None, tags_column: str | None) -> tuple[list[list[str]], list[list[str]]]:
    """One word a line, with columns by tabs, or else by spaces; an empty line between sentences."""
    first, last = _place(words_column, "text_column", 0), _place(tags_column, "label_column", -1)
    check_memory(file, file.stat().st_size)
    words: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    known: int | None = None
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as e:
        raise TaskError("the data file cannot be read", got=f"{file}: {e}"[:500], allowed="UTF-8 text") from e
    tabs = "\t" in text
    for number, line in enumerate(text.split("\n"), 1):
        cells = line.strip("\r\n").split("\t") if "\t" in line else line.split()
        if not any(c.strip() for c in cells) or cells[0] == _DOCUMENT:
            if words[-1]:
                words.append([])
                tags.append([])
            continue
        # a comment, as CoNLL-U has them, stands before a sentence
        if cells[0].startswith("#") and not words[-1] and "\t" not in line and (tabs or len(cells) != (known or 2)):
            continue
        known = known or len(cells)
        _check_line(file, number, line, cells, known, (first, last))
        words[-1].append(cells[first].strip())
        tags[-1].append(cells[last].strip())
    filled = slice(0, None if words[-1] else -1)
    return words[filled], tags[filled]


def _check_line(file: Path, number: int, line: str, cells: list[str], known: int, places: Sequence[int]) -> None:
    if len(cells) != known or known < 2:
        raise TaskError(
            f"{file.name} has a line that is no word and its tag",
            got=f"line {number}: {line.strip()[:100]!r}, {len(cells)} columns",
            allowed=f"{known} columns, as in the lines before, and an empty line between sentences"
            if known > 1
            else "two columns or more: the word, and its tag in the last one",
            fix="mend this line; columns are separated by tabs, or all of them by spaces",
        )
    for option, place in zip(("text_column", "label_column"), places, strict=True):
        if not -known <= place < known:
            raise TaskError(
                f"{file.name} has no such column",
                got=f"{option}={place + (place >= 0)}",
                allowed=f"1 to {known}, or -1",
            )
        if not cells[place].strip() or not encodable(cells[place]) or len(cells[place]) > LONGEST_TEXT:
            raise TaskError(
                f"{file.name} has a line without a usable word or tag", got=f"line {number}: {line.strip()[:100]!r}"
            )


def _place(given: str | None, option: str, usual: int) -> int:
    if given is None:
        return usual
    if not re.fullmatch("-?[1-9][0-9]{0,3}", str(given)):
        raise TaskError(
            "columns of a CoNLL file have no names",
            got=f"{option}={given}",
            allowed="a number: 1 is the first, -1 the last",
        )
    return int(given) - (int(given) > 0)


def _of_table(
    file: Path, table: Table, words_column: str | None, tags_column: str | None
) -> tuple[list[list[str]], list[list[str]]]:
    words_name = pick("text", words_column, WORDS_COLUMNS, table, file)
    tags_name = pick("label", tags_column, TAGS_COLUMNS, table, file)
    if words_name == tags_name:
        raise TaskError("words and tags are the same column", got=words_name, allowed=", ".join(table.names)[:500])
    words, tags = ([_cells(v) for v in table.column(name)] for name in (words_name, tags_name))
    if len(words) > MOST_ROWS:
        raise TaskError("the data file is too large", got=f"{len(words):,} rows", allowed=f"{MOST_ROWS:,}")
    form = "lists of texts, or a text with a space between words"
    complain(file, f"no words in column {words_name!r} ({form})", [i for i, v in enumerate(words) if v is None])
    complain(file, f"no tags in column {tags_name!r} ({form})", [i for i, v in enumerate(tags) if v is None])
    pairs = list(zip(words, tags, strict=True))
    other = [i for i, (w, t) in enumerate(pairs) if w is not None and t is not None and len(w) != len(t)]
    complain(file, "another number of tags than of words", other, "give a tag for each word")
    return [w or [] for w in words], [t or [] for t in tags]


def _cells(value: Any) -> list[str] | None:
    """The texts of a list, or between the spaces of a text; None if some are missing."""
    if value is None or isinstance(value, dict):
        return None
    found = [label_text(v) for v in value] if isinstance(value, list) else str(value).split()
    return None if any(v is None or not encodable(v) for v in found) else [v for v in found if v is not None]
