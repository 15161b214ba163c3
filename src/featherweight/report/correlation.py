"""How well what is known before a trial runs (proxies, parameters,
multiply-accumulates) ranks what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..seeding import generator

MIN_TRIALS = 10
_RESAMPLES = 400
_MAX_ROWS = 1000


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a feature with the metric, + where a larger feature goes with
    a better metric, and its 95 % bootstrap percentile interval (Efron and Tibshirani, "An
    introduction to the bootstrap", 1993, section 13.3) over n trials."""

    feature: str
    n: int
    rho: float
    low: float
    high: float


def correlations(
    features: Sequence[Mapping[str, float]], better: Sequence[float], seed: int
) -> tuple[Correlation, ...]:
    """Of each feature that MIN_TRIALS trials or more have as a finite number and that varies;
    largest first, by absolute value.

    features: of each trial, by name; better: [n] the metric, larger is better.
    """
    names = dict.fromkeys(name for f in features for name in f)
    out = []
    for name in names:
        pairs = [(float(f[name]), float(b)) for f, b in zip(features, better, strict=True) if name in f]
        pairs = [p for p in pairs if all(map(math.isfinite, p))]
        pairs = pairs[:: -(-len(pairs) // _MAX_ROWS) or 1]
        if len(pairs) < MIN_TRIALS or any(len({p[i] for p in pairs}) < 2 for i in (0, 1)):
            continue
        out.append(_correlation(name, pairs, seed))
    return tuple(sorted(out, key=lambda c: -abs(c.rho)))


def _correlation(name: str, pairs: Sequence[tuple[float, float]], seed: int) -> Correlation:
    from scipy.stats import rankdata

    table = np.array(pairs)  # [n, 2]
    drawn = generator(seed, "correlation", name).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    # [1 + resamples, n, 2], ties share their mean rank
    ranks = rankdata(np.concatenate([table[None], table[drawn]]), axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(1)).prod(1)
    rho = np.divide((ranks[..., 0] * ranks[..., 1]).sum(1), spread, out=np.zeros(len(spread)), where=spread > 0)
    low, high = np.quantile(rho[1:], (0.025, 0.975))
    return Correlation(name, len(pairs), float(rho[0]), float(low), float(high))
