"""Waiting for what another process does: as long as it takes,
so that a slow machine only makes a test slower."""

import sqlite3
import time

GENEROUS_S = 900  # until a test is taken to hang


def until(condition, what):
    """Poll until `condition()` is true."""
    deadline = time.monotonic() + GENEROUS_S
    while not condition():
        assert time.monotonic() < deadline, f"still no {what} after {GENEROUS_S} s"
        time.sleep(0.02)


def logged(path, kind="%"):
    """How many events of a kind are in the log of a study that may be starting just now,
    without touching it."""
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("select count(*) from events where kind like ?", (kind,)).fetchone()[0]
    except sqlite3.OperationalError:  # the table is not there yet
        return 0
    finally:
        connection.close()
