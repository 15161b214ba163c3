"""Metrics of classes, of labels that do not exclude each other, and of answers that are to agree.
numpy only.

Notation: outputs [n, ...] what the model gave, targets [n, ...] what is right, K classes or labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..proof.wilson import wilson
from .metric import is_set, labels, of_labels, predicted
from .place_metrics import counts_at, has_places, said_at


def accuracy(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    right: np.ndarray = predicted(outputs, threshold) == labels(targets)
    return right


def top5(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    if outputs.ndim != 2 or outputs.shape[1] < 5:
        raise ValueError("top5 needs outputs [n, classes] with at least 5 classes")
    best = np.argpartition(outputs, -5, axis=1)[:, -5:]
    found: np.ndarray = (best == labels(targets)[:, None]).any(1) & ~np.isnan(outputs).any(1)
    return found


def counts(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """[n, 3 K]: is a sample of class (or label) c, and called so; called so; of it. Of a class at
    each place: how many of its places are."""
    if outputs.ndim > 2:
        return (_mask_counts if _masks(outputs, targets) else counts_at)(outputs, targets, threshold)
    if is_set(targets):
        said, true = of_labels(outputs, targets, threshold)
    else:
        y, z = labels(targets), predicted(outputs, threshold)
        k = int(max(y.max(), z.max())) + 1
        k = max(k, outputs.reshape(len(outputs), -1).shape[1], 2)
        if y.min() < 0:
            raise ValueError("class targets are numbers from 0")
        said, true = (x[:, None] == np.arange(k) for x in (z, y))
    return np.concatenate([said & true, said, true], axis=1)


def _masks(outputs: np.ndarray, targets: np.ndarray) -> bool:
    """Labels at each place that do not exclude each other: [n, K, rows, columns] of both."""
    return outputs.shape == targets.shape and outputs.ndim > 3 and outputs.shape[1] > 1


def _mask_counts(outputs: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    there = targets >= 0
    said, true = (outputs > threshold) & there, targets > 0
    return np.concatenate([v.reshape(*v.shape[:2], -1).sum(2) for v in (said & true, said, true)], axis=1)


def _f1(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(F1 of each class, 0 / 0 as 0; hits, said, true), [..., K] each, of `counts`' sums."""
    hit, said, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    both = said + true
    return np.divide(2 * hit, both, out=np.zeros_like(both), where=both > 0), hit, said, true


def macro_f1_of(sums: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur in targets or predictions of 2 TP / (2 TP + FP + FN)."""
    f1, _, said, true = _f1(sums)
    there = said + true > 0
    many: np.ndarray = np.maximum(there.sum(-1), 1)
    mean: np.ndarray = f1.sum(-1) / many
    return mean


def micro_f1_of(sums: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) of all classes together; of classes that exclude each other it is the
    accuracy."""
    _, hit, said, true = _f1(sums)
    return _ratio(2 * hit.sum(-1), (said + true).sum(-1))


def weighted_f1_of(sums: np.ndarray) -> np.ndarray:
    """Mean over classes, weighted by how many samples are of them."""
    f1, _, _, true = _f1(sums)
    return _ratio((f1 * true).sum(-1), true.sum(-1))


def balanced_of(sums: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur of the share of their samples that is right."""
    _, hit, _, true = _f1(sums)
    recall = np.divide(hit, true, out=np.zeros_like(true), where=true > 0)
    return _ratio(recall.sum(-1), (true > 0).sum(-1))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; NaN where b is 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    share: np.ndarray = np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
    return share


def two(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """[n, 3] of `counts` for class 1 of two; of labels at places all labels together."""
    if outputs.ndim > 2 and outputs.shape == targets.shape:
        found = counts_at(outputs, targets, threshold)
    else:
        found = counts(outputs, targets, threshold)
    if found.shape[1] != 6 or (is_set(targets) and not has_places(outputs, targets)):
        raise ValueError("this metric is of two classes; of more there are macro_f1, micro_f1 and weighted_f1")
    return found[:, [1, 3, 5]]


def f1_of(sums: np.ndarray) -> np.ndarray:
    hit, said, true = (sums[..., i] for i in range(3))
    return _ratio(2 * hit, said + true)


def precision_of(sums: np.ndarray) -> np.ndarray:
    return _ratio(sums[..., 0], sums[..., 1])


def recall_of(sums: np.ndarray) -> np.ndarray:
    return _ratio(sums[..., 0], sums[..., 2])


def _confusion(outputs: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    """[K, K]: samples of class i that are called j; no class (NaN) is the last one."""
    y, z = labels(targets), predicted(outputs, threshold)
    k = int(max(y.max(), z.max())) + 2
    return np.bincount(y * k + np.where(z < 0, k - 1, z), minlength=k * k).reshape(k, k).astype(np.float64)


def mcc(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> float:
    """Matthews' correlation of classes and answers (Gorodkin 2004, R_K); 0 where one has no
    spread."""
    c = _confusion(outputs, targets, threshold)
    n, t, p = c.sum(), c.sum(1), c.sum(0)
    both = (n * n - p @ p) * (n * n - t @ t)
    return float((c.trace() * n - t @ p) / math.sqrt(both)) if both > 0 else 0.0


def kappa(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> float:
    """Cohen's: the agreement above that by chance. ValueError if all are of one class."""
    c = _confusion(outputs, targets, threshold)
    n = c.sum()
    chance = float(c.sum(1) @ c.sum(0)) / n**2
    if chance >= 1:
        raise ValueError("classes and answers are all one")
    return float((c.trace() / n - chance) / (1 - chance))


def _ranked(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(targets, scores) as scikit-learn ranks them: [n], or [n, K] for labels."""
    if is_set(targets):
        of_labels(outputs, targets, 0.0)
        return targets.astype(np.int64), outputs
    y, flat = labels(targets), outputs.reshape(len(outputs), -1).astype(np.float64)
    if flat.shape[1] > 2:
        e = np.exp(flat - flat.max(1, keepdims=True))
        shares = flat if bool((flat >= 0).all()) and np.allclose(flat.sum(1), 1, atol=1e-3) else e
        return np.eye(flat.shape[1])[y], shares / shares.sum(1, keepdims=True)
    return y, flat[:, 0] if flat.shape[1] == 1 else flat[:, 1] - flat[:, 0]


def auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve; of several classes or labels the mean of each against the rest."""
    return _mean_of_each(_area, *_both(*_ranked(outputs, targets)))


def average_precision(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Sum over thresholds of precision times the recall that is gained; of several classes or
    labels the mean of each."""
    return _mean_of_each(_precision_area, *_both(*_ranked(outputs, targets)))


def _mean_of_each(score: Callable[[np.ndarray, np.ndarray], float], y: np.ndarray, scores: np.ndarray) -> float:
    if y.ndim == 1:
        return score(y, scores)
    return float(np.mean([score(y[:, k], scores[:, k]) for k in range(y.shape[1])]))


def _area(y: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs of one that is and one that is not, in which the first scores more; ties
    count a half (Mann & Whitney). Some of the thousand resamples ask for this at once, so it is
    here and not scikit-learn's, which takes a hundred times as long; tests hold it to that."""
    order = np.argsort(scores, kind="stable")
    s, yes = scores[order], y[order] > 0
    first = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
    sizes = np.diff(np.r_[first, len(s)])
    ranks = np.repeat(first + (sizes + 1) / 2, sizes)  # of equal ones their mean
    n = int(yes.sum())
    return float((ranks[yes].sum() - n * (n + 1) / 2) / (n * (len(s) - n)))


def _precision_area(y: np.ndarray, scores: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    s, yes = scores[order], (y[order] > 0).astype(np.float64)
    last = np.r_[np.flatnonzero(s[1:] != s[:-1]), len(s) - 1]  # of each group of equal scores
    hits = np.cumsum(yes)[last]
    gained = np.diff(np.r_[0.0, hits]) / hits[-1]
    return float((gained * hits / (last + 1)).sum())


def _both(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of several labels those that some samples have, and others not: the others have no curve."""
    kinds = y.reshape(len(y), -1)
    there = (kinds.max(0) > 0) & (kinds.min(0) < 1)
    if not there.any():
        raise ValueError("the targets are all of one class")
    return (y, scores) if y.ndim == 1 else (y[:, there], scores[:, there])


def nll(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[target], in nats."""
    y = labels(targets)
    if outputs.ndim != 2 or not ((0 <= y) & (y < outputs.shape[1])).all():
        raise ValueError("nll needs logits [n, classes] and targets below the number of classes")
    lost: np.ndarray = -np.take_along_axis(_log_softmax(outputs), y[:, None], 1)[:, 0]
    return lost


def log_loss(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log of the probability of what is right, in nats, of probabilities [n, K], or [n] of yes. At
    places ([n, K, ...], or one number each): their mean over a sample's places that count."""
    if not ((outputs >= 0) & (outputs <= 1)).all():
        raise ValueError("log_loss needs probabilities; of logits there is nll")
    p = outputs.astype(np.float64).clip(1e-7, 1 - 1e-7)
    each_by_itself = is_set(targets) or outputs.size == len(outputs) or (outputs.ndim > 2 and p.size == targets.size)
    if each_by_itself:
        p, y = p.reshape(len(p), -1), targets.reshape(len(p), -1)
        return _mean_where(y >= 0, -(y * np.log(p) + (1 - y) * np.log1p(-p)))
    if has_places(outputs, targets):
        p = p.reshape(*p.shape[:2], -1)
        y = targets.reshape(len(p), -1).astype(np.int64)
        if y.shape[1] != p.shape[2]:
            raise ValueError("there is one target for each place: outputs [n, classes, ...], targets [n, ...]")
        return _mean_where(y >= 0, -np.log(np.take_along_axis(p, y.clip(0)[:, None], 1)[:, 0]))
    p = p.reshape(len(p), -1)
    lost: np.ndarray = -np.log(np.take_along_axis(p, labels(targets)[:, None], 1)[:, 0])
    return lost


def _mean_where(there: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """[n, P] -> [n]: the mean over the places that count."""
    many = there.sum(1)
    if not many.all():
        raise ValueError(f"{int((many == 0).sum())} samples have no place that counts: leave them out")
    mean: np.ndarray = np.where(there, lost, 0.0).sum(1) / many
    return mean


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    out: np.ndarray = x - np.log(np.exp(x).sum(1, keepdims=True))
    return out


def exact_match(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    said, true = of_labels(outputs, targets, threshold)
    right: np.ndarray = (said == true).all(1)
    return right


def label_accuracy(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """The share of a sample's labels that is right (1 - Hamming loss)."""
    said, true = of_labels(outputs, targets, threshold)
    share: np.ndarray = (said == true).mean(1)
    return share


def agreement(outputs: np.ndarray, targets: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """Is the answer the same? targets are outputs, too. Of a class at each place: the share of the
    places where it is."""
    if outputs.size != targets.size:
        raise ValueError("agreement compares outputs with outputs: as many of each")
    targets = targets.reshape(outputs.shape)
    if outputs.ndim > 2:
        said, true = (said_at(v, threshold) for v in (outputs, targets))
        share: np.ndarray = ((said == true) & (said >= 0)).mean(1)
        return share
    one, other = predicted(outputs, threshold), predicted(targets, threshold)
    same: np.ndarray = (one == other) & (one >= 0)
    return same


def kl(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """KL(softmax(targets) || softmax(outputs)), in nats; of several places their mean. One number
    ([n], [n, 1, ...]) is the logit of yes."""
    if outputs.size != targets.size:
        raise ValueError("kl compares logits [n, classes, ...] with logits")
    targets = targets.reshape(outputs.shape)
    if outputs.ndim < 2 or outputs.shape[1] == 1:  # the logit of no is 0
        outputs, targets = (np.concatenate([v, v * 0], 1) for v in (_column(outputs), _column(targets)))
    t = _log_softmax(targets)
    far: np.ndarray = (np.exp(t) * (t - _log_softmax(outputs))).sum(1).reshape(len(t), -1).mean(1)
    return far


def _column(v: np.ndarray) -> np.ndarray:
    return v.reshape(len(v), 1, -1)


def macro_f1_interval(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of macro-F1 over classes (None: over labels), by MOVER from those of the
    classes (Zou & Donner 2008, "Construction of confidence limits about effect measures",
    Statistics in Medicine 27, equation 3).

    A bootstrap is wrong here: a class of few samples is missing in many resamples, where the mean
    is then over the other classes ([38.8, 90.1] was seen around 42.6). Notation, for the K classes
    that occur: T_c samples that are c and called so, U_c those that are c or are called c. T_c of
    U_c is a proportion J_c with Wilson's interval, F_c = 2 J_c / (1 + J_c) rises with it, and its
    ends l_c, u_c give the mean's: mean - sqrt(sum_cd r_cd (F_c - l_c)(F_d - l_d)) / K, and likewise
    above. r_cd: correlation of F_c and F_d, from how much each sample moves them (delta method).
    """
    if is_set(targets) or outputs.ndim > 2:
        return None
    y, z = labels(targets), predicted(outputs)
    kinds = np.unique(np.concatenate([y, z[z >= 0]]))
    a, b, k = np.searchsorted(kinds, y), np.searchsorted(kinds, z[z >= 0]), len(kinds)
    pairs = np.bincount(a[z >= 0] * k + b, minlength=k * k).reshape(k, k)  # samples of c called d
    hits, sums = pairs.diagonal(), np.bincount(a, minlength=k) + pairs.sum(0)
    either = sums - hits
    f = 2 * hits / sums
    ends = np.array([wilson(int(t), int(u)) for t, u in zip(hits, either, strict=True)])
    low, high = (2 * ends / (1 + ends)).T
    # a sample right for c moves F_c by 2 (1 - F_c) / sums_c, a wrong one by -F_c / sums_c
    right, wrong = 2 * (1 - f) / sums, f / sums
    sd = np.sqrt(hits * right**2 + (either - hits) * wrong**2)
    r = np.divide(
        (pairs + pairs.T) * np.outer(wrong, wrong), np.outer(sd, sd), out=np.eye(k), where=np.outer(sd, sd) > 0
    )
    np.fill_diagonal(r, 1.0)
    arms = [math.sqrt(max(float(e @ r @ e), 0.0)) / k for e in (f - low, high - f)]
    return max(0.0, float(f.mean()) - arms[0]), min(1.0, float(f.mean()) + arms[1])
