"""`featherweight report`: write the HTML report of a study anew, and say what its trials tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..report import units
from ._shared import DebugOption, JsonOption, OutArgument, guarded, out_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ..report.analysis import Analysis

_SHOWN = 5  # holes of an objective


def register(app: typer.Typer) -> None:
    app.command("report")(guarded(report))


def report(
    out: OutArgument,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write \\[default: OUT/report.html].")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a study's report: one HTML file that needs no network. Prints which settings mattered
    and what each strategy found."""
    from ..report.analysis import analyse, why_not
    from ..study.study import Study

    found = Study.open(out)
    analysis = analyse(found.front_json(), found.trials(), found.config)
    path = found.report(to or out / "report.html", analysis)
    if as_json:
        print_json({"report": str(path), "analysis": analysis.to_json()})
        return
    console = out_console()
    why = why_not(analysis)
    if why:
        console.print(why, markup=False, soft_wrap=not console.is_terminal)
    else:
        console.print(_importances(analysis))
    if analysis.arms:
        console.print(_strategies(analysis))
    console.print(f"Written: {path}", markup=False, soft_wrap=True)


def _importances(analysis: Analysis) -> Table:
    """The most important holes of each objective; why there are none, where there are none."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..report.importance import MIN_TRIALS

    table = Table(
        title="What mattered (share of the variance over the space)", title_justify="left", box=box.SIMPLE_HEAD
    )
    for name, side in (("objective", "left"), ("hole", "left"), ("share", "right"), ("90 % interval", "right")):
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    for i in analysis.importances:
        name = i.objective.replace("error", "drop")
        if not i.shares:
            why = (
                f"too few trials ({i.n})"
                if i.r2 is None and i.n < MIN_TRIALS
                else "it did not vary"
                if i.r2 is None
                else f"nothing explained (R2 {i.r2:.2f})"
            )
            table.add_row(name, Text(why, style="dim"), "", "")
        for n, s in enumerate(i.shares[:_SHOWN]):
            table.add_row(name if n == 0 else "", Text(s.path), f"{s.share:.0%}", f"{s.low:.0%} to {s.high:.0%}")
    return table


def _strategies(analysis: Analysis) -> Table:
    """What each strategy of the portfolio was given and found."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Strategies of the portfolio", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("strategy", overflow="fold")
    for name in ("trials", "measured", "within limits", "on the front", "time"):
        table.add_column(name, justify="right")
    for a in analysis.arms:
        front = f"{a.front} ({units.percent(a.front_share)})"
        table.add_row(Text(a.name), str(a.trials), str(a.measured), str(a.feasible), front, units.seconds(a.seconds))
    return table
