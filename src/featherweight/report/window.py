"""Axes that show what is compared: what lies far outside (a slow runtime, a model that a cut has
ruined) stands at the border, named, and does not press the rest into a corner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .labels import short

Json = dict[str, Any]
ALIKE = 2.0  # times the span of what is compared, up to which the axis shows all
_MARGIN = 0.15  # of the span, at both ends
_TRIMMED = 0.05  # of the other candidates, at each end, need not be shown
_LETTER, _LINE = 0.011, 0.06  # of the plot: how wide a letter of a name is, how high a line
# a mark at a border: (axis, is it beyond the upper end) -> symbol, where its text may stand
_ARROWS = {
    ("x", True): ("triangle-right", ("middle left", "top left", "bottom left")),
    ("x", False): ("triangle-left", ("middle right", "top right", "bottom right")),
    ("y", True): ("triangle-up", ("bottom center", "bottom left", "bottom right")),
    ("y", False): ("triangle-down", ("top center", "top left", "top right")),
}


def window(
    core: Sequence[float], rest: Sequence[float], zero: bool = False, others: Sequence[float] = ()
) -> tuple[float, float] | None:
    """The ends of an axis that shows all of `core`, and of `rest` all but the extremes; None if
    everything, `others` too, fits in ALIKE times that. zero: the axis begins at 0."""
    order = sorted(rest)
    cut = math.ceil(_TRIMMED * len(order)) if len(order) > 2 else 0
    near = [*core, *order[cut : len(order) - cut], *([0.0] if zero else [])]
    if not near:
        return None
    low, high = min(near), max(near)
    span = high - low or abs(high) or 1.0
    slack = (ALIKE - 1.0) * span
    if all(low - slack <= v <= high + slack for v in [*core, *rest, *others]):
        return None
    return (low if zero else low - _MARGIN * span), high + _MARGIN * span


def fit_axes(
    data: list[Json], layout: Json, names: Sequence[Sequence[str]], core: Sequence[Sequence[bool | None]]
) -> None:
    """Set the ranges of a scatter plot's axes, where some points lie far from those that are
    compared, and move these to the border in a trace of their own. names: what each point of each
    trace is called there (empty: it is not named); core: which points have to be seen (None: it
    does not matter)."""
    ends: dict[str, tuple[float, float]] = {}
    for axis in ("x", "y"):
        seen = [
            (float(v), c)
            for trace, marks in zip(data, core, strict=True)
            for v, c in zip(trace[axis], marks, strict=True)
            if v is not None
        ]
        lines = [s[f"{axis}0"] for s in layout.get("shapes") or [] if s[f"{axis}0"] == s[f"{axis}1"]]
        zero = layout[f"{axis}axis"].get("rangemode") == "tozero"
        wanted, bulk, others = ([v for v, c in seen if c is kind] for kind in (True, False, None))
        found = window([*wanted, *(v for v in lines if _near(v, wanted, zero))], bulk, zero, [*others, *lines])
        if found is not None:
            ends[axis] = found
            layout[f"{axis}axis"]["range"] = list(found)
            for note in layout.get("annotations") or []:  # of a limit that lies beyond
                if note.get(f"{axis}ref") != "paper" and not found[0] <= note[axis] <= found[1]:
                    note[axis] = min(max(note[axis], found[0]), found[1])
                    note["text"] += " (beyond)"
    if ends:
        for trace, marks in zip(data, core, strict=True):
            for axis in ends if not any(marks) else ():
                trace.pop(f"error_{axis}", None)  # intervals of all would cross the whole plot
        shown = {axis: _format(layout[f"{axis}axis"]) for axis in ends}
        moved = [_beyond(trace, called, ends, shown) for trace, called in zip(data, names, strict=True)]
        kept = [
            (float(x), float(y))
            for trace, marks in zip(data, core, strict=True)
            for x, y, c in zip(trace["x"], trace["y"], marks, strict=True)
            if x is not None and y is not None and c is not False
        ]
        for beyond in filter(None, moved):
            _place(beyond, kept)
            data.append(beyond)


def _near(line: float, wanted: Sequence[float], zero: bool) -> bool:
    """Is a limit's line so near to what has to be seen that the axis should show it?"""
    if not wanted:
        return True
    low, high = min([*wanted, *([0.0] if zero else [])]), max(wanted)
    slack = (ALIKE - 1.0) * (high - low or abs(high) or 1.0)
    return low - slack <= line <= high + slack


def _format(axis: Json) -> str:
    """How a value of an axis is written: a share in percent, a multiple, or a number."""
    return "{:.1%}" if "%" in axis.get("tickformat", "") else "{:.3g}x" if axis.get("rangemode") else "{:.3g}"


def _beyond(
    trace: Json, names: Sequence[str], ends: dict[str, tuple[float, float]], shown: dict[str, str]
) -> Json | None:
    """The trace of the points that lie outside, which are taken out of `trace`; None if none do."""
    out: Json = {"x": [], "y": [], "text": [], "marks": [], "symbols": [], "places": []}
    for i, at in enumerate(zip(trace["x"], trace["y"], strict=True)):
        point, side = dict(zip("xy", at, strict=True)), None
        for axis, (low, high) in ends.items():
            if point[axis] is not None and not low <= point[axis] <= high:
                side = axis, point[axis] > high
                point[axis] = min(max(point[axis], low), high)
        if side is None:
            continue
        symbol, place = _ARROWS[side]
        far = shown[side[0]].format(at["xy".index(side[0])])
        for key, value in (("x", point["x"]), ("y", point["y"]), ("text", trace["text"][i])):
            out[key].append(value)
        out["marks"].append(f"{names[i]}: {far}" if names[i] else "")
        out["symbols"].append(symbol)
        out["places"].append(place[0])
        trace["x"][i] = trace["y"][i] = None
    if not out["x"]:
        return None
    _join(out)
    marker = trace["marker"]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "beyond the axis",
        "showlegend": False,
        "cliponaxis": False,
        "x": out["x"],
        "y": out["y"],
        "text": out["marks"],
        "textposition": out["places"],
        "hovertext": out["text"],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"color": marker["color"], "symbol": out["symbols"], "size": 10},
        "textfont": {"size": 11, "color": marker["color"]},
    }


def _place(beyond: Json, seen: Sequence[tuple[float, float]]) -> None:
    """Put the name of each mark at the border where it covers the fewest of the points `seen`."""
    marks = list(zip(beyond["x"], beyond["y"], strict=True))
    low, high = ([end(at[i] for at in [*marks, *seen]) for i in (0, 1)] for end in (min, max))

    def share(at: tuple[float, float]) -> list[float]:
        return [(at[i] - low[i]) / ((high[i] - low[i]) or 1.0) for i in (0, 1)]

    points = list(map(share, seen))
    for n, (at, text) in enumerate(zip(marks, beyond["text"], strict=True)):
        ways = next(places for symbol, places in _ARROWS.values() if symbol == beyond["marker"]["symbol"][n])
        x, y = share(at)

        def covered(place: str, x: float = x, y: float = y, width: float = _LETTER * len(text)) -> int:
            up, side = place.split()
            bottom = y + {"top": _LINE / 3, "middle": -_LINE / 2, "bottom": -4 * _LINE / 3}[up]
            left = x + {"left": -width, "center": -width / 2, "right": 0.0}[side]
            return sum(left <= px <= left + width and bottom <= py <= bottom + _LINE for px, py in points)

        beyond["textposition"][n] = min(ways, key=covered)


def _join(out: Json) -> None:
    """Write the names of points that stand in one place beside the first of them."""
    first: dict[Any, int] = {}
    for i, place in enumerate(zip(out["x"], out["y"], out["symbols"], strict=True)):
        at = first.setdefault(place, i)
        if at != i and out["marks"][i]:
            out["marks"][at] = ", ".join(filter(None, (out["marks"][at], out["marks"][i])))
            out["marks"][i] = ""


def label(text: str) -> str:
    """What a point at the border is called: short."""
    return short(text, 28)
