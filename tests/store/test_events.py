import multiprocessing
import os
import signal
import sqlite3
import time

import pytest

from featherweight.errors import StoreError
from featherweight.store.events import EventStore


def test_events_come_back_in_order_with_their_body(tmp_path):
    store = EventStore(tmp_path / "s.db")
    for i in range(5):
        assert store.append("proposed", {"filling": {"a": i, "b": None}}, trial=i)
    assert [(e["seq"], e["kind"], e["trial"], e["filling"]) for e in store.read()] == [(i + 1, "proposed", i, {"a": i, "b": None}) for i in range(5)]
    assert [e["trial"] for e in store.read(after=3)] == [3, 4]


def test_telling_twice_is_harmless(tmp_path):
    store = EventStore(tmp_path / "s.db")
    assert store.append("finished", {"value": 1}, trial=0, key="t0") is True
    assert store.append("finished", {"value": 2}, trial=0, key="t0") is False
    assert [e["value"] for e in store.read()] == [1]


def test_two_studies_share_a_table_without_seeing_each_other(tmp_path):
    a, b = EventStore(tmp_path / "s.db", "a"), EventStore(tmp_path / "s.db", "b")
    a.append("x", key="k")
    b.append("y", key="k")
    assert [e["kind"] for e in a.read()] == ["x"] and [e["kind"] for e in b.read()] == ["y"]


def test_an_empty_store_reads_empty(tmp_path):
    assert list(EventStore(tmp_path / "s.db").read()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "s.db").write_text("not a database at all, " * 50)
    with pytest.raises(StoreError, match="cannot be opened"):
        EventStore(tmp_path / "s.db")


def test_a_body_that_is_no_json_is_an_error_and_writes_nothing(tmp_path):
    store = EventStore(tmp_path / "s.db")
    with pytest.raises(TypeError):
        store.append("x", {"bad": object()})
    assert list(store.read()) == []


def _write_until_killed(path):
    store = EventStore(path)
    i = 0
    while True:
        store.append("tick", {"i": i})
        i += 1


def test_a_kill_loses_nothing_that_was_appended_and_leaves_a_readable_log(tmp_path):
    path = tmp_path / "s.db"
    child = multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=(path,))
    child.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (path.exists() and len(_ticks(path)) >= 20):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    ticks = [e["i"] for e in EventStore(path).read()]
    assert len(ticks) >= 20 and ticks == list(range(len(ticks)))


def _ticks(path):
    try:
        with sqlite3.connect(path) as c:
            return c.execute("select seq from events").fetchall()
    except sqlite3.OperationalError:
        return []
