"""What two holes do to an objective, on average over all others: partial dependence (Friedman,
"Greedy function approximation: a gradient boosting machine", 2001, section 8.2) of a tree ensemble,
with the trials as points."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..seeding import derive, generator
from ..space import Domain, Filling, Float, Int, Space
from ..space.encode import Encoding
from ..surrogate.forest import Forest
from .analysis import Analysis, Finished, target_of
from .importance import MIN_TRIALS, thinned
from .labels import objective_title, short
from .rows import Json

_CELLS = 16  # a side
_OTHERS = 32  # fillings that the other holes are averaged over
_TRIES = 4096  # fillings drawn to find these
_TREES = 48


def contour(analysis: Analysis, seed: int, units_share: bool, reference: str) -> Json | None:
    """The figure of the two most important holes that have an order and live together in MIN_TRIALS
    trials; None if there are none."""
    main, space = analysis.main, analysis.space
    if main is None or space is None:
        return None
    ordered = [s.path for s in main.shares if is_ordered(space[s.path].domain)]
    for a, b in itertools.combinations(ordered, 2):
        known = [f for f in analysis.finished if main.objective in f.values and a in f.filling and b in f.filling]
        if len(known) >= MIN_TRIALS and all(len({f.filling[p] for f in known}) > 1 for p in (a, b)):
            return _figure(space, known, (a, b), main.objective, seed, units_share, reference)
    return None


def is_ordered(domain: Domain) -> bool:
    """Numbers: a Float, an Int, or three options or more that all are numbers."""
    if isinstance(domain, (Float, Int)):
        return True
    options = domain.options(2) or []
    return (
        len(options) > 2
        and all(isinstance(o, (int, float)) and not isinstance(o, bool) for o in options)
        and len(set(options)) == len(options)
    )


def axis_values(domain: Any) -> list[Any]:
    """Up to _CELLS values of an ordered hole from low to high,
    evenly (in the logarithm if it is searched so)."""
    values = sorted(domain.options(_CELLS) or [])
    return (
        values
        if len(values) <= _CELLS
        else [values[round(i * (len(values) - 1) / (_CELLS - 1))] for i in range(_CELLS)]
    )


def surface(
    space: Space, fillings: Sequence[Filling], y: Sequence[float], pair: tuple[str, str], seed: int
) -> tuple[list[Any], list[Any], np.ndarray]:
    """(values of the first hole, of the second, mean prediction [second, first]). pair: two ordered
    holes that live in all of `fillings`."""
    encoding = Encoding(space)
    fillings, y = thinned(fillings, y)
    forest = Forest(
        encoding.rows(fillings), np.asarray(y, dtype=float), derive(seed, "contour"), trees=_TREES, min_leaf=2
    )
    rng = generator(seed, "contour others")
    drawn = (space.sample(rng) for _ in range(_TRIES))
    others = list(itertools.islice((f for f in drawn if pair[0] in f and pair[1] in f), _OTHERS)) or list(
        fillings[:_OTHERS]
    )
    base = encoding.rows(others)
    first, second = (axis_values(space[p].domain) for p in pair)
    at = [encoding.start[p] for p in pair]
    cells = []
    for v, u in itertools.product(second, first):
        place = encoding.rows([{**others[0], pair[0]: u, pair[1]: v}])[0]
        rows = base.copy()
        rows[:, at] = place[at]
        cells.append(rows)
    mean = forest.ask(np.concatenate(cells)).mean.mean(0).reshape(len(second), len(first), len(base)).mean(2)
    return first, second, mean


def _figure(
    space: Space, known: Sequence[Finished], pair: tuple[str, str], name: str, seed: int, share: bool, reference: str
) -> Json:
    y = [target_of(name, f.values[name]) for f in known]
    first, second, mean = surface(space, [f.filling for f in known], y, pair, seed)
    shown = mean if name == "error" else np.exp(mean)
    percent = name == "error" and share
    title = objective_title(name, reference)
    dark = {"color": "@fg"}
    map_trace: Json = {
        "type": "contour",
        "x": first,
        "y": second,
        "z": shown.tolist(),
        "colorscale": [[0, "@low"], [1, "@high"]],
        "ncontours": 12,
        "line": {"width": 0.5, "color": "@soft"},
        "contours": {"coloring": "heatmap"},
        "colorbar": {
            "title": {"text": "drop" if name == "error" else name, "side": "top"},
            "thickness": 12,
            "len": 0.9,
            "outlinewidth": 0,
            "tickformat": ".1%" if percent else ".3~g",
        },
        "hovertemplate": f"%{{x}}, %{{y}}: %{{z:{'.2%' if percent else '.3g'}}}<extra>mean</extra>",
    }
    points: Json = {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "showlegend": False,
        "x": [f.filling[pair[0]] for f in known],
        "y": [f.filling[pair[1]] for f in known],
        "text": [f"trial {f.number}: {_shown(name, f.values[name], percent)}" for f in known],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 6, "line": {"width": 1.2, **dark}, **dark},
    }
    layout = {axis: _axis(space[p].domain, p) for axis, p in zip(("xaxis", "yaxis"), pair, strict=True)}
    best = np.unravel_index(int(mean.argmin()), mean.shape)
    alt = (
        f"Contour plot: {title} as predicted for {pair[0]} (right) and {pair[1]} (up), the mean over all other holes; "
        f"circles are the {len(known)} trials. "
        f"Lowest near {pair[0]} = {first[best[1]]:.3g} and {pair[1]} = {second[best[0]]:.3g}."
    )
    return {
        "id": "contour",
        "section": "analysis",
        "title": f"{_word(name)} over the two most important numbers",
        "alt": alt,
        "data": [map_trace, points],
        "layout": layout,
    }


def _word(name: str) -> str:
    return "Drop" if name == "error" else name.capitalize()


def _shown(name: str, value: float, percent: bool) -> str:
    return f"{value:.2%}" if percent else f"{value:.3g}" + ("" if name == "error" else "x")


def _axis(domain: Any, path: str) -> Json:
    axis: Json = {"title": {"text": html.escape(short(path, 40))}}
    values = axis_values(domain)
    if getattr(domain, "log", False) or (
        not isinstance(domain, (Float, Int)) and values[0] > 0 and values[-1] / values[0] >= 8
    ):
        axis |= {"type": "log", "exponentformat": "e", **({"dtick": 1} if values[-1] / values[0] >= 100 else {})}
    return axis
