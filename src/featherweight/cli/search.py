"""`featherweight search`: find an architecture, and how to train it, for a task's data."""

from __future__ import annotations

from typing import Any

import typer

from . import _options, _run
from ._shared import EXIT_CODES, guarded

EXAMPLE = (
    "Example: featherweight search examples/digits.py --max-params 100k --max-latency 2ms --trials 30 --minutes 5 "
    "--out runs/search"
)


def register(app: typer.Typer) -> None:
    app.command("search", epilog=f"{EXAMPLE}\n\n{EXIT_CODES}")(guarded(_options.takes_options("search", search)))


def search(**options: Any) -> None:
    """Search an architecture, its training and, with --compress, its compression, within your
    limits. The task needs no model."""
    raise typer.Exit(_run.command("search", options))
