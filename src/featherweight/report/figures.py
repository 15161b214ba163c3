"""The report's plots as plain Plotly figures (JSON). Colours are names such as `@good` that the
page maps to its light or dark palette."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence

from ..records import Entry
from . import units
from .history import history
from .labels import objective_title
from .rows import Json, constraint_text, identity, latency_interval, listing, metric_name, pair, reference
from .table import COLUMNS, cells
from .window import fit_axes, label

MAX_POINTS = 2000  # an SVG plot with more points is slow to draw and shows no more


def figures(front: Json, trials: Sequence[Json], config: Json) -> list[Json]:
    """Every plot: {"id", "section", "title", "alt", "data", "layout"};
    none if nothing was measured."""
    if front.get("baseline") is None:
        return []
    names = list(config.get("minimize") or ["latency", "size"])
    shown = names if "error" in names else [*names, "error"]
    # the first figure shows these
    pairs = [p for p in itertools.combinations(shown, 2) if set(p) != {"latency", "error"}]
    if config.get("mode") == "search" and "params" not in names:
        pairs.append(("params", "error"))
    return [
        front_figure(front, trials),
        *(trade_off(front, trials, x, y) for x, y in pairs),
        *history(front, trials, names),
    ]


def _groups(front: Json, trials: Sequence[Json]) -> dict[str, list[Json]]:
    """Entries by how they are drawn; the front is always there in full,
    other trials are thinned evenly to MAX_POINTS."""
    known = listing(front)
    top = {identity(e) for r, e in known if r in ("front", "best") and e.get("trial") is not None}
    rest = [t["entry"] for t in trials if t.get("entry") and identity(t["entry"]) not in top]
    rest = rest[:: max(1, math.ceil(len(rest) / MAX_POINTS))]
    return {
        "feasible, but another is better": [e for e in rest if e.get("feasible")],
        "breaks a limit": [e for e in rest if not e.get("feasible")],
        "front": [e for r, e in known if identity(e) in top],
        "baselines": [e for r, e in known if r in ("original", "baseline")],
    }


_STYLE = {
    "feasible, but another is better": ("@good", "circle", 7),
    "breaks a limit": ("@bad", "x-thin-open", 7),
    "front": ("@front", "star", 13),
    "baselines": ("@base", "diamond", 11),
}


def hover(entry: Json, baseline: Json | None) -> str:
    """A few lines about an entry, escaped: Plotly reads a little HTML in them."""
    head = f"<b>{html.escape(_wrap(str(entry['label'])))}</b>".replace("\n", "<br>")
    number = "baseline" if entry.get("trial") is None else f"trial {entry['trial']}"
    body = [f"{name}: {html.escape(text)}" for name, text in zip(COLUMNS, cells(entry, baseline), strict=True)]
    return "<br>".join([head, f"{number} on {html.escape(str(entry.get('target', '')))}", *body])


def _wrap(text: str, width: int = 60) -> str:
    return "\n".join(text[i : i + width] for i in range(0, min(len(text), 4 * width), width)) or "?"


def _scatter(
    name: str, entries: Sequence[Json], x: Sequence[float | None], y: Sequence[float | None], baseline: Json | None
) -> Json:
    colour, symbol, size = _STYLE[name]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "text": [hover(e, baseline) for e in entries],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "symbol": symbol, "size": size, "line": {"color": colour, "width": 1.5}},
    }


def _bars(values: Sequence[float | None], ends: Iterable[tuple[float, float] | None], colour: str) -> Json:
    """Asymmetric error bars from intervals."""
    up, down = [], []
    for v, e in zip(values, ends, strict=True):
        up.append(max(0.0, e[1] - v) if e and v is not None else 0.0)
        down.append(max(0.0, v - e[0]) if e and v is not None else 0.0)
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "thickness": 1,
        "width": 2,
        "color": colour,
    }


def front_figure(front: Json, trials: Sequence[Json]) -> Json:
    """The metric against latency, with 95 % intervals and the limits as lines."""
    baseline = front["baseline"]
    groups = _groups(front, trials)
    crowded = sum(map(len, groups.values())) > 80
    name = metric_name(front)
    data = []
    for group, entries in groups.items():
        x = [1.0 / float(e["speedup"]["ratio"]) for e in entries]
        y = [float(e["metric"]["value"]) for e in entries]
        trace = _scatter(group, entries, x, y, baseline)
        if not crowded or group in ("front", "baselines"):
            faint = _STYLE[group][0] if group in ("front", "baselines") else "@faint"
            trace["error_x"] = _bars(x, (latency_interval(e) for e in entries), faint)
            trace["error_y"] = _bars(y, (pair(e["metric"].get("ci95")) for e in entries), faint)
        data.append(trace)
    layout = {
        "xaxis": {"title": {"text": objective_title("latency", reference(front))}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"{name} (validation split)"}},
        **_limit_lines(front),
    }
    if units.is_share(name):
        layout["yaxis"]["tickformat"] = ".1%"
    _fit(data, layout, groups, front)
    n = sum(map(len, groups.values()))
    alt = (
        f"Scatter plot of {n} candidates: {name} (up) against latency as a multiple of the {reference(front)}'s "
        "(right; left is quicker). "
        f"{len(groups['front'])} searched "
        f"candidates are on the front. The same numbers are in the tables."
    )
    return {
        "id": "front",
        "section": "front",
        "title": f"{name} against latency",
        "alt": alt,
        "data": data,
        "layout": layout,
    }


def _limit_lines(front: Json) -> Json:
    """Lines for the limits that this plot can show: on the metric, and on latency."""
    baseline = front["baseline"]
    value, better_up = float(baseline["metric"]["value"]), baseline["metric"].get("higher_is_better", True)
    shapes, notes = [], []
    line = {"type": "line", "line": {"color": "@limit", "width": 1.5, "dash": "dash"}}
    for c in front.get("constraints") or []:
        if c.get("quantity") not in ("drop", "metric", "latency"):
            continue
        bound = float(c["bound"])
        note = {
            "text": html.escape(constraint_text(c, metric_name(front), reference(front))),
            "showarrow": False,
            "yanchor": "top",
            "font": {"color": "@limit"},
        }
        if c["quantity"] == "latency":
            x = bound if c.get("relative") else bound / float(baseline["latency_ms"]["median"])
            shapes.append({**line, "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"})
            notes.append({**note, "x": x, "y": 1, "yref": "paper", "xanchor": "right", "textangle": -90})
        else:
            y = bound if c["quantity"] == "metric" else value - bound if better_up else value + bound
            shapes.append({**line, "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y})
            notes.append({**note, "x": 1, "xref": "paper", "y": y, "xanchor": "right"})
    return {"shapes": shapes, "annotations": notes}


def _fit(data: list[Json], layout: Json, groups: dict[str, list[Json]], front: Json) -> None:
    """Axes that show the front, the original and the bulk of the candidates; baselines beyond them
    are named at the border."""
    original = identity(front["baseline"])
    core = [
        [group == "front" or identity(e) == original or (None if group == "baselines" else False) for e in entries]
        for group, entries in groups.items()
    ]
    names = [
        [html.escape(label(str(e["label"]))) if group == "baselines" else "" for e in entries]
        for group, entries in groups.items()
    ]
    fit_axes(data, layout, names, core)


def quantity(entry: Json, baseline: Json, name: str) -> float | None:
    """An objective of an entry: the drop for `error`, else a multiple of the baseline's;
    None if it was not measured."""
    e, b = (Entry.from_json(x).quantities for x in (entry, baseline))
    if name == "error":
        return e["error"] - b["error"]
    return e[name] / b[name] if b[name] > 0 and e[name] > 0 else None


def trade_off(front: Json, trials: Sequence[Json], x: str, y: str) -> Json:
    """One objective against another, each as a multiple of the baseline's."""
    baseline = front["baseline"]
    data, groups = [], _groups(front, trials)
    for group, entries in groups.items():
        data.append(
            _scatter(
                group,
                entries,
                [quantity(e, baseline, x) for e in entries],
                [quantity(e, baseline, y) for e in entries],
                baseline,
            )
        )
    layout = {
        axis: {
            "title": {"text": objective_title(n, reference(front))},
            **(
                {"tickformat": ".1%"}
                if n == "error" and units.is_share(metric_name(front))
                else {"rangemode": "tozero"}
            ),
        }
        for axis, n in (("xaxis", x), ("yaxis", y))
    }
    _fit(data, layout, groups, front)
    alt = (
        f"Scatter plot of {objective_title(y, reference(front))} (up) against {objective_title(x, reference(front))} "
        "(right) for the trials, the baselines and what is on the front; lower left is better. "
        "The same numbers are in the tables."
    )
    title = f"{y} against {x}".replace("error", "drop").replace("params", "parameters")
    return {"id": f"pair-{x}-{y}", "section": "tradeoffs", "title": title, "alt": alt, "data": data, "layout": layout}
