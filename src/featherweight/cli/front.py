"""`featherweight front`: what a study has found so far."""

from __future__ import annotations

import typer

from ._shared import DebugOption, JsonOption, OutArgument, guarded, print_study


def register(app: typer.Typer) -> None:
    app.command("front")(guarded(front))


def front(out: OutArgument, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show the front of a study and its baselines; also while it runs."""
    from ..study.study import Study

    raise typer.Exit(print_study(Study.open(out), out, as_json))
