"""How the search went: the best value so far of each objective, and the hypervolume, trial by trial."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..limits import objectives
from ..pareto import front as pareto_front
from ..pareto import hypervolume
from ..records import Entry
from .rows import Json, listing

CHECKPOINTS = 200  # hypervolumes computed: each costs time, and a plot shows no more
DASHES = ("solid", "dash", "dot", "dashdot")
Point = tuple[float, ...]


def history(front: Json, trials: Sequence[Json], names: Sequence[str]) -> list[Json]:
    """Two figures over the trials, of the feasible ones only; none if there are none. names: the objectives."""
    baseline = Entry.from_json(front["baseline"])

    def point(entry: Json) -> Point:
        return objectives(Entry.from_json(entry), baseline, list(names))

    points = [(int(t["number"]), point(t["entry"])) for t in trials if t.get("entry") and t["entry"].get("feasible")]
    if not points:
        return []
    start = [point(e) for role, e in listing(front) if role == "baseline" and e.get("feasible")]
    return [_best(points, names), _volume(points, start, names)]


def _line(name: str, x: Sequence[int], y: Sequence[float], colour: str, dash: str = "solid") -> Json:
    return {"type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": list(y), "line": {"shape": "hv", "color": colour, "dash": dash}}


def _axes(y: str) -> Json:
    return {"xaxis": {"title": {"text": "trial"}, "rangemode": "tozero"}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}


def _best(points: Sequence[tuple[int, Point]], names: Sequence[str]) -> Json:
    lines = []
    for i, name in enumerate(names):
        so_far: list[float] = list(itertools.accumulate((p[i] for _, p in points), lambda a, b: min(a, b)))
        lines.append(_line(name, [n for n, _ in points], so_far, f"@line{i % 4}", DASHES[i % 4]))
    alt = "Lines: the lowest value so far of each objective among the trials that meet the limits, against the trial's number."
    return {"id": "best", "title": "Best so far", "alt": alt, "data": lines, "layout": _axes("multiple of the original's")}


def _volume(points: Sequence[tuple[int, Point]], start: Sequence[Point], names: Sequence[str]) -> Json:
    """The volume between the original (1 in every objective) and zero that is dominated; only the front so far is kept."""
    every = max(1, len(points) // CHECKPOINTS)
    marks = [i for i in range(len(points)) if i % every == 0 or i == len(points) - 1]
    reference = [1.0] * len(names)
    kept, volumes, taken = list(start), [], 0
    for i in marks:
        kept += [p for _, p in points[taken : i + 1]]
        taken = i + 1
        kept = [kept[j] for j in pareto_front(kept)]
        volumes.append(hypervolume(kept, reference))
    floor = hypervolume(start, reference)
    xs = [points[i][0] for i in marks]
    lines = [_line("with the search", xs, volumes, "@front"), _line("baselines alone", [xs[0], xs[-1]], [floor, floor], "@base", "dash")]
    alt = (
        f"Line: the share of the space between the original and zero ({', '.join(names)}) that the feasible candidates dominate, "
        f"against the trial's number; it ends at {volumes[-1]:.3f}, the baselines alone reach {floor:.3f}."
    )
    return {"id": "volume", "title": "Hypervolume", "alt": alt, "data": lines, "layout": _axes("share dominated")}
