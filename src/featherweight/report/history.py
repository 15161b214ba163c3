"""How the search went: the best value so far of each objective,
and the hypervolume, trial by trial."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence

from ..limits import objectives
from ..pareto import front as pareto_front
from ..pareto import hypervolume
from ..records import Entry
from .credit import arm_of
from .labels import short
from .rows import Json, listing, reference

CHECKPOINTS = 200  # hypervolumes computed: each costs time, and a plot shows no more
MAX_MARKS = 2000
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
Point = tuple[float, ...]


def history(front: Json, trials: Sequence[Json], names: Sequence[str]) -> list[Json]:
    """Two or three figures over the trials, of the feasible ones only; none if there are none.
    names: the objectives."""
    baseline = Entry.from_json(front["baseline"])

    def point(entry: Json) -> Point:
        return objectives(Entry.from_json(entry), baseline, list(names))

    found = [(int(t["number"]), point(t["entry"])) for t in trials if t.get("entry") and t["entry"].get("feasible")]
    points = [(n, p) for n, p in found if all(map(math.isfinite, p))]
    after = [(int(f["trial"]), point(f["entry"])) for f in front.get("finalists") or [] if f["entry"].get("feasible")]
    after = [(n, p) for n, p in after if all(map(math.isfinite, p))]
    if not points:  # none of the trials met the limits before it was trained on
        points, after = after, []
    if not points:
        return []
    start = [point(e) for role, e in listing(front) if role == "baseline" and e.get("feasible")]
    proposed = {int(t["number"]): arm for t in trials if (arm := arm_of(t)) is not None}
    named = reference(front)
    ratios = [i for i, name in enumerate(names) if name != "error"]
    kinds = [k for k in (ratios, [i for i, name in enumerate(names) if name == "error"]) if k]
    kinds.sort(key=lambda k: k[0])
    best = [_best(points, after, names, kind, proposed if n == 0 else {}, named) for n, kind in enumerate(kinds)]
    return [*best, _volume(points, [p for _, p in after], start, names, named)]


def volume_note(names: Sequence[str], reference: str) -> str:
    """What the hypervolume is a share of."""
    # a metric has no zero to measure from, and a search need not beat its baseline
    # everywhere to get on
    if "error" in names:
        return (
            "Hypervolume is the share of the box between the best and the worst value of each objective that the "
            "feasible candidates dominate"
        )
    return (
        f"Hypervolume is the share of the space between the {reference} and zero that the feasible candidates dominate"
    )


def _line(name: str, x: Sequence[int], y: Sequence[float], colour: str, dash: str = "solid") -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"shape": "hv", "color": colour, "dash": dash},
    }


def _axes(y: str) -> Json:
    return {
        "xaxis": {"title": {"text": "trial"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
    }


def _shown(name: str, value: float) -> float:
    """`error` is exp(drop) among the objectives; the drop is shown."""
    return math.log(value) if name == "error" else value


def _arms(points: Sequence[tuple[int, Point]], proposed: Mapping[int, str], at: int, name: str) -> list[Json]:
    """Objective `at` of each trial, coloured by the strategy that proposed it."""
    kept = points[:: max(1, math.ceil(len(points) / MAX_MARKS))]
    out = []
    for i, arm in enumerate(sorted({proposed[n] for n, _ in kept if n in proposed})):
        mine = [(n, _shown(name, p[at])) for n, p in kept if proposed.get(n) == arm]
        marker = {"color": f"@line{i % 8}", "size": 5, "symbol": SYMBOLS[i % len(SYMBOLS)], "opacity": 0.8}
        hover = f"trial %{{x}}, {name.replace('error', 'drop')} %{{y:.3g}}<extra>{html.escape(arm)}</extra>"
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(short(arm)),
            "marker": marker,
            "hovertemplate": hover,
        }
        out.append({**trace, "x": [n for n, _ in mine], "y": [y for _, y in mine]})
    return out


def _finalists(after: Sequence[tuple[int, Point]], at: int, name: str) -> Json:
    """Objective `at` of what was trained on, at its trial's number."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "finalists",
        "x": [n for n, _ in after],
        "y": [_shown(name, p[at]) for _, p in after],
        "marker": {"color": "@good", "size": 9, "symbol": "star", "opacity": 0.9},
        "hovertemplate": f"trial %{{x}}, trained on: {name.replace('error', 'drop')} %{{y:.3g}}<extra></extra>",
    }


def _best(
    points: Sequence[tuple[int, Point]],
    after: Sequence[tuple[int, Point]],
    names: Sequence[str],
    kind: Sequence[int],
    proposed: Mapping[int, str],
    reference: str,
) -> Json:
    """The objectives of one kind: ratios, or the drop of the metric."""
    lines, error = [], names[kind[0]] == "error"
    for i in kind:
        so_far: list[float] = list(
            itertools.accumulate((_shown(names[i], p[i]) for _, p in points), lambda a, b: min(a, b))
        )
        lines.append(
            _line(names[i].replace("error", "drop"), [n for n, _ in points], so_far, f"@line{i % 4}", DASHES[i % 4])
        )
    what = f"drop of the metric below the {reference}'s" if error else "value of each objective"
    alt = f"Lines: the lowest {what} so far among the trials that meet the limits, against the trial's number."
    marks = _arms(points, proposed, kind[0], names[kind[0]])
    alt += (
        (
            f" Points: {names[kind[0]].replace('error', 'the drop')} of each of these trials, "
            "coloured by the strategy that proposed it."
        )
        if marks
        else ""
    )
    if after:
        marks.append(_finalists(after, kind[0], names[kind[0]]))
        alt += f" Stars: {names[kind[0]].replace('error', 'the drop')} of the finalists, which were trained on."
    layout = _axes("drop in the metric" if error else f"multiple of the {reference}'s")
    title, name = ("Best metric so far", "best-error") if error else ("Best so far", "best")
    return {"id": name, "section": "history", "title": title, "alt": alt, "data": [*lines, *marks], "layout": layout}


def _volume(
    points: Sequence[tuple[int, Point]],
    after: Sequence[Point],
    start: Sequence[Point],
    names: Sequence[str],
    named: str,
) -> Json:
    """The volume that is dominated, as a share of the box that `volume_note` tells;
    only the front so far is kept. after: of the finalists, which come when the trials are over."""
    every = max(1, len(points) // CHECKPOINTS)
    marks = [i for i in range(len(points)) if i % every == 0 or i == len(points) - 1]
    corner, size = [1.0] * len(names), 1.0
    if "error" in names:
        every_point = [*start, *(p for _, p in points), *after, tuple(corner)]
        start = [*start, tuple(corner)]
        corner = [max(p[i] for p in every_point) for i in range(len(names))]
        size = math.prod(max(c - min(p[i] for p in every_point), 1e-12) for i, c in enumerate(corner))
    kept, volumes, taken = list(start), [], 0
    for i in marks:
        kept += [p for _, p in points[taken : i + 1]]
        taken = i + 1
        kept = [kept[j] for j in pareto_front(kept)]
        volumes.append(hypervolume(kept, corner) / size)
    floor = hypervolume(start, corner) / size
    xs = [points[i][0] for i in marks]
    if after:
        xs.append(xs[-1] + 1)
        volumes.append(hypervolume([(kept + list(after))[j] for j in pareto_front(kept + list(after))], corner) / size)
    lines = [
        _line("with the search", xs, volumes, "@front"),
        _line("baselines alone", [xs[0], xs[-1]], [floor, floor], "@base", "dash"),
    ]
    box = volume_note(names, named).replace("Hypervolume is t", "t")
    objectives_named = ", ".join(names).replace("error", "drop")
    last = ", its last point with the finalists" if after else ""
    alt = (
        f"Line: {box} ({objectives_named}), against the trial's number{last}; "
        f"it ends at {volumes[-1]:.3f}, the baselines alone reach {floor:.3f}."
    )
    return {
        "id": "volume",
        "section": "history",
        "title": "Hypervolume",
        "alt": alt,
        "data": lines,
        "layout": _axes("share dominated"),
    }
