"""Metrics of embeddings: is what is near a sample of its own kind? numpy only.

Notation: n samples, outputs [n, ...] embeddings, compared by the cosine of their angle, targets [n]
kinds. The gallery of a sample is all the others: what counts is how they lie together.

Source: Jégou et al. 2011 (recall at k), as metric learning uses it.
"""

from __future__ import annotations

import numpy as np

from .metric import labels

_ROWS = 512  # samples whose neighbours are looked for at once


def recall_at(outputs: np.ndarray, targets: np.ndarray, k: int = 1) -> np.ndarray:
    """[n]: is one of the k nearest others of a sample's own kind? Of one that is alone in its kind
    none is, whatever the model gives."""
    of, k = labels(targets), min(k, len(targets) - 1)
    if k == 0:
        return np.zeros(len(of), dtype=bool)
    z = outputs.reshape(len(outputs), -1).astype(np.float32)
    length = np.linalg.norm(z, axis=1, keepdims=True)
    z = np.divide(z, length, out=np.zeros_like(z), where=length > 0)
    found = np.zeros(len(z), dtype=bool)
    for start in range(0, len(z), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(z)))
        near = z[rows] @ z.T
        near[np.arange(len(rows)), rows] = -np.inf
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        found[rows] = (of[best] == of[rows][:, None]).any(1)
    kept: np.ndarray = found & ~np.isnan(z).any(1)
    return kept
