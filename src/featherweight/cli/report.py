"""`featherweight report`: write the HTML report of a study anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._shared import DebugOption, JsonOption, OutArgument, guarded, out_console, print_json


def register(app: typer.Typer) -> None:
    app.command("report")(guarded(report))


def report(
    out: OutArgument,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write [default: OUT/report.html].")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a study's report: one HTML file that needs no network."""
    from .. import study
    from ..report import write_report

    path = write_report(study.Study.open(out), to or out / "report.html", out)
    if as_json:
        print_json({"report": str(path)})
    else:
        out_console().print(f"Written: {path}", markup=False, soft_wrap=True)
