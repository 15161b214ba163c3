"""The event log: one append-only table, one row a change of state.
Nothing is ever updated, so nothing can be torn.

Interface: `append`, `read`, `close`. SQLite (WAL) here; the SQL is plain, and every row carries its
study, so that a server database can hold many studies. An append with a key that is there already
does nothing: telling twice is harmless.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..records import Event


class EventStore:
    """The events of one study in an SQLite file, which is made if it is not there.
    StoreError if it is something else."""

    def __init__(self, path: Path, study: str = "study") -> None:
        import sqlalchemy as sa

        self.path, self.study = path, study
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
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
            sa.UniqueConstraint("study", "key"),
        )
        try:
            with self._engine.connect() as c:
                c.exec_driver_sql("PRAGMA journal_mode=WAL")
                c.exec_driver_sql("PRAGMA synchronous=FULL")
            meta.create_all(self._engine)
            self._connection = self._engine.connect()
            self._connection.exec_driver_sql("PRAGMA synchronous=FULL")
            self._connection.rollback()
        except sa.exc.SQLAlchemyError as e:
            raise StoreError(
                "the study's database cannot be opened",
                got=f"{path}: {_first_line(e)}",
                fix="is it a study.db, on a disk that can be written? Move it away to start anew",
            ) from e

    def append(
        self, kind: str, body: dict[str, Any] | None = None, *, trial: int | None = None, key: str | None = None
    ) -> bool:
        """Add one event, durably, before returning; False if an event with this key was there."""
        import sqlalchemy as sa
        from sqlalchemy.dialects.sqlite import insert

        row = {
            "study": self.study,
            "key": key,
            "kind": kind,
            "trial": trial,
            "time": time.time(),
            "body": json.dumps(body or {}),
        }
        try:
            done = self._connection.execute(insert(self._table).on_conflict_do_nothing(), row)
            self._connection.commit()
        except sa.exc.SQLAlchemyError as e:
            self._connection.rollback()
            raise StoreError(
                "the study's database cannot be written", got=f"{self.path}: {_first_line(e)}", fix="is the disk full?"
            ) from e
        return bool(done.rowcount)

    def read(self, after: int = 0) -> Iterator[Event]:
        """The events with seq > `after`, in order, as {"seq", "kind", "trial", "time", ...body}."""
        import sqlalchemy as sa

        t = self._table
        query = (
            sa.select(t.c.seq, t.c.kind, t.c.trial, t.c.time, t.c.body)
            .where(t.c.study == self.study, t.c.seq > after)
            .order_by(t.c.seq)
        )
        try:
            with self._engine.connect() as c:
                for seq, kind, trial, when, body in c.execute(query.execution_options(yield_per=1000)):
                    yield {**json.loads(body), "seq": seq, "kind": kind, "trial": trial, "time": when}
        except sa.exc.SQLAlchemyError as e:
            raise StoreError("the study's database cannot be read", got=f"{self.path}: {_first_line(e)}") from e

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0]
