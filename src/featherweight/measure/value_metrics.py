"""Metrics of numbers and vectors. numpy only.

Notation: outputs, targets [n, ...], as many numbers each; v [n] one value a sample.
"""

from __future__ import annotations

import numpy as np


def cosine(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cosine of the angle between output and target; 0 if one of them has no direction."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (outputs, targets))
    if a.shape != b.shape:
        raise ValueError("cosine compares vectors of one length")
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: np.ndarray = np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 0)
    return found


def _errors(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Differences [n, values a sample]."""
    a, b = outputs.reshape(len(outputs), -1).astype(np.float64), targets.reshape(len(targets), -1).astype(np.float64)
    if a.shape != b.shape:  # broadcasting would compare everything with everything
        raise ValueError("outputs and targets differ in shape")
    return a - b


def mse(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    mean: np.ndarray = (_errors(outputs, targets) ** 2).mean(1)
    return mean


def mae(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.abs(_errors(outputs, targets)).mean(1)
    return mean


def mape(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """|error| / |target|."""
    e, y = _errors(outputs, targets), targets.reshape(len(targets), -1)
    if (y == 0).any():
        raise ValueError("mape has no value where a target is 0")
    mean: np.ndarray = np.abs(e / y).mean(1)
    return mean


def squares(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.stack([mse(outputs, targets), np.ones(len(targets))], axis=1)


def rmse_of(sums: np.ndarray) -> np.ndarray:
    root: np.ndarray = np.sqrt(sums[..., 0] / sums[..., 1])
    return root


def r2(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 - e^2 / variance of the targets, whose mean over samples is R^2 (of several numbers the
    mean of theirs). The variance is the same for all models on the same samples."""
    e, y = _errors(outputs, targets), targets.reshape(len(targets), -1).astype(np.float64)
    variance = y.var(0)
    if not (variance > 0).any():
        raise ValueError("r2 has no value where all targets are the same")
    share: np.ndarray = 1 - (e[:, variance > 0] ** 2 / variance[variance > 0]).mean(1)
    return share
