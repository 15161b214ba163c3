"""What shows that an event log is as it was written: each row is sealed with a hash of what it says
and of the seal before it, so that a row that was changed, lost, added or moved shows. And what is
still sound in a log where that is so.

Notation: s_i seal of row i, h hash; s_i = h(s_(i-1), row i).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

FORMAT = 1  # user_version of a log whose rows are sealed; 0: of before
SCHEMA = "SELECT type, name, sql FROM sqlite_master"
_COMPUTED = re.compile(r"\b(check|generated|virtual|where)\b|\bas\s*\(|\bon\b.*\(.*\(", re.IGNORECASE | re.DOTALL)
COLUMNS = ("seq", "study", "key", "kind", "trial", "time", "body")


def seal(previous: str, study: str, key: str | None, kind: str, trial: int | None, when: float, body: str) -> str:
    """The seal of a row. TypeError if a field has a type that no row has."""
    told = json.dumps([previous, study, key, kind, trial, when, body])
    return hashlib.sha256(told.encode()).hexdigest()


def later(body: Any) -> bool:
    """Is it of a version that sealed what it wrote?"""
    return isinstance(body, str) and '"at_s": ' in body


def address(path: Path, mode: str) -> str:
    """A file as an SQLite address, whatever characters are in its name. mode: rwc; still: as the
    file stands by itself; or ro: while it is written, or if its writer was killed, there is a -wal
    beside it, without which it is not whole; else it is read as it stands, and nothing is left
    beside it, which may be on a disk where nothing can be written."""
    still = mode == "still" or (mode == "ro" and not path.with_name(path.name + "-wal").exists())
    how = "immutable=1" if still else f"mode={mode}"
    return f"file:{quote(os.fsencode(path.absolute()))}?{how}"


def strange(schema: Iterable[tuple[str, str, str | None]]) -> str | None:
    """What a database holds that no study makes, by (type, name, sql) of its parts: reading a view
    or a computed column is to run what the file says, which may never end."""
    for kind, name, sql in schema:
        if kind not in ("table", "index"):
            return f"a {kind:.20}, {name!r:.50}"
        if sql is not None and _COMPUTED.search(sql):
            return f"a {kind} that computes, {name!r:.50}"
    return None


@dataclass(frozen=True)
class Row:
    """A row as it stands in a file: its fields (none if it cannot be read), and whether they are as
    they were written. number: of rows that cannot be read, how many follow each other here."""

    seq: int
    fields: dict[str, Any]
    sound: bool
    number: int = 1

    def __str__(self) -> str:
        trial, kind = self.fields.get("trial"), self.fields.get("kind")
        if not self.fields:
            return f"row {self.seq} (gone)" if self.number == 1 else f"{self.number} rows from {self.seq} on (gone)"
        of = f" of trial {trial}" if isinstance(trial, int) else ""
        return f"row {self.seq} ({kind if isinstance(kind, str) else 'unreadable'!s:.40}{of})"


def survey(path: Path, study: str = "study", mode: str = "ro") -> list[Row]:
    """All rows of a study, in order; one whose number is missing is a row that is not sound. Of a
    log of before there were seals, each row that can be read is taken to be sound. What is lost
    after the last row that can be read does not show. mode: as of `address`."""
    try:
        with closing(sqlite3.connect(address(path, mode), uri=True)) as db:
            if odd := strange(row for row in db.execute(SCHEMA) if row[0] != "trigger"):  # that only writing pulls
                raise sqlite3.DatabaseError(f"it has {odd}, which no study makes")
            db.text_factory = bytes
            columns = {name.decode("utf-8", "replace") for _, name, *_ in db.execute("PRAGMA table_info(events)")}
            ((version,),) = db.execute("PRAGMA user_version")
            wanted = [*COLUMNS, *(["seal"] if "seal" in columns else [])]
            found = [dict(zip(wanted, map(_text, values), strict=True)) for values in _all_rows(db, ", ".join(wanted))]
    except UnicodeDecodeError as e:  # names of columns that are no text
        raise sqlite3.DatabaseError(f"its names are no text: {e}") from e
    others = {r["study"] for r in found if isinstance(r["study"], str)} - {study}
    mine = [r for r in found if r["study"] == study or not others]
    unsealed = version < FORMAT and all(r.get("seal") is None and not later(r["body"]) for r in mine)
    out: list[Row] = []
    true, told = "", ""  # the seal of the row before: by what it says, if that is sound, and as it is stored
    for r, after in zip(mine, [*mine[1:], None], strict=bool(mine)):
        last = out[-1].seq + out[-1].number - 1 if out else 0
        stored = r.get("seal")
        able = [c for c in (_sealed(true, r), _sealed(told, r)) if c is not None]
        if not others and r["seq"] > last + 1 and stored not in able:  # a seal that goes on leaves no gap
            out.append(Row(last + 1, {}, False, r["seq"] - last - 1))
        # the row's own seal, or that of the next one, fits what it says
        fits = [c for c in able if c == stored or after is not None and _sealed(c, after) == after.get("seal")]
        sound = _is_json(r["body"]) and (unsealed or bool(fits))
        out.append(Row(r["seq"], r, sound))
        told = stored if isinstance(stored, str) else ""
        true = fits[0] if fits else told
    return out


def _all_rows(db: sqlite3.Connection, columns: str) -> list[tuple[Any, ...]]:
    """The rows by number; where that breaks off, each that can be reached by its own number."""
    found: dict[int, tuple[Any, ...]] = {}
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        for values in db.execute(f"SELECT {columns} FROM events ORDER BY seq"):
            found[values[0]] = values
        return list(found.values())
    last = max(found, default=0)
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        last = max(last, *(n or 0 for n in db.execute("SELECT max(seq) FROM events").fetchone()))
    for seq in range(1, min(last, 10_000_000) + 1):
        if seq not in found:
            with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
                for values in db.execute(f"SELECT {columns} FROM events WHERE seq = ?", (seq,)):
                    found[seq] = values
    return [found[seq] for seq in sorted(found)]


def _text(value: Any) -> Any:
    """Bytes as the text that they are; as bytes if they are none."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _sealed(previous: str, row: dict[str, Any]) -> str | None:
    try:
        return seal(previous, *(row[k] for k in COLUMNS[1:]))
    except (TypeError, ValueError):
        return None


def _is_json(body: Any) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (TypeError, ValueError, RecursionError):
        return False
