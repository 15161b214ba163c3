"""`featherweight optimize`: search a recipe's space for the best model within limits."""

from __future__ import annotations

from typing import Any

import typer

from . import _options, _run
from ._shared import EXIT_CODES, guarded

EXAMPLE = (
    "Example: featherweight optimize examples/digits.py --max-drop 0.01 --max-latency 0.7x --max-size 0.5x --trials 40 "
    "--minutes 3 --out runs/digits"
)


def register(app: typer.Typer) -> None:
    app.command("optimize", epilog=f"{EXAMPLE}\n\n{EXIT_CODES}")(guarded(_options.takes_options("optimize", optimize)))


def optimize(**options: Any) -> None:
    """Make a model smaller and faster within your limits, and certify what comes out."""
    raise typer.Exit(_run.command("optimize", options))
