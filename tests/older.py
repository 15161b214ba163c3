"""Studies as older versions left them."""

import sqlite3
from contextlib import closing


def rewritten(path, *statements):
    """Change a study.db by SQL, and leave it as one of before its rows were sealed."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement, *values in statements:
            db.execute(statement, values)
        db.execute("UPDATE events SET body = json_remove(body, '$.at_s')")  # which those did not write either
        db.execute("ALTER TABLE events DROP COLUMN seal")
        db.execute("PRAGMA user_version = 0")
