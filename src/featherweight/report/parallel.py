"""Every trial as a line through its settings and its objectives (Inselberg, "The plane with
parallel coordinates", 1985).

One row an axis, from top to bottom, so that long names fit a narrow screen. Drawn as plain lines:
Plotly's own `parcoords` needs WebGL and a page that may compile code, which the report's security
policy forbids.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..space import Domain
from .analysis import Analysis, Finished
from .contour import is_ordered
from .figures import MAX_POINTS
from .labels import objective_title, short
from .rows import Json, filling_text

MAX_HOLES = 12  # more axes than a reader follows
_ABSENT = -0.22  # where a hole is drawn that is not there
_TICKS = 4  # of one axis
_SPREAD = 0.3  # of the distance between options, taken by the lines of one
_ROW = 64  # pixels
_STYLES = {  # widths: the best few must stand out of the mass
    "breaks a limit": ("@faint", 0.7),
    "worse half": ("@base", 0.6),
    "better half": ("@good", 0.9),
    "best tenth": ("@front", 1.6),
}


@dataclass(frozen=True)
class Axis:
    """name: of the row; ticks: (place, text); places: of each trial, in [0, 1], _ABSENT where the
    hole is not there, None if unknown."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    places: tuple[float | None, ...]


def parallel(analysis: Analysis, reference: str, share: bool) -> Json | None:
    """The figure; None with fewer than two measured trials or no hole. share:
    the metric is a share of 1."""
    kept = [f for f in analysis.finished if analysis.objectives[0] in f.values]
    kept = kept[:: max(1, math.ceil(len(kept) / MAX_POINTS))]
    space, main = analysis.space, analysis.main
    if space is None or not space.holes or len(kept) < 2:
        return None
    paths = [s.path for s in main.shares] if main is not None else [h.path for h in space.holes]
    shown = [p for p in paths if len({str(f.filling.get(p)) for f in kept}) > 1][:MAX_HOLES]
    if not shown:
        return None
    axes = [hole_axis(p, space[p].domain, [f.filling.get(p) for f in kept]) for p in shown]
    axes += [objective_axis(n, [f.values.get(n) for f in kept], reference, share) for n in analysis.objectives]
    left = len(space.holes) - len(shown)
    alt = (
        f"Parallel coordinates: {len(kept)} trials as lines through {len(shown)} settings and "
        f"{len(analysis.objectives)} objectives, from top to bottom, "
        "those that meet the limits in three colours by "
        f"{analysis.objectives[0].replace('error', 'the drop in the metric')} (best tenth, better and worse half), "
        "the others grey; less is better and stands left."
    )
    alt += f" {left} settings that varied least or explained least are left out." if left else ""
    layout = _layout(axes)
    height = _ROW * len(axes) + 90
    data = _lines(kept, axes, analysis.objectives[0])
    return {
        "id": "parallel",
        "section": "analysis",
        "title": "Settings and what they gave",
        "alt": alt,
        "data": data,
        "layout": layout,
        "height": height,
    }


def hole_axis(path: str, domain: Domain, values: Sequence[Any]) -> Axis:
    """values: of each trial, None where the hole is not there."""
    ends = [(_ABSENT, "not there")] if any(v is None for v in values) else []
    options = domain.options(None)
    if options is None or (is_ordered(domain) and len(options) > _TICKS):
        scaled, ticks = _scaled([None if v is None else float(v) for v in values], bool(getattr(domain, "log", False)))
        return Axis(
            path,
            (*ends, *((place, f"{v:.3g}") for place, v in ticks)),
            tuple(_ABSENT if v is None else s for v, s in zip(values, scaled, strict=True)),
        )
    names = [str(o) for o in (sorted(options) if is_ordered(domain) else options)]
    seen = [n for n in names if n in {str(v) for v in values}] if len(names) > _TICKS else names
    at = {n: i / max(len(seen) - 1, 1) for i, n in enumerate(seen)}
    every = math.ceil(len(seen) / _TICKS)
    named = [(at[n], short(n, 14)) for n in seen[::every]]
    wide = 0.5 * _SPREAD / max(len(seen), 2)
    return Axis(
        path,
        (*ends, *named),
        tuple(_ABSENT if v is None else at[str(v)] + wide * _offset(i) for i, v in enumerate(values)),
    )


def _offset(i: int) -> float:
    """From -1 to 1, evenly filled whatever the number of trials (multiples of the golden ratio):
    lines of one option are drawn side by side."""
    return 2.0 * (i * 0.6180339887498949 % 1.0) - 1.0


def objective_axis(name: str, values: Sequence[float | None], reference: str, share: bool) -> Axis:
    """An objective, less is left."""
    scaled, ticks = _scaled(list(values), name != "error")
    text = "{:.2%}" if name == "error" and share else "{:.3g}" if name == "error" else "{:.2f}x"
    return Axis(objective_title(name, reference), tuple((p, text.format(v)) for p, v in ticks), tuple(scaled))


def _scaled(values: Sequence[float | None], log: bool) -> tuple[list[float | None], list[tuple[float, float]]]:
    """Places in [0, 1] between the least and the largest value (of their logarithms if all are
    positive and `log`), and (place, value) of ticks."""
    known = [v for v in values if v is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    log = log and low > 0

    def place(v: float) -> float:
        if high == low:
            return 0.5
        return math.log(v / low) / math.log(high / low) if log else (v - low) / (high - low)

    middle = math.sqrt(low * high) if log else (low + high) / 2
    ticks = [] if not known else [(0.5, low)] if high == low else [(0.0, low), (0.5, middle), (1.0, high)]
    return [None if v is None else place(v) for v in values], ticks


def _lines(kept: Sequence[Finished], axes: Sequence[Axis], main: str) -> list[Json]:
    """One trace a class of trials; lines of the same trace are parted by a gap."""
    ranked = sorted(f.values[main] for f in kept if f.entry.get("feasible"))
    tenth = ranked[max(0, math.ceil(len(ranked) / 10) - 1)] if ranked else -math.inf
    half = ranked[(len(ranked) - 1) // 2] if ranked else -math.inf

    def kind(f: Finished) -> str:
        if not f.entry.get("feasible"):
            return "breaks a limit"
        return "best tenth" if f.values[main] <= tenth else "better half" if f.values[main] <= half else "worse half"

    out = []
    kinds = [kind(f) for f in kept]
    for name, (colour, width) in _STYLES.items():
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for i, f in enumerate(kept):
            if kinds[i] == name:
                hover = f"trial {f.number}<br>" + html.escape(short(filling_text(f.filling), 160)).replace(", ", "<br>")
                x += [*(a.places[i] for a in axes), None]
                y += [*(float(-j) for j in range(len(axes))), None]
                text += [*([hover] * len(axes)), ""]
        if x:
            line = {"color": colour, "width": width}
            out.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "x": x,
                    "y": y,
                    "text": text,
                    "hovertemplate": "%{text}<extra></extra>",
                    "line": line,
                }
            )
    return out


def _layout(axes: Sequence[Axis]) -> Json:
    """A grey rule an axis, its name above at the left, its values below."""
    shapes, notes = [], []
    for j, axis in enumerate(axes):
        shapes.append(
            {
                "type": "line",
                "x0": _ABSENT,
                "x1": 1,
                "y0": -j,
                "y1": -j,
                "line": {"color": "@line", "width": 1},
                "layer": "below",
            }
        )
        name = f"<b>{html.escape(short(axis.name, 44))}</b>"
        base = {"y": -j, "showarrow": False, "bgcolor": "@bg", "borderpad": 1}
        notes.append(
            {**base, "text": name, "x": _ABSENT, "xanchor": "left", "yshift": 16, "font": {"size": 12, "color": "@fg"}}
        )
        for place, text in axis.ticks:
            anchor = "left" if place <= 0 else "right" if place >= 1 else "center"
            notes.append(
                {
                    **base,
                    "text": html.escape(text),
                    "x": place,
                    "xanchor": anchor,
                    "yshift": -11,
                    "font": {"size": 10.5, "color": "@soft"},
                }
            )
    plain: Json = {
        "showgrid": False,
        "zeroline": False,
        "showticklabels": False,
        "showline": False,
        "ticks": "",
        "title": {"text": ""},
    }
    return {
        "xaxis": {**plain, "range": [_ABSENT - 0.06, 1.06], "fixedrange": True},
        "yaxis": {**plain, "range": [-(len(axes) - 1) - 0.5, 0.6], "fixedrange": True},
        "shapes": shapes,
        "annotations": notes,
        "tight": True,
    }
