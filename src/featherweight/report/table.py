"""The front as a table for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import units
from .rows import (
    Json,
    certified_text,
    chance_text,
    drop,
    is_best,
    label,
    listing,
    metric_name,
    pair,
    reference,
    size_ratio,
    verdict_text,
)

if TYPE_CHECKING:
    from rich.table import Table

ROLES = {"original": "original", "baseline": "baseline", "front": "front", "best": "best", "nearest": "nearest"}


def cells(entry: Json, baseline: Json | None) -> list[str]:
    """Metric, drop, latency, speedup, size, memory and certificate of an entry, as text; where
    there is no certificate, the chance of one."""
    name = str(entry["metric"]["name"])
    ends, speeds = pair(entry["metric"].get("ci95")), pair(entry["speedup"].get("ci95"))
    value = units.metric(entry["metric"].get("value"), name)
    if ends:
        value += (
            f" [{units.metric(ends[0], name).removesuffix(' %')}, {units.metric(ends[1], name).removesuffix(' %')}]"
        )
    speed = units.ratio(entry["speedup"].get("ratio"))
    if speeds and speeds[0] != speeds[1]:
        speed += f" [{units.ratio(speeds[0]).removesuffix('x')}, {units.ratio(speeds[1]).removesuffix('x')}]"
    share = size_ratio(entry, baseline)
    likely = chance_text(entry)
    verdict = certified_text(entry) or ("-" if likely is None else f"chance {likely}")
    return [
        value,
        units.difference(drop(entry, baseline), name),
        units.milliseconds(entry["latency_ms"].get("median")),
        speed,
        f"{units.size(entry['size_bytes'])} ({units.ratio(share)})",
        units.size(entry.get("peak_memory_bytes")),
        verdict,
    ]


COLUMNS = ("metric [95 %]", "drop", "latency", "speedup [95 %]", "size", "memory", "certificate")


def front_table(front: Json, title: str | None = None, limit: int | None = None, width: int = 200) -> Table:
    """Original first, then the other baselines, then the front; the chosen one is starred.

    limit: at most this many lines; width: of the terminal, in a narrow one intervals stand on a
    line of their own and columns are left out, which the caption says.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def narrow(text: str) -> str:
        if width >= 170:
            return text
        stacked = text.replace(" [", "\n[").replace(" (", "\n(").replace("not certifiable", "not\ncertifiable")
        stacked = stacked.replace(": needs", ":\nneeds")
        return stacked.replace(" points", " pts").replace(" point", " pt")

    baseline = front.get("baseline")
    metric = metric_name(front)
    table = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if width >= 115 else 0),
    )
    table.add_column("", no_wrap=True)
    table.add_column("candidate", overflow="fold", min_width=max(14, min(30, width - 100)))
    hidden = ("memory",) * (width < 140) + ("latency",) * (width < 100) + ("drop",) * (width < 90)
    shown = [i for i, column in enumerate(COLUMNS) if column not in hidden]
    if hidden:
        table.caption = Text(
            f"The terminal is too narrow for {', '.join(hidden)}: see front.json and report.html.", style="dim"
        )
    for column in ("limits", *(COLUMNS[i] for i in shown)):
        table.add_column(
            Text(narrow(column.replace("metric", metric))),
            justify="left" if column in ("certificate", "limits") else "right",
            no_wrap=column != "certificate",
        )
    lines = listing(front)
    for role, entry in lines[:limit]:
        best = is_best(front, entry)
        style = (
            "bold green"
            if best
            else "dim"
            if role in ("original", "baseline")
            else ""
            if entry.get("feasible")
            else "yellow"
        )
        kept = "-" if role == "original" else verdict_text(entry).partition(":")[0]
        all_cells = cells(entry, baseline)
        texts = [narrow(all_cells[i]) for i in shown]
        table.add_row(
            Text("* best" if best else reference(front) if role == "original" else ROLES[role]),
            Text(label(entry)),
            Text(kept),
            *[Text(c) for c in texts],
            style=style,
        )
    if limit is not None and len(lines) > limit:
        table.add_row("", Text(f"and {len(lines) - limit} more"))
    return table
