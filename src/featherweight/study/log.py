"""The event log of a run: what happens is written first, then known, then told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..engine.messages import Message
from ..records import Event
from ..store.events import EventStore
from .state import StudyState

Listener = Callable[[Event], None]


class Log:
    """store: the study's events; listener: hears every event,
    and what is not worth a line in the log."""

    def __init__(self, store: EventStore, listener: Listener) -> None:
        self.store, self.tell = store, listener
        self.state = StudyState().fold(store.read())

    def record(
        self, kind: str, body: dict[str, Any] | None = None, *, trial: int | None = None, key: str | None = None
    ) -> None:
        """Log an event, fold it into the state, and tell the listener. An event whose `key` is in
        the log is not logged again."""
        if self.store.append(kind, body, trial=trial, key=key):
            event = {**(body or {}), "kind": kind, "trial": trial, "time": time.time()}
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
