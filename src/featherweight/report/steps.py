"""What the steps of a candidate did: to its layers, as its artifact's manifest tells, and to its
numbers, as far as its beginnings were measured among the trials."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from . import units
from .figures import quantity
from .labels import objective_title
from .rows import Json, metric_name, reference

_SHOWN = ("error", "latency", "size")  # of each measured beginning


def layer_changes(manifest: Json) -> list[Json]:
    """One line a layer (or group of channels, or block): {"layer", "before", "after" (widths, None:
    not cut), "held" (how it is stored and run), "whole" (why it was left)}, in the manifest's
    order; empty where nothing is told."""
    lines: dict[str, Json] = {}

    def line(name: str) -> Json:
        return lines.setdefault(name, {"layer": name, "before": None, "after": None, "held": "", "whole": ""})

    for note in manifest.get("notes") or []:
        for name, ends in _mapping(note.get("widths")).items():
            if isinstance(ends, (list, tuple)) and len(ends) == 2:  # else how many layers have a width in bits
                found = line(name)
                found["before"] = ends[0] if found["before"] is None else found["before"]
                found["after"] = ends[1]
        for name, why in _mapping(note.get("whole")).items():
            line(name)["whole"] = str(why)
        if note.get("step") == "factorize":
            for name, done in _mapping(note.get("layers")).items():
                line(name)["held"] = f"product of factors of rank {', '.join(map(str, done.get('ranks') or []))}"
        for path, index in note.get("dropped") or []:
            line(f"{path}, block {index}")["held"] = "removed"
    for name, how in _mapping(((manifest.get("export") or {}).get("coverage") or {}).get("layers")).items():
        line(name)["held"] = str(how)
    return list(lines.values())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def beginnings(front: Json, trials: Sequence[Json]) -> list[tuple[str, Json]]:
    """(steps since the one before, entry) of the best candidate's beginnings that were measured
    for its target, the original first, itself last; empty if none between them was."""
    best, original = front.get("best"), front.get("baseline")
    steps = _steps(best)
    if best is None or original is None or best.get("target") != original.get("target"):
        return []
    others = [*(front.get("baselines") or []), *(t["entry"] for t in trials if t.get("entry"))]
    measured = {_key(_steps(e)): e for e in reversed(others) if e.get("target") == best["target"]}
    out, since = [("", original)], 0
    for n in range(1, len(steps) + 1):
        entry = best if n == len(steps) else measured.get(_key(steps[:n]))
        if entry is not None:
            out.append((" + ".join(next(iter(s), "?") for s in steps[since:n]), entry))
            since = n
    return out if len(out) > 2 else []


def _steps(entry: Json | None) -> list[Json]:
    recipe = (entry or {}).get("recipe")
    steps = recipe.get("recipe") if isinstance(recipe, dict) else recipe
    return [s for s in steps if isinstance(s, dict)] if isinstance(steps, list) else []


def _key(steps: Sequence[Json]) -> str:
    return repr(steps)


def waterfalls(front: Json, trials: Sequence[Json]) -> list[Json]:
    """What each step cost and gained, one figure a quantity; none if no beginning was measured."""
    found = beginnings(front, trials)
    return [figure for name in _SHOWN if found and (figure := _waterfall(front, found, name)) is not None]


def _waterfall(front: Json, found: Sequence[tuple[str, Json]], name: str) -> Json | None:
    baseline, named, share = front["baseline"], reference(front), units.is_share(metric_name(front))
    values = [v for _, e in found if (v := quantity(e, baseline, name)) is not None]
    if len(values) < len(found):
        return None
    changes = [b - a for a, b in zip(values, values[1:], strict=False)]

    def show(change: float) -> str:
        return f"{change:+.2f}x" if name != "error" else f"{change:+.2%}" if share else f"{change:+.3g}"

    steps = [f"{n}. {html.escape(step)}" for n, (step, _) in enumerate(found[1:], 1)]
    title = objective_title(name, named)
    said = "; ".join(f"{s} {show(c)}" for s, c in zip(steps, changes, strict=True))
    trace = {
        "type": "waterfall",
        "x": [named, *steps, "best"],
        "measure": ["absolute", *("relative" for _ in steps), "total"],
        "y": [values[0], *changes, values[-1]],
        "text": ["", *map(show, changes), ""],
        "hovertemplate": "%{x}: %{text}<extra></extra>",
        "increasing": {"marker": {"color": "@bad"}},
        "decreasing": {"marker": {"color": "@good"}},
        "totals": {"marker": {"color": "@base"}},
        "connector": {"line": {"color": "@faint"}},
    }
    axis = {"title": {"text": title}, **({"tickformat": ".1%"} if name == "error" and share else {})}
    return {
        "id": f"steps-{name}",
        "section": "steps",
        "title": f"{title.split(' (')[0]}, step by step",
        "alt": f"Waterfall of {title} from the {named} to the best candidate; less is better. {said}.",
        "data": [trace],
        "layout": {"xaxis": {"title": {"text": "step"}}, "yaxis": axis, "showlegend": False},
    }
