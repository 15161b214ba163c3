"""Where two models differ: the classes, the mistakes and the samples behind a drop. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .metric import Metric, labels, predicted

CLASSES = 40  # that are told of, at most: those with the greatest changes
MISTAKES = 10
SAMPLES = 20
_NUMBERS: tuple[str, ...] = ("mse", "rmse", "mae", "mape", "r2", "cosine", "kl")
_NUMBERS += ("recall_at_1", "recall_at_5", "recall_at_10")  # metrics of what are no scores of classes


def differences(
    m: Metric,
    baseline_outputs: np.ndarray,
    outputs: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """What the candidate gives otherwise than the baseline, on the same samples.

    Of class outputs: "classes", {"class", "n", "baseline", "candidate": samples that are right},
    those that lost most first; "mistakes", {"class", "as", "baseline", "candidate": how often},
    those that have become most frequent; "samples", {"row" of the split, "class", "baseline",
    "candidate": what each says}, those that only the baseline gets right; "lost" and "won": how
    many only the baseline, and only the candidate, gets right. Of other metrics with a value for
    each sample: "samples", {"row", "baseline", "candidate": the values}, the most worsened ones.
    None for a metric that has neither. classes: their names.
    """
    if _base(m) == "agreement" and m.zero_one is False:  # of several answers a sample
        return _values(m, baseline_outputs, outputs, targets)
    try:
        said = [predicted(o, m.threshold) for o in (baseline_outputs, outputs)]
        y = predicted(targets, m.threshold) if _base(m) == "agreement" else labels(targets)
    except ValueError:
        return _values(m, baseline_outputs, outputs, targets)
    kinds = max(2, outputs.reshape(len(outputs), -1).shape[1])  # one logit tells two classes apart
    if _base(m) in _NUMBERS or not ((0 <= y) & (y < kinds)).all():  # whole numbers, but no classes
        return _values(m, baseline_outputs, outputs, targets)

    def name(c: int) -> str:
        return str(classes[c]) if classes is not None and 0 <= c < len(classes) else str(c)

    right = [z == y for z in said]
    rows: list[dict[str, Any]] = [
        {
            "class": name(int(c)),
            "n": int((y == c).sum()),
            "baseline": int(right[0][y == c].sum()),
            "candidate": int(right[1][y == c].sum()),
        }
        for c in np.unique(y)
    ]
    rows.sort(key=lambda r: r["candidate"] - r["baseline"])
    counts: dict[tuple[int, int], list[int]] = {}
    for side, z in enumerate(said):
        for pair in zip(y[z != y].tolist(), z[z != y].tolist(), strict=True):
            counts.setdefault(pair, [0, 0])[side] += 1
    grown = sorted((p for p, (a, b) in counts.items() if b > a), key=lambda p: counts[p][0] - counts[p][1])
    lost = np.flatnonzero(right[0] & ~right[1])
    return {
        "classes": rows[:CLASSES],
        "mistakes": [
            {"class": name(c), "as": name(d), "baseline": counts[c, d][0], "candidate": counts[c, d][1]}
            for c, d in grown[:MISTAKES]
        ],
        "samples": [
            {"row": int(i), "class": name(int(y[i])), "baseline": name(int(said[0][i])), "candidate": name(int(z))}
            for i, z in zip(lost[:SAMPLES], said[1][lost[:SAMPLES]], strict=True)
        ],
        "lost": len(lost),
        "won": int((right[1] & ~right[0]).sum()),
    }


def _base(m: Metric) -> str:
    return m.name.partition("@")[0]


def _values(m: Metric, before: np.ndarray, after: np.ndarray, targets: np.ndarray) -> dict[str, Any] | None:
    v, w = m.scores(before, targets), m.scores(after, targets)
    if isinstance(v, float) or isinstance(w, float):
        return None
    worse = m.sign * (v - w)
    most = [int(i) for i in np.argsort(-worse, kind="stable")[:SAMPLES] if worse[i] > 0]
    return {"samples": [{"row": i, "baseline": float(v[i]), "candidate": float(w[i])} for i in most]}
