"""Metrics of answers at each place of a sample: pixels of an image, tokens of a text. numpy only.

Notation: n samples, C classes, P places; outputs [n, C, ...] (of two classes also [n, 1, ...] or
[n, ...]: above the threshold is class 1), targets [n, ...] class numbers, below 0 what does not
count.
"""

from __future__ import annotations

import numpy as np


def has_places(outputs: np.ndarray, targets: np.ndarray) -> bool:
    """Is there a class for each of several places of a sample?"""
    return outputs.ndim > 2 and targets.ndim > 1


def said_at(outputs: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """[n, C, ...] -> [n, P], the class at each place: -1 for NaN."""
    if outputs.shape[1] == 1:
        flat = outputs.reshape(len(outputs), -1)
        return np.where(np.isnan(flat), -1, (flat > threshold).astype(np.int64))
    if threshold not in (0.0, 0.5):
        raise ValueError("of several outputs a place the largest is the answer: there is no threshold")
    odd = np.isnan(outputs).any(1)
    best: np.ndarray = np.where(odd, -1, outputs.argmax(1)).reshape(len(outputs), -1)
    return best


def said_and_true(outputs: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, int]:
    """(class said [n, P], class that is true [n, P], C)."""
    if outputs.shape == targets.shape:  # one number a place
        outputs = outputs.reshape(len(outputs), 1, -1)
    if outputs.shape[:1] + outputs.shape[2:] != targets.shape and outputs[:, 0].size != targets.size:
        raise ValueError("there is one target for each place: outputs [n, classes, ...], targets [n, ...]")
    y = targets.reshape(len(targets), -1)
    if not np.array_equal(y, np.rint(y)):
        raise ValueError("class targets are whole numbers")
    k = max(2, outputs.shape[1])
    y = y.astype(np.int64)
    if y.size and int(y.max()) >= k:
        raise ValueError(f"class targets are below {k}, the number of classes; {int(y.max())} is not")
    return said_at(outputs, threshold), y, k


def counts_at(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """[n, 3 C]: how many places of a sample are of class c, and called so; called so; of it."""
    said, true, k = said_and_true(outputs, targets, threshold)
    row = np.arange(len(said))[:, None] * k

    def counted(what: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.bincount((row + what)[where], minlength=len(said) * k).reshape(len(said), k)

    there = true >= 0
    hits = counted(true, there & (said == true))
    return np.concatenate([hits, counted(said, there & (said >= 0)), counted(true, there)], axis=1)


def right_at(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """[n, 2]: places that are right, places that count."""
    if not has_places(outputs, targets) and outputs.shape != targets.shape:
        raise ValueError("outputs are [n, classes, ...], targets [n, ...]; of one answer a sample there is accuracy")
    said, true, _ = said_and_true(outputs, targets, threshold)
    there = true >= 0
    return np.stack([(there & (said == true)).sum(1), there.sum(1)], axis=1)


def share_of(sums: np.ndarray) -> np.ndarray:
    """The first sum's share of the second; NaN of nothing."""
    a, b = np.asarray(sums[..., 0], dtype=np.float64), np.asarray(sums[..., 1], dtype=np.float64)
    share: np.ndarray = np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
    return share


def _overlap(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(intersection over union of each class, 0 where there is none; is there one), [..., C]."""
    hit, said, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    union = said + true - hit
    return np.divide(hit, union, out=np.zeros_like(union), where=union > 0), union > 0


def miou_of(sums: np.ndarray) -> np.ndarray:
    """Mean intersection over union of the classes that occur in targets or answers, over all places
    of all samples (as of PASCAL VOC and Cityscapes)."""
    each, there = _overlap(sums)
    many = there.sum(-1).astype(np.float64)
    mean: np.ndarray = np.divide(each.sum(-1), many, out=np.full_like(many, np.nan), where=many > 0)
    return mean


def iou_of(sums: np.ndarray) -> np.ndarray:
    """Intersection over union of class 1 of two; NaN where it is neither there nor said to be."""
    hit, said, true = (np.asarray(sums[..., i], dtype=np.float64) for i in range(3))
    return share_of(np.stack([hit, said + true - hit], axis=-1))
