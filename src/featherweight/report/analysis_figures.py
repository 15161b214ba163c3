"""The figures of the trial analysis: importance, parallel coordinates, contour, learning curves,
strategy credit."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from .analysis import Analysis
from .contour import contour
from .credit import Decision
from .figures import MAX_POINTS
from .history import DASHES
from .labels import short, stacked
from .parallel import parallel
from .rows import Json

_MAX_BARS = 12
_MAX_CURVES = 200
LINES = 8  # colours for lines: @line0 ..


def analysis_figures(analysis: Analysis, trials: Sequence[Json], seed: int, share: bool, reference: str) -> list[Json]:
    """All that there is data for, in the order in which they are shown. share: the metric is a
    share of 1; reference: what the baseline is."""
    found = [
        importance_figure(analysis),
        parallel(analysis, reference, share),
        contour(analysis, seed, share, reference),
        learning_curves(trials),
        *credit_figures(analysis.decisions),
    ]
    return [f for f in found if f is not None]


def importance_figure(analysis: Analysis) -> Json | None:
    """Bars with intervals, the most important hole at the top;
    None if no importance may be claimed."""
    told = [i for i in analysis.importances if i.shares]
    if not told:
        return None
    most = {s.path: max(next(t.share for t in i.shares if t.path == s.path) for i in told) for s in told[0].shares}
    paths = sorted(most, key=lambda p: -most[p])[:_MAX_BARS]
    data = []
    for n, i in enumerate(told):
        by_path = {s.path: s for s in i.shares}
        shares = [by_path[p] for p in paths]
        bars = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 3, "color": "@fg"}
        bars |= {
            "array": [max(0.0, s.high - s.share) for s in shares],
            "arrayminus": [max(0.0, s.share - s.low) for s in shares],
        }
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": i.objective.replace("error", "drop"),
                "x": [s.share for s in shares],
                "y": list(range(len(paths))),
                "text": [f"{html.escape(s.path)}: {s.share:.0%} ({s.low:.0%} to {s.high:.0%})" for s in shares],
                "hovertemplate": "%{text}<extra></extra>",
                "textposition": "none",
                "error_x": bars,
                "marker": {"color": f"@line{n % LINES}"},
            }
        )
    layout: Json = {
        "xaxis": {"title": {"text": "share of the variance"}, "tickformat": ".0%", "rangemode": "tozero"},
        "yaxis": {
            "title": {"text": ""},
            "tickvals": list(range(len(paths))),
            "ticktext": [stacked(p) for p in paths],
            "autorange": "reversed",
            "tickfont": {"size": 11},
        },
        "barmode": "group",
    }
    top = ", ".join(f"{s.path} {s.share:.0%}" for s in told[0].shares[:3])
    alt = (
        "Bar chart: the share of the variance that each hole explains alone, with 90 % intervals. "
        f"For {told[0].objective.replace('error', 'drop')}: "
        f"{top}; {told[0].rest:.0%} is left to interactions."
    )
    height = max(260, 130 + (20 + 14 * len(told)) * len(paths))
    return {
        "id": "importance",
        "section": "analysis",
        "title": "Importance of each hole",
        "alt": alt,
        "data": data,
        "layout": layout,
        "height": height,
    }


def learning_curves(trials: Sequence[Json]) -> Json | None:
    """Score against epochs of the trials that told theirs while they trained; None if none did."""
    told = [t for t in trials if t.get("reports")]
    told = told[:: max(1, math.ceil(len(told) / _MAX_CURVES))]
    if not told:
        return None
    groups = {"failed": ("@bad", "dot"), "stopped early": ("@faint", "solid"), "complete": ("@front", "solid")}
    data = []
    for group, (colour, dash) in groups.items():
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for t in told:
            if {"failed": "failed", "complete": "complete"}.get(t["state"], "stopped early") != group:
                continue
            points = sorted((float(k), float(v)) for k, v in t["reports"].items() if v is not None)
            x += [*(float(e) for e, _ in points), None]
            y += [*(s for _, s in points), None]
            text += [*(f"trial {t['number']}, {e:g} epochs: {s:.4g}" for e, s in points), ""]
        if x:
            marker = {"color": colour, "size": 5}
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": group,
                    "x": x,
                    "y": y,
                    "text": text,
                    "marker": marker,
                    "hovertemplate": "%{text}<extra></extra>",
                    "line": {"color": colour, "width": 1.2, "dash": dash},
                }
            )
    layout = {
        "xaxis": {"title": {"text": "epochs trained"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "score (less is better)"}},
    }
    early = sum(t["state"] not in ("complete", "failed") for t in trials if t.get("reports"))
    alt = (
        f"Lines: the score of each of {len(told)} trials while it trained, against epochs; {early} were stopped early."
    )
    return {
        "id": "curves",
        "section": "analysis",
        "title": "Learning curves",
        "alt": alt,
        "data": data,
        "layout": layout,
    }


def credit_figures(decisions: Sequence[Decision]) -> list[Json]:
    """Trials of each strategy so far, stacked, and its credit and probability when each trial was
    given; [] if no note names a strategy."""
    if not decisions:
        return []
    kept = list(decisions[:: max(1, math.ceil(len(decisions) / MAX_POINTS))])
    names = sorted({d.arm for d in decisions} | {a for d in kept for a in (*d.credits, *d.probabilities)})
    figures = [_stack(decisions, kept, names)]
    for field, title, unit in (
        ("credits", "Credit of each strategy", "credit"),
        ("probabilities", "Probability of each strategy", "probability"),
    ):
        lines = []
        for i, name in enumerate(names):
            points = [(d.number, getattr(d, field)[name]) for d in kept if name in getattr(d, field)]
            if points:
                line = {"color": f"@line{i % LINES}", "dash": DASHES[i // LINES % len(DASHES)], "width": 1.6}
                lines.append(
                    {
                        "type": "scatter",
                        "mode": "lines",
                        "name": html.escape(short(name)),
                        "x": [p[0] for p in points],
                        "y": [p[1] for p in points],
                        "line": line,
                    }
                )
        if lines:
            alt = (
                f"Lines: the {unit} that the portfolio gave each of its {len(lines)} strategies, "
                "against the trial's number. Totals are in the table."
            )
            layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": unit}, "rangemode": "tozero"}}
            figures.append(
                {"id": field, "section": "credit", "title": title, "alt": alt, "data": lines, "layout": layout}
            )
    return figures


def _stack(decisions: Sequence[Decision], kept: Sequence[Decision], names: Sequence[str]) -> Json:
    """Cumulative trials of each strategy, one on the other."""
    counts = dict.fromkeys(names, 0)
    rows = {}
    for d in decisions:
        counts[d.arm] += 1
        rows[d.number] = dict(counts)
    data: list[Json] = []
    for i, name in enumerate(names):
        if counts[name]:
            colour = f"@line{i % LINES}"
            trace: Json = {"type": "scatter", "mode": "lines", "name": html.escape(short(name)), "stackgroup": "trials"}
            trace |= {"line": {"color": colour, "width": 1}, "fillcolor": colour, "opacity": 0.75}
            data.append({**trace, "x": [d.number for d in kept], "y": [rows[d.number][name] for d in kept]})
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": "trials so far"}}}
    share = ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda n: -counts[n]) if counts[name])
    alt = (
        f"Stacked areas: how many trials each strategy has proposed, against the trial's number. In the end: {share}; "
    )
    alt += "others, if any, are what the baselines, guesses or earlier studies spoke for."
    return {
        "id": "given",
        "section": "credit",
        "title": "Trials given to each strategy",
        "alt": alt,
        "data": data,
        "layout": layout,
    }
