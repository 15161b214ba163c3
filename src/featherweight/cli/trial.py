"""`featherweight trial`: one trial of a study, and what it printed."""

from __future__ import annotations

from typing import Annotated

import typer

from ._shared import DebugOption, JsonOption, OutArgument, guarded, out_console, print_json

LINES = 200  # of what it printed, the last ones


def register(app: typer.Typer) -> None:
    app.command("trial")(guarded(trial))


def trial(
    out: OutArgument,
    number: Annotated[int, typer.Argument(help="The trial's number.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a trial: its settings, what became of it, why, and what your code printed meanwhile."""
    from ..study.study import Study

    found = Study.open(out).trial(number)
    if as_json:
        print_json(found)
        return
    console = out_console()
    for line in found["lines"]:
        console.print(line, markup=False, soft_wrap=True)
    text = found["printed"].splitlines()
    if text:
        console.print(f"It printed{f' (the last {LINES} lines)' if len(text) > LINES else ''}:", markup=False)
    for line in text[-LINES:]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if not text:
        console.print("It printed nothing.", markup=False)
