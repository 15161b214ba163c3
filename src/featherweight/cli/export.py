"""`featherweight export`: copy the best model, or another, out of a study."""

from __future__ import annotations

from typing import Annotated

import typer

from ._shared import DebugOption, JsonOption, OutArgument, guarded, out_console, print_json


def register(app: typer.Typer) -> None:
    app.command("export")(guarded(export))


def export(
    out: OutArgument,
    to: Annotated[str, typer.Option("--to", metavar="PATH", help="The new folder.")],
    trial: Annotated[
        str | None,
        typer.Option(
            "--trial",
            help="The artifact of this trial, or of a baseline by its label, as 'plain int8' "
            "\\[default: the best, with weights, recipe and card].",
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy the best model of a study (or a trial's or a baseline's artifact) to a folder."""
    from ..report.words import summary
    from ..study.study import Study

    study = Study.open(out)
    path = study.export(to, int(trial) if trial is not None and trial.isdecimal() and len(trial) < 20 else trial)
    files = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    if as_json:
        print_json({"folder": str(path), "files": files})
        return
    console = out_console()
    console.print(f"Exported to {path}: {', '.join(files)}", markup=False, soft_wrap=True)
    if trial is None:  # what it is worth is said wherever it is handed out
        for line in summary(study.front_json())[:2]:
            console.print(line, markup=False, soft_wrap=True)
    if "MODEL_CARD.md" in files:
        console.print(f"How to load and run it: {path / 'MODEL_CARD.md'}", markup=False, soft_wrap=True)
