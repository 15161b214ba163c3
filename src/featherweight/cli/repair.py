"""`featherweight repair`: make a study whole whose log is damaged."""

from __future__ import annotations

import typer

from ._shared import DebugOption, JsonOption, OutArgument, guarded, out_console, print_json


def register(app: typer.Typer) -> None:
    app.command("repair")(guarded(repair))


def repair(out: OutArgument, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Keep what is sound of a study whose log (study.db) is damaged; the old file stays there."""
    from ..study import repair as study

    found = study.repair(out)
    if as_json:
        print_json(
            {
                "kept": found.kept,
                "lost": list(found.lost),
                "again": list(found.again),
                "damaged": str(found.old) if found.old else None,
            }
        )
        return
    console = out_console()
    if found.old is None:
        console.print(f"Nothing to repair: all {found.kept} events are sound.", markup=False)
        return
    console.print(f"Kept {found.kept} events; the damaged file is {found.old}.", markup=False, soft_wrap=True)
    for row in found.lost:
        console.print(f"Lost: {row}", markup=False, soft_wrap=True)
    if found.again:
        console.print(f"To run again: trials {', '.join(map(str, found.again))}.", markup=False, soft_wrap=True)
    console.print(f"Next: featherweight resume {out}", markup=False, soft_wrap=True)
