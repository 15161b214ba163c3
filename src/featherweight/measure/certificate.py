"""The certificate of a drop: on samples that the search never saw it is below the limit, at the
level that the study's certificates leave it (`proof.levels`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError
from ..proof import unseen
from ..proof.levels import ALPHA
from ..proof.tango import Z95, tango
from ..records import Paired
from .accuracy import metric
from .metric import Metric, Score
from .paired import compare, interval, p_value, upper

_MOST = 10**9  # samples; beyond it the answer is "no number of samples"


def certify(
    what: str | Metric | Score,
    baseline_outputs: np.ndarray,
    outputs: np.ndarray,
    targets: np.ndarray,
    max_drop: float | None,
    seed: int,
    level: float = ALPHA,
    units: np.ndarray | None = None,
    min_metric: float | None = None,
) -> dict[str, Any]:
    """{"drop", "ci95", "n", "split": "test", "verdict", "needs", "max_drop", "level", "upper",
    "p"}; of a floor of the metric itself (`min_metric`) "min_metric", "value" and "lower" in place
    of "max_drop" and "upper".

    drop: the baseline's metric minus the candidate's (the other way round where lower is better),
    on the same samples; upper: the least limit that could be certified at this level. verdict:
    "certified" if a drop of `max_drop` or more would give so small a one with a probability p of at
    most `level`; "refuted" if the 95 % interval lies above the limit; else "not certifiable", and
    `needs` says how many more test samples would decide, going by the drop and the disagreement
    seen. max_drop None: nothing is to be shown, the verdict is "measured".

    min_metric: that the metric itself, whatever the baseline's is, reaches this value is to be
    shown in the same way; value: of the candidate on these samples; lower: the largest floor that
    could be certified.
    """
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise InputError(
            "max_drop is not a limit", got=max_drop, allowed="a number of at least 0, in the metric's unit"
        )
    paired, drops = compare(metric(what), baseline_outputs, outputs, targets, seed, units)
    low, high = interval(paired, drops)
    said = {"drop": paired.drop, "ci95": [low, high], "n": paired.n, "split": "test", "needs": None}
    if min_metric is not None:
        alone, drops = compare(metric(what), None, outputs, targets, seed, units)
        best = alone.best or 0.0
        shown = _shown(alone, best - min_metric, level, drops)
        lower, value = best - shown.pop("upper"), best - alone.drop
        return {**said, **shown, "min_metric": min_metric, "value": value, "lower": lower}
    if max_drop is None:
        return {**said, "verdict": "measured"}
    return {**said, **_shown(paired, max_drop, level, drops), "max_drop": max_drop}


def _shown(paired: Paired, max_drop: float, level: float, drops: np.ndarray | None) -> dict[str, Any]:
    """The part of a certificate that depends on the limit."""
    low = interval(paired, drops)[0]
    p = p_value(paired, max_drop, drops)
    verdict = "certified" if p <= level else "refuted" if low > max_drop else "not certifiable"
    needs = _needs(paired, max_drop) if verdict == "not certifiable" else None
    return {"verdict": verdict, "needs": needs, "level": level, "upper": upper(paired, level, drops), "p": p}


def _needs(paired: Paired, max_drop: float) -> str:
    """How many more samples would decide if they were like these, in words,
    rounded up to two digits."""
    drop, n = paired.drop, paired.n
    refute = drop > max_drop

    def decided(samples: int) -> bool:
        if paired.lost is not None and paired.won is not None:
            low, high = tango(paired.lost / n * samples, paired.won / n * samples, samples)
            return low > max_drop if refute else high <= max_drop
        error = paired.sd / math.sqrt(samples)
        if refute:
            return drop - Z95 * error > max_drop
        return unseen.p_value(drop, error, samples, paired.cost or 0.0, max_drop) <= ALPHA / 2

    if abs(drop - max_drop) < 1e-12 or not decided(_MOST):
        return "no number of test samples would decide: the observed drop is at the limit"
    if not refute and decided(n):  # it would have been certified, but at a stricter level
        return "it would have been certified if fewer candidates had failed before it"
    low, high = n, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    more = high - n
    step = 10 ** max(0, len(str(more)) - 2)
    return (
        f"about {-(-more // step) * step:,} more test samples to {'refute' if refute else 'certify'} it, going by these"
    )
