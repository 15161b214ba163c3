"""The event log: one append-only table, one row a change of state.
Nothing is ever updated, so nothing can be torn.

Interface: `append`, `read`, `close`. SQLite (WAL) here; the SQL is plain, and every row carries its
study, so that a server database can hold many studies. An append with a key that is there already
does nothing: telling twice is harmless. Every row is sealed (see `chain`), and a log that is not
as it was written is not read.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..plain import kind
from ..records import Event
from .chain import FORMAT, SCHEMA, address, seal, strange, survey

# in JSON text: a backslash that stands for itself, or an escaped control character
_CONTROL = re.compile(r"(\\\\)|\\u00(?:[01][0-9a-fA-F]|7[fF]|[89][0-9a-fA-F])|\\[bfr]")
_RAW = dict.fromkeys([0x7F, *range(0x80, 0xA0)], "?")


class EventStore:
    """The events of one study in an SQLite file, which is made if it is not there; one of before
    there were seals gets them. writable: False opens a file that is there, and changes nothing.
    StoreError if it is something else, or damaged."""

    def __init__(self, path: Path, study: str = "study", *, writable: bool = True) -> None:
        import sqlalchemy as sa

        self.path, self.study = path, study
        for part in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if odd := kind(part):
                raise StoreError("this is no study's database", got=f"{part} is {odd}", fix="move it away")
        if writable:
            path.parent.mkdir(parents=True, exist_ok=True)
        mode, self._was_there = "rwc" if writable else "ro", path.exists()
        self._engine = sa.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(address(path, mode), uri=True, timeout=30, check_same_thread=False),
            poolclass=sa.pool.QueuePool,
        )
        meta = sa.MetaData()
        self._table = sa.Table(
            "events",
            meta,
            sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("study", sa.String(200), nullable=False, index=True),
            sa.Column("key", sa.String(200)),
            sa.Column("kind", sa.String(50), nullable=False),
            sa.Column("trial", sa.Integer),
            sa.Column("time", sa.Float, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("seal", sa.String(64)),
            sa.UniqueConstraint("study", "key"),
        )
        try:
            self._connection = self._engine.connect()
            if writable:
                self._connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                self._connection.exec_driver_sql("PRAGMA synchronous=FULL")
                self._connection.commit()
            self.format = self._checked()
            if writable:
                meta.create_all(self._connection)
                self._connection.commit()
                self._empty = False
                if self.format < FORMAT:
                    self._migrate()
        except (sa.exc.SQLAlchemyError, UnicodeDecodeError) as e:  # its names may be no text
            raise StoreError(
                "the study's database cannot be opened",
                got=f"{path}: {_first_line(e)}",
                fix="is it a study.db, on a disk that can be written? `featherweight repair` keeps what is sound of it",
            ) from e

    def _checked(self) -> int:
        """The file's format, after SQLite's own check of its pages. StoreError if that fails, or if
        the format is one to come."""
        run = self._connection.exec_driver_sql
        schema = list(run(SCHEMA).tuples())
        odd = strange(schema)
        if odd is not None:  # before anything of it is looked at
            self._connection.rollback()
            raise self.damaged(f"it has {odd}, which no study makes")
        problem = run("PRAGMA integrity_check(1)").scalar()
        found = int(run("PRAGMA user_version").scalar() or 0)
        columns = {row[1] for row in run("PRAGMA table_info(events)")}
        self._empty = not columns  # made, and killed, or on a full disk, before anything was written
        if self._empty and schema:
            self._connection.rollback()
            got = f"{self.path}, with {', '.join(repr(name) for _, name, _ in schema)}"[:500]
            raise StoreError("this database is none of a study", got=got, fix="move it away")
        rows, seals = run("SELECT count(*), count(seal) FROM events").one() if "seal" in columns else (0, 0)
        stripped = (
            "body" in columns
            and not seals
            and run("SELECT 1 FROM events WHERE body LIKE '%\"at_s\": %' LIMIT 1").scalar()
        )
        self._connection.rollback()
        if stripped:
            raise self.damaged("its rows had seals, and have none any more")
        if not columns and self._was_there and self.path.with_name("run.yaml").exists():
            raise self.damaged("it holds nothing, though a study was here, whose run.yaml is beside it")
        if problem != "ok":
            raise self.damaged(str(problem).splitlines()[-1])
        if found > FORMAT:
            raise StoreError(
                "this study was written by a newer version",
                got=f"{self.path}: format {found}",
                allowed=f"at most {FORMAT}",
                fix="use that version, or, if there is none, `featherweight repair`",
            )
        if columns and found == FORMAT and ("seal" not in columns or seals < rows):
            raise self.damaged("rows have no seals")
        return FORMAT if seals else found if not columns else 0

    def _migrate(self) -> None:
        """Seal the rows of a file of before: all or nothing."""
        run = self._connection.exec_driver_sql
        run("BEGIN IMMEDIATE")
        if "seal" not in {row[1] for row in run("PRAGMA table_info(events)")}:
            run("ALTER TABLE events ADD COLUMN seal VARCHAR(64)")
        if run("SELECT count(seal) FROM events").scalar() == 0:
            heads: dict[str, str] = {}
            rows = run("SELECT seq, study, key, kind, trial, time, body FROM events ORDER BY seq").fetchall()
            for seq, study, *fields in rows:
                heads[study] = seal(heads.get(study, ""), study, *fields)
                run("UPDATE events SET seal = ? WHERE seq = ?", (heads[study], seq))
        run(f"PRAGMA user_version = {FORMAT}")
        self._connection.commit()
        self.format = FORMAT

    def damaged(self, why: str) -> StoreError:
        """The error of a log that is not as it was written, with what is still sound of it."""
        said = f"{self.path}: {why}"
        try:
            rows = survey(self.path, self.study)
        except sqlite3.DatabaseError:
            rows = []
        if rows:
            bad = [str(r) for r in rows if not r.sound]
            named = f", not {', '.join(bad[:5])}{', ..' * (len(bad) > 5)}" if bad else ""
            said += f"; {len(rows) - len(bad)} of {sum(r.number for r in rows)} events are sound{named}"
        return StoreError(
            "the study's log is not as it was written", got=said, fix=f"featherweight repair {self.path.parent}"
        )

    def append(
        self,
        kind: str,
        body: dict[str, Any] | None = None,
        *,
        trial: int | None = None,
        key: str | None = None,
        when: float | None = None,
    ) -> bool:
        """Add one event, durably, before returning; False if an event with this key was there.
        when: the time of one that is copied (seconds since 1970)."""
        import sqlalchemy as sa
        from sqlalchemy.dialects.sqlite import insert

        t, text, when = self._table, json.dumps(body or {}), time.time() if when is None else when
        try:
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            row = {
                "study": self.study,
                "key": key,
                "kind": kind,
                "trial": trial,
                "time": when,
                "body": text,
                "seal": seal(self._head(self._connection), self.study, key, kind, trial, when, text),
            }
            done = self._connection.execute(insert(t).on_conflict_do_nothing(), row)
            self._connection.commit()
        except sa.exc.SQLAlchemyError as e:
            self._connection.rollback()
            raise StoreError(
                "the study's database cannot be written", got=f"{self.path}: {_first_line(e)}", fix="is the disk full?"
            ) from e
        return bool(done.rowcount)

    def _head(self, connection: Any, seq: int | None = None) -> str:
        """The seal of the study's last row, or of the last up to `seq`; "" if there is none."""
        import sqlalchemy as sa

        t = self._table
        query = sa.select(t.c.seal).where(t.c.study == self.study).order_by(t.c.seq.desc()).limit(1)
        found = connection.execute(query if seq is None else query.where(t.c.seq <= seq)).scalar()
        return str(found or "")

    def read(self, after: int = 0) -> Iterator[Event]:
        """The events with seq > `after`, in order, as {"seq", "kind", "trial", "time", ...body}.
        StoreError at one that is not as it was written."""
        import sqlalchemy as sa

        if self._empty:
            return
        t, sealed = self._table, self.format >= FORMAT
        fields = [t.c.seq, t.c.key, t.c.kind, t.c.trial, t.c.time, t.c.body, *([t.c.seal] if sealed else [])]
        query = sa.select(*fields).where(t.c.study == self.study, t.c.seq > after).order_by(t.c.seq)
        try:
            with self._engine.connect() as c:
                head = self._head(c, after) if sealed and after else ""
                for seq, key, kind, trial, when, body, *stored in c.execute(query.execution_options(yield_per=1000)):
                    if sealed and stored[0] != (head := _sealed(head, self.study, key, kind, trial, when, body)):
                        raise self.damaged("a row does not fit its seal")
                    yield {**json.loads(_visible(body)), "seq": seq, "kind": kind, "trial": trial, "time": when}
        except (sa.exc.SQLAlchemyError, ValueError, TypeError, RecursionError) as e:
            raise self.damaged(_first_line(e)) from e

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


def _sealed(*row: Any) -> str:
    """The seal of a row as it was read; "" if its fields are none of a row."""
    try:
        return seal(*row)
    except (TypeError, ValueError):
        return ""


def _visible(body: str) -> str:
    """JSON text with its control characters, but for tabs and line ends, as question marks: what a
    log says is shown in terminals, which some of them command."""
    if "\\u00" in body:
        body = _CONTROL.sub(lambda found: found[0] if found[1] else "?", body)
    return body if body.isascii() and "\x7f" not in body else body.translate(_RAW)


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0]
