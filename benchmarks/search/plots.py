"""The critical-difference plot and the curves, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import stats


def groups(ranks: Mapping[str, float], difference: float) -> list[tuple[float, float]]:
    """The longest stretches of ranks that lie within `difference`:
    (first, last), none inside another."""
    values = sorted(ranks.values())
    spans = [(v, max(w for w in values if w - v <= difference)) for v in values]
    return [s for i, s in enumerate(spans) if s[1] > s[0] and all(s[1] > t[1] for t in spans[:i])]


def critical_difference(ranks: Mapping[str, float], difference: float, title: str, path: Path) -> None:
    """Methods on a line of mean ranks, the best on the left; bars join those that the test does not
    tell apart (Demsar 2006, figure 1)."""
    from matplotlib.figure import Figure

    order = sorted(ranks, key=lambda m: ranks[m])
    low, high = 1, max(len(order), 2)
    bars = groups(ranks, difference)
    half = (len(order) + 1) // 2
    depth = 0.5 + 0.22 * len(bars)
    figure = Figure(figsize=(11, 1.6 + 0.26 * half + 0.2 * len(bars)))
    axes = figure.subplots()
    axes.hlines(0, low, high, color="black")
    for tick in range(low, high + 1):
        axes.vlines(tick, 0, 0.12, color="black")
        axes.text(tick, 0.25, str(tick), ha="center", va="bottom", fontsize=8)
    axes.hlines(0.95, low, min(low + difference, high), color="black", linewidth=2)
    axes.text(low, 1.05, f"critical difference {difference:.2f} (Nemenyi, 0.05)", fontsize=8, va="bottom")
    for i, m in enumerate(order):
        left = i < half
        y = -depth - 0.45 * (i if left else len(order) - 1 - i)
        edge = low - 0.3 if left else high + 0.3
        axes.plot([ranks[m], ranks[m], edge], [0, y, y], color="0.4", linewidth=0.8)
        axes.text(edge, y, f" {m} ({ranks[m]:.2f}) ", ha="right" if left else "left", va="center", fontsize=8)
    for i, (start, end) in enumerate(bars):
        axes.hlines(-0.25 - 0.22 * i, start - 0.03, end + 0.03, color="black", linewidth=3)
    axes.set_title(title, fontsize=10)
    axes.set_xlim(low - 0.28 * (high - low) - 1, high + 0.28 * (high - low) + 1)
    axes.set_ylim(-depth - 0.45 * half - 0.2, 1.6)
    axes.axis("off")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def curves(problem: str, runs: Mapping[str, Sequence[stats.Row]], path: Path) -> None:
    """Mean score after each evaluation with a band of one standard error,
    logarithmic where all are above 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    for m, rows in sorted(runs.items()):
        last = min(r["asked"] for r in rows)
        places = sorted({*range(1, min(last, 20) + 1), *range(20, last + 1, max(1, last // 100)), last})
        found = [stats.of([s for s in (stats.at(r, i) for r in rows) if s is not None]) for i in places]
        (line,) = axes.plot(places, [f.mean for f in found], label=m, linewidth=1.2, linestyle=":" if "-" in m else "-")
        if found[0].n > 1:
            axes.fill_between(
                places,
                [f.mean - f.error for f in found],
                [f.mean + f.error for f in found],
                alpha=0.12,
                color=line.get_color(),
            )
    axes.set_yscale("symlog", linthresh=1e-2)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("score (less is better)")
    axes.set_title(problem, fontsize=10)
    axes.legend(fontsize=7, ncol=2)
    figure.savefig(path, dpi=120, bbox_inches="tight")
