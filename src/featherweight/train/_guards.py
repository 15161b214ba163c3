"""When a relaxed architecture search has to stop because it collapses. Pure: probabilities and
eigenvalues in, a verdict out.

Sources: Liang et al. 2019, DARTS+ (arXiv:1909.06035), section 3.3; Zela et al. 2020, R-DARTS
(arXiv:1909.09656), section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SKIPS = ("skip_connect", "identity", "skip")
MARGIN = 1.1  # ours: alphas start equal, so that at first any option leads by a hair


def dominant_skips(probabilities: Mapping[str, Sequence[float]], options: Mapping[str, Sequence[Any]]) -> list[str]:
    """The holes whose most probable option is a skip connection,
    `MARGIN` times as probable as any other or more."""
    out = []
    for path, p in probabilities.items():
        best = max(range(len(p)), key=lambda i: p[i])
        alone = all(p[i] * MARGIN <= p[best] for i in range(len(p)) if i != best)
        if alone and options[path][best] in SKIPS:
            out.append(path)
    return out


def skip_verdict(
    probabilities: Mapping[str, Sequence[float]], options: Mapping[str, Sequence[Any]], most: int
) -> dict[str, Any] | None:
    """DARTS+, criterion 1: stop when a skip connection dominates more than `most` edges.
    The evidence, or None to go on."""
    edges = dominant_skips(probabilities, options)
    if len(edges) <= most:
        return None
    return {"guard": "skip", "edges": edges, "count": len(edges), "most": most, "keep": 1}


def hessian_verdict(eigenvalues: Sequence[float], window: int = 5, ratio: float = 0.75) -> dict[str, Any] | None:
    """R-DARTS (DARTS-ES): stop when l(t - k) / l(t) < ratio, l the mean of the largest eigenvalue
    over the last k = `window` epochs, and keep the architecture of epoch t - k. The evidence
    ("keep": epochs to go back), or None to go on. Both means have to be positive."""
    t = len(eigenvalues)
    if t < 2 * window:
        # the older mean is over a whole window, too: a single early eigenvalue says little
        return None
    before = sum(eigenvalues[t - 2 * window : t - window]) / window
    now = sum(eigenvalues[t - window :]) / window
    if now <= 0 or before <= 0 or before / now >= ratio:
        return None
    return {"guard": "hessian", "before": before, "now": now, "ratio": before / now, "bound": ratio, "keep": window}
