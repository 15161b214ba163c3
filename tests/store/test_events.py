import multiprocessing
import os
import signal

import pytest

from featherweight.errors import StoreError
from featherweight.store.events import EventStore
from featherweight.testing import check_store
from tests.waiting import logged, until


def test_the_store_passes_the_suite_that_the_package_ships(tmp_path):
    check_store(lambda study: EventStore(tmp_path / "s.db", study))


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
    until(lambda: logged(path, "tick") >= 20 or not child.is_alive(), "ticks")
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    ticks = [e["i"] for e in EventStore(path).read()]
    assert len(ticks) >= 20 and ticks == list(range(len(ticks)))


def test_control_characters_of_a_log_are_shown_and_command_no_terminal(tmp_path):
    store = EventStore(tmp_path / "s.db")
    odd = "a\x1b[2J\x07\x08\x7f\x9b31m\r\nb\tc \\u001b \\\\ ä"
    store.append("failed", {"reason": odd, "deep": [{odd: 1}]})
    (event,) = store.read()
    want = "a?[2J????31m?\nb\tc \\u001b \\\\ ä"
    assert event["reason"] == want and event["deep"] == [{want: 1}]
    store.close()
