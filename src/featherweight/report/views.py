"""A study in a notebook: its table as HTML, and a figure of the report as a Plotly figure."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .figures import front_figure, trade_off
from .rows import Json, label, listing, tested, verdict_text
from .table import COLUMNS, ROLES, cells
from .words import summary

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def as_html(front: Json) -> str:
    """What was found, in words, and the table of the front."""
    said = summary(front)
    head = "".join(f"<th style='text-align:left'>{html.escape(c)}</th>" for c in ("", "what", "on", *COLUMNS, "limits"))
    rows = []
    for role, entry in listing(front):
        held = "" if role == "original" else verdict_text(entry, tested(front))
        texts = [ROLES[role], label(entry), str(entry.get("target", "")), *cells(entry, front.get("baseline")), held]
        style = "font-weight:600" if role in ("best", "nearest") else ""
        body = "".join(f"<td style='text-align:left'>{html.escape(t)}</td>" for t in texts)
        rows.append(f"<tr style='{style}'>{body}</tr>")
    words = "".join(f"<p>{html.escape(line)}</p>" for line in said)
    return f"<div>{words}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def figure(front: Json, trials: Sequence[Json], x: str, y: str) -> Figure:
    """One quantity against another, of all that was measured; error by latency with its intervals
    and limits."""
    from plotly.graph_objects import Figure

    found = front_figure(front, trials) if (x, y) == ("latency", "metric") else trade_off(front, trials, x, y)
    return Figure(_coloured({"data": found["data"], "layout": {"title": {"text": found["title"]}, **found["layout"]}}))


def _coloured(value: Any) -> Any:
    """With colours for their names."""
    if isinstance(value, dict):
        return {k: _coloured(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_coloured(v) for v in value]
    return _palette().get(value[1:], value) if isinstance(value, str) and value.startswith("@") else value


@cache
def _palette() -> dict[str, str]:
    """The page's colours in the light."""
    text = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text[: text.index("@media")]))
