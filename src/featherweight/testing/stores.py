"""What every event store has to do: keep events in order and for good,
and shrug off a repeated one.

Use it in the tests of a plug-in: `check_store(lambda study: MyStore(url, study))`. It raises
AssertionError with what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Store(Protocol):
    """The interface: three methods."""

    def append(
        self, kind: str, body: dict[str, Any] | None = None, *, trial: int | None = None, key: str | None = None
    ) -> bool: ...

    def read(self, after: int = 0) -> Iterator[dict[str, Any]]: ...

    def close(self) -> None: ...


def check_store(connect: Callable[[str], Store]) -> None:
    """`connect(study)` opens the store of one study; it is called several times and has to find
    what was written before."""
    store = connect("one")
    assert list(store.read()) == [], "a new store is not empty"
    body = {"text": "ä\n\"'; drop table events; --", "number": 0.1, "none": None, "list": [1, {"a": []}]}
    for i in range(10):
        assert store.append("proposed", {**body, "i": i}, trial=i, key=f"trial {i}"), "a new event was refused"
    assert not store.append("proposed", {"i": 99}, trial=3, key="trial 3"), "an event with a known key was taken twice"
    events = list(store.read())
    assert [e["i"] for e in events] == list(range(10)), "events are lost, doubled or out of order"
    assert all({k: e[k] for k in body} == body and e["trial"] == e["i"] and e["kind"] == "proposed" for e in events), (
        "events come back changed"
    )
    assert all(a["seq"] < b["seq"] and a["time"] <= b["time"] for a, b in zip(events, events[1:], strict=False)), (
        "seq or time do not rise"
    )
    assert [e["i"] for e in store.read(after=events[6]["seq"])] == [7, 8, 9], (
        "reading from a position gives other events"
    )
    other = connect("two")
    assert list(other.read()) == [] and other.append("x", key="trial 3"), "two studies see each other's events"
    store.close()
    again = connect("one")
    assert [e["i"] for e in again.read()] == list(range(10)), "events are gone after the store was closed"
    assert again.append("later") and [e["kind"] for e in again.read()][-1] == "later", (
        "a store that was opened again cannot be added to"
    )
    for s in (again, other):
        s.close()
