"""What a study says while it runs in a program: a live view in a terminal or a notebook, one line
an event elsewhere, and at the end what was found."""

from __future__ import annotations

import contextlib
import html
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ..records import Event
from ..report.ahead import next_command
from ..report.console import SafeConsole
from ..report.words import summary
from .live import LiveView
from .log import LOGGER, Listener, logged
from .study import Study

_EVERY_S = 0.5  # between two pictures in a notebook
_COLUMNS = 110  # of a notebook's view


class NotebookView(LiveView):
    """The live view as one output of a notebook's cell, drawn again as events come.

    display: IPython's function of that name."""

    def __init__(self, display: Callable[..., Any], console: SafeConsole, out: Path, began: float | None) -> None:
        super().__init__(console, out, began)
        self._display = display
        self._handle: Any = None
        self._drawn = -_EVERY_S

    def __enter__(self) -> NotebookView:
        super().__enter__()
        self._handle = self._display(_Shown(""), display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw()
        super().__exit__(kind, error, trace)

    def __call__(self, event: dict[str, Any]) -> None:
        super().__call__(event)
        if time.monotonic() - self._drawn >= _EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        text = io.StringIO()
        SafeConsole(file=text, width=_COLUMNS, force_jupyter=False).print(self.render())
        if self._handle is not None:
            self._handle.update(_Shown(f"<pre>{html.escape(text.getvalue())}</pre>"))


class _Shown:
    """HTML for a notebook."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return ""


def notebook_display() -> Callable[..., Any] | None:
    """IPython's `display`, in the kernel of a notebook; None elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is None or getattr(shell.get_ipython(), "kernel", None) is None:
        return None
    found: Callable[..., Any] = shell.display.display
    return found


@contextlib.contextmanager
def spoken(on_event: Listener | None, verbose: bool | None, out: Path, began: float) -> Iterator[Listener]:
    """A listener for a run in a program. verbose: show what happens (None: if nobody listens);
    without, warnings go to Python's log, and, at level INFO, what is measured."""
    shows = on_event is None if verbose is None else verbose
    heard = on_event if on_event is not None else logged if not shows or LOGGER.hasHandlers() else None
    if not shows:
        yield heard or logged
        return
    console = SafeConsole(stderr=True, highlight=False)
    display = notebook_display()
    view = LiveView(console, out, began) if display is None else NotebookView(display, console, out, began)

    def tell(event: Event) -> None:
        view(event)
        if heard is not None:
            heard(event)

    with view:
        yield tell


def said(study: Study, on_event: Listener | None, verbose: bool | None) -> None:
    """What was found, where it was asked for: as text, or to Python's log."""
    from .known import proven

    shows = on_event is None if verbose is None else verbose
    if not shows:
        if on_event is None:
            best = study.state.best()
            LOGGER.log(logging.INFO if best is not None and proven(best) else logging.WARNING, "%r", study)
        return
    if notebook_display() is not None:  # which shows the study itself, as the cell's value
        return
    front = study.front_json()
    console = SafeConsole(stderr=True, highlight=False)
    for line in summary(front):
        console.print(line, markup=False, soft_wrap=True)
    if (study.out / "report.html").is_file():
        console.print(f"The report: {study.out / 'report.html'}", markup=False, soft_wrap=True)
    console.print(f"Next: {next_command(front, study.out)}", markup=False, soft_wrap=True)
