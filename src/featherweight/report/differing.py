"""What lies behind the winner's numbers: its times one by one, and what it gets wrong that the
original got right."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

from . import units
from .grids import Column, grid
from .rows import Json, is_best, listing, metric_name, reference
from .window import label


def latency_figure(front: Json) -> Json | None:
    """How the times of single inferences are distributed: boxes from the lower to the upper
    quarter, whiskers from 5 to 95 %; None if no such times were kept."""
    rows = [(role, e) for role, e in listing(front) if e["latency_ms"].get("quantiles")]
    if not rows:
        return None
    names = [html.escape(("best: " if is_best(front, e) else "") + label(str(e["label"]))) for _, e in rows]
    names = [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]
    low, lower, middle, upper, high, _ = zip(*(e["latency_ms"]["quantiles"] for _, e in rows), strict=True)
    boxes = {
        "type": "box",
        "orientation": "h",
        "y": names,
        "lowerfence": low,
        "q1": lower,
        "median": middle,
        "q3": upper,
        "upperfence": high,
        "line": {"color": "@base"},
        "fillcolor": "@faint",
        "hoverinfo": "x+y",
    }
    said = "; ".join(
        f"{name} {units.milliseconds(m)} ({units.milliseconds(a)} to {units.milliseconds(b)})"
        for name, m, a, b in zip(names, middle, low, high, strict=True)
    )
    return {
        "id": "latencies",
        "section": "how",
        "title": "Times of single inferences",
        "alt": f"Boxes of the wall times of single inferences: median, quarters, 5 and 95 %. {said}.",
        "data": [boxes],
        "layout": {
            "xaxis": {"title": {"text": "milliseconds, wall time"}, "type": "log"},
            "yaxis": {"title": {"text": ""}, "autorange": "reversed"},
            "showlegend": False,
        },
        "height": 140 + 34 * len(rows),
    }


def differing(front: Json) -> tuple[str, list[Json]]:
    """(a sentence, tables) about where the best differs from the original on the test split;
    ("", []) if that was not looked at."""
    best = front.get("best") or {}
    found = (best.get("certificate") or {}).get("differences")
    if not found:
        return "", []
    named, metric = reference(front), metric_name(front)
    tables = [
        _table(
            f"Samples of each class that are right ({named}, best), those that lost most first.",
            [("class", "class"), ("samples", "n"), (named, "baseline"), ("best", "candidate")],
            found.get("classes") or [],
            change=True,
        ),
        _table(
            "Mistakes that have become more frequent.",
            [("class", "class"), ("taken for", "as"), (named, "baseline"), ("best", "candidate")],
            found.get("mistakes") or [],
            change=True,
        ),
        _table(
            f"Samples that only the {named} gets right, by their row in the test split (from 0)."
            if "lost" in found
            else f"Samples whose {metric} has become worst, by their row in the test split (from 0).",
            [
                ("row", "row"),
                *([("class", "class")] if "lost" in found else []),
                (named, "baseline"),
                ("best", "candidate"),
            ],
            found.get("samples") or [],
        ),
    ]
    said = (
        f"On the test split the {named} alone gets {found['lost']} samples right, and the best alone {found['won']}."
        if "lost" in found
        else f"The samples of the test split whose {metric} differs most to the worse."
    )
    return said, [t for t in tables if t["rows"]]


def _table(caption: str, columns: Sequence[tuple[str, str]], rows: Sequence[Json], change: bool = False) -> Json:
    drawn: list[Column] = [
        (heading, "n" if any(isinstance(r.get(key), (int, float)) for r in rows) else "w", _of(key), _raw(key))
        for heading, key in columns
    ]
    if change:
        drawn.append(
            ("change", "n", lambda r: f"{r['candidate'] - r['baseline']:+d}", lambda r: r["candidate"] - r["baseline"])
        )
    return grid(caption, drawn, rows, lambda r: False, sortable=True)


def _of(key: str) -> Callable[[Json], str]:
    return lambda r: f"{r[key]:.4g}" if isinstance(r[key], float) else str(r[key])


def _raw(key: str) -> Callable[[Json], Any]:
    return lambda r: r[key]
