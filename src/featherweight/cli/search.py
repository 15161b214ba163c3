"""`featherweight search`: architecture search, which this version does not have."""

from __future__ import annotations

import typer

from ._shared import USAGE, DebugOption, JsonOption, err_console, guarded, print_json_error

WHAT = "Architecture search is not in this version of Featherweight yet."
FIX = "to make a model that you have smaller and faster: featherweight optimize TASK"


def register(app: typer.Typer) -> None:
    app.command("search", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(guarded(search))


def search(context: typer.Context, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Search an architecture (not available yet)."""
    if as_json:
        print_json_error("NotAvailable", WHAT, fix=FIX)
    else:
        err_console().print(f"{WHAT}\n  fix: {FIX}", style="yellow", markup=False)
    raise typer.Exit(USAGE)
