"""The event log of a run: what happens is written first, then known, then told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from ..engine.messages import Message
from ..records import Event
from ..store.events import EventStore
from .state import StudyState, within

Listener = Callable[[Event], None]
LOGGER = logging.getLogger("featherweight")


def logged(event: Event) -> None:
    """A listener where nobody gave one: warnings, and (at level INFO) what was measured, go to
    Python's log, which shows warnings unless told otherwise."""
    kind, entry = event["kind"], event.get("entry") or {}
    where = f"trial {event['trial']}: " if event.get("trial") is not None else ""
    if kind == "warning":
        LOGGER.warning("%s%s", where, event["text"])
    elif kind in ("failed", "baseline_failed"):
        LOGGER.info("%sfailed: %s", where or f"{event['label']} ", event["reason"])
    elif kind == "certified":
        LOGGER.info("%s%s: %s", where, entry["label"], event["certificate"]["verdict"])
    elif entry:
        found, speed = entry["metric"], entry["speedup"]["ratio"]
        told = (where, entry["label"], found["name"], found["value"], speed, entry["size_bytes"])
        LOGGER.info("%s%s: %s %.4g on validation, %.2fx, %d bytes", *told)


class Log:
    """store: the study's events; listener: hears every event,
    and what is not worth a line in the log."""

    def __init__(self, store: EventStore, listener: Listener) -> None:
        self.store, self.tell, self._began = store, listener, time.monotonic()
        self.state = StudyState(store.path.parent.resolve()).fold(store.read())

    def record(
        self, kind: str, body: dict[str, Any] | None = None, *, trial: int | None = None, key: str | None = None
    ) -> None:
        """Log an event, fold it into the state, and tell the listener. An event whose `key` is in
        the log is not logged again. An artifact in the study's folder is logged by its place in
        it, so that the folder can be moved."""
        # the wall clock may be set meanwhile: time that was spent is told by one that only goes on
        body = {**(body or {}), "at_s": round(time.monotonic() - self._began, 6)}
        if "entry" in body:
            artifact = body["entry"]["artifact"]
            body["entry"] = {**body["entry"], "artifact": within(artifact)}
        if self.store.append(kind, body, trial=trial, key=key):
            event = {**body, "kind": kind, "trial": trial, "time": time.time()}
            self.state.apply(event)
            self.tell(event)

    def progress(self, message: Message) -> None:
        """Tell how far a job is."""
        self.tell({**message.facts, "kind": "progress", "trial": message.id if isinstance(message.id, int) else None})

    def warn(self, text: str, trial: int | None = None) -> None:
        """Tell what the user should know."""
        self.tell({"kind": "warning", "trial": trial, "text": text})

    def spent(self, seconds: float, of: float | None) -> None:
        """Tell how much of the budget is gone."""
        self.tell({"kind": "budget", "trial": None, "spent_s": seconds, "of_s": of})

    def close(self) -> None:
        self.store.close()
