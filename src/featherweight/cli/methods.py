"""`featherweight methods`: what there is to choose from, and what can be set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..report.methods import GROUPS, Method, find
from ..report.methods import methods as of
from ._shared import DebugOption, JsonOption, guarded, out_console, print_json

if TYPE_CHECKING:
    from rich.console import Console


_Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A method or a group, as prune, adaptive or strategies \\[default: all]."),
]


def register(app: typer.Typer) -> None:
    app.command("methods")(guarded(methods))


def methods(name: _Name = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the methods by group; of one method its settings,
    their ranges and defaults, and its source."""
    groups = [g for g in GROUPS if name is None or name in (g, g.rpartition(".")[2])]
    found = {g: of(g) for g in groups} if groups else None
    single = [] if found is not None else find(str(name))
    if as_json:
        print_json(
            {g: [m.to_json() for m in ms] for g, ms in found.items()}
            if found is not None
            else [m.to_json() for m in single]
        )
        return
    console = out_console()
    for group, listed in (found or {}).items():
        _list(console, f"{group}: {GROUPS[group]}".replace("`", ""), listed)
    for method in single:
        _show(console, method)


def _list(console: Console, title: str, listed: list[Method]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False, title_style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for m in listed:
        table.add_row(Text(f"  {m.name}", style="cyan"), Text(m.summary))
    console.print(table)
    console.print()


def _show(console: Console, m: Method) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(f"{m.group}: {m.name}  ({m.home})", style="bold", markup=False)
    console.print(m.about, markup=False)
    if m.papers:
        console.print("Source: " + ", ".join(f"https://arxiv.org/abs/{p}" for p in m.papers), markup=False)
    if m.fields:
        table = Table(box=box.SIMPLE_HEAD)
        for head in ("field", "default", "may be", "a space opens", "meaning"):
            table.add_column(head, overflow="fold")
        for f in m.fields:
            table.add_row(*map(Text, (f.name, f.default, f.range or f.kind, f.search or "-", f.doc)))
        console.print(table)
    console.print()
