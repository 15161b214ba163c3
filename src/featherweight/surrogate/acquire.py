"""How much a candidate promises: expected improvement, in one objective or in hypervolume, and the
chance that it is feasible.

| symbol | code | meaning |
|---|---|---|
| y | `y` | objectives of finished trials, transformed; less is better [n, m] |
| r | `reference` | the corner from which hypervolume counts [m] |
| lambda | `ways` | directions from the corner, on the positive unit sphere [k, m] |
| s(y) | `_reach` | length from r along lambda that y dominates, to the power m |
"""

from __future__ import annotations

import numpy as np

_TINY = 1e-12


def log_ei(mean: np.ndarray, var: np.ndarray, best: float) -> np.ndarray:
    """log E[max(best - Y, 0)], Y ~ Normal(mean, var), [q]: finite however hopeless a candidate is
    (Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization",
    2023, arXiv 2310.20708, eq. 9 and appendix A)."""
    sigma = np.sqrt(np.maximum(var, _TINY))
    return np.asarray(log_h((best - mean) / sigma) + np.log(sigma))


def log_h(z: np.ndarray) -> np.ndarray:
    """log(phi(z) + z Phi(z)) without cancellation (eq. 9)."""
    from scipy.special import erfcx, ndtr

    z = np.asarray(z, dtype=float)
    half_log_2pi = 0.5 * np.log(2 * np.pi)
    near, mid = np.maximum(z, -1.0), np.clip(z, -1e6, -1.0)
    plain = np.log(np.exp(-0.5 * near**2 - half_log_2pi) + near * ndtr(near))
    # phi(z) + z Phi(z) = phi(z) (1 - sqrt(pi/2) |z| erfcx(|z| / sqrt 2))
    ratio = np.sqrt(np.pi / 2) * erfcx(-mid / np.sqrt(2)) * -mid
    tail = -0.5 * mid**2 - half_log_2pi + np.log(np.maximum(1.0 - ratio, _TINY))
    far = -0.5 * z**2 - half_log_2pi - 2 * np.log(np.maximum(-z, 1.0))  # 1 - ratio -> 1 / z^2
    return np.asarray(np.where(z > -1.0, plain, np.where(z > -1e3, tail, far)))


def directions(m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """[k, m] directions, even on the positive part of the unit sphere."""
    ways = np.abs(rng.standard_normal((k, m))) + 1e-9
    return np.asarray(ways / np.linalg.norm(ways, axis=1, keepdims=True))


def hypervolume_gain(samples: np.ndarray, front: np.ndarray, reference: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Mean hypervolume that each candidate adds to the front, up to a constant factor, [q];
    samples: [T, q, m], front: [f, m].

    Hypervolume is the mean over directions of the m-th power of the farthest reach (Zhang and
    Golovin, "Random hypervolume scalarizations for provable multi-objective black box
    optimization", 2020, arXiv 2006.04655, lemma 5), for any number of objectives.
    """
    held = _reach(front, reference, ways).max(0, initial=0.0)  # [k]
    gain = np.maximum(_reach(samples, reference, ways) - held, 0.0)  # [T, q, k]
    return np.asarray(gain.mean(axis=(0, 2)))


def _reach(y: np.ndarray, reference: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """[..., k] of y [..., m]."""
    m = y.shape[-1]
    least = None
    for j in range(m):  # one objective after the other keeps the arrays at [..., k]
        along = np.maximum(reference[j] - y[..., j], 0.0)[..., None] / ways[:, j]
        least = along if least is None else np.minimum(least, along)
    return np.asarray(least**m)


def log_below(mean: np.ndarray, var: np.ndarray, bound: float) -> np.ndarray:
    """log P(V < bound), V ~ Normal(mean, var), [q]: the chance that a constraint holds, the factor
    of the improvement in constrained search (Gardner et al., "Bayesian optimization with inequality
    constraints", 2014, eq. 7). `var` counts as at least 0.01."""
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr((bound - mean) / np.sqrt(var + 0.01)))


def normal_scores(y: np.ndarray) -> np.ndarray:
    """Each value's rank as a quantile of the normal distribution, [n] -> [n]: free of scale and of
    heavy tails. Equal values share their mean rank (Blom, "Statistical estimates and transformed
    beta-variables", 1958)."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return np.asarray(ndtri((rankdata(y) - 0.375) / (len(y) + 0.25)))
