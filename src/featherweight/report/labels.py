"""Short words for figures: what an objective is called, and paths of holes that
fit beside an axis."""

from __future__ import annotations

import html

_TITLES = {
    "latency": "latency",
    "size": "size",
    "memory": "peak memory",
    "params": "parameters",
    "macs": "multiply-accumulates",
}


def objective_title(name: str, reference: str = "original") -> str:
    """What stands at an axis: the drop of the metric, or the multiple of the reference's."""
    return "drop in the metric" if name == "error" else f"{_TITLES.get(name, name)} (multiple of the {reference}'s)"


def short(text: str, width: int = 24) -> str:
    """At most `width` characters: the middle is left out, because the ends of a path tell most."""
    if len(text) <= width:
        return text
    head = (width - 2) // 3
    return f"{text[:head]}..{text[len(text) - (width - 2 - head) :]}"


def stacked(path: str, width: int = 20) -> str:
    """A path on up to two lines, broken at a dot, escaped for Plotly."""
    text = short(path, 2 * width)
    if len(text) <= width:
        return html.escape(text)
    dots = [i for i, c in enumerate(text) if c == "." and 0 < i < len(text) - 1]
    at = min(dots, key=lambda i: abs(i - len(text) // 2), default=width)
    return f"{html.escape(text[: at + 1])}<br>{html.escape(text[at + 1 :])}"
