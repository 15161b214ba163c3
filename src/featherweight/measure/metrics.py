"""Metrics by name.

A whole metric that depends on sums over samples only says them (`Metric.sums`): its bootstrap then
adds up what is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import InputError
from . import class_metrics as classes
from . import place_metrics as places
from . import retrieval_metrics as retrieval
from . import sequence_metrics as sequences
from . import value_metrics as values
from .metric import Metric, Score

_NEAREST = (1, 5, 10)  # neighbours that recall_at_.. looks at


def _summed(name: str, sums: Score, of: Callable[[np.ndarray], np.ndarray], **more: Any) -> Metric:
    """A whole metric of sums."""
    return Metric(name, None, partial(_whole, sums, of), **{"zero_one": False, **more}, sums=sums, of=of)


def _whole(sums: Score, of: Callable[[np.ndarray], np.ndarray], outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(of(np.asarray(sums(outputs, targets)).sum(0)))


def _table() -> dict[str, Metric]:
    share: dict[str, Any] = {"higher_is_better": True, "within": (0, 1)}
    any_ = math.inf
    found = [
        Metric("accuracy", classes.accuracy, None, True, True, within=(0, 1)),
        Metric("top5", classes.top5, None, True, True, within=(0, 1)),
        _summed("balanced_accuracy", classes.counts, classes.balanced_of, **share),
        _summed(
            "macro_f1", classes.counts, classes.macro_f1_of, interval=classes.macro_f1_interval, zero_one=True, **share
        ),
        _summed("micro_f1", classes.counts, classes.micro_f1_of, **share),
        _summed("weighted_f1", classes.counts, classes.weighted_f1_of, **share),
        _summed("f1", classes.two, classes.f1_of, **share),
        _summed("precision", classes.two, classes.precision_of, **share),
        _summed("recall", classes.two, classes.recall_of, **share),
        Metric("auc", None, classes.auc, True, False, within=(0, 1)),
        Metric("average_precision", None, classes.average_precision, True, False, within=(0, 1)),
        Metric("mcc", None, classes.mcc, True, False, within=(-1, 1)),
        Metric("kappa", None, classes.kappa, True, False, within=(-1, 1)),
        Metric("nll", classes.nll, None, False, False, within=(0, any_)),
        Metric("log_loss", classes.log_loss, None, False, False, within=(0, any_)),
        Metric("exact_match", classes.exact_match, None, True, True, within=(0, 1)),
        Metric("label_accuracy", classes.label_accuracy, None, True, False, within=(0, 1)),
        Metric("agreement", classes.agreement, None, True, True, within=(0, 1)),
        Metric("kl", classes.kl, None, False, False, within=(0, any_)),
        _summed("pixel_accuracy", places.right_at, places.share_of, **share),
        _summed("token_accuracy", places.right_at, places.share_of, **share),
        _summed("miou", classes.counts, places.miou_of, **share),
        _summed("iou", classes.two, places.iou_of, **share),
        _summed("entity_f1", sequences.span_counts, classes.f1_of, **share),
        _summed("cer", sequences.character_errors, places.share_of, higher_is_better=False, within=(0, any_)),
        _summed("wer", sequences.word_errors, places.share_of, higher_is_better=False, within=(0, any_)),
        *(
            Metric(f"recall_at_{k}", partial(retrieval.recall_at, k=k), None, True, True, within=(0, 1), together=True)
            for k in _NEAREST
        ),
        Metric("cosine", values.cosine, None, True, False, within=(-1, 1)),
        Metric("mse", values.mse, None, False, False, within=(0, any_)),
        _summed("rmse", values.squares, values.rmse_of, higher_is_better=False, within=(0, any_)),
        Metric("mae", values.mae, None, False, False, within=(0, any_)),
        Metric("mape", values.mape, None, False, False, within=(0, any_)),
        Metric("r2", values.r2, None, True, False, within=(-any_, 1)),
    ]
    return {m.name: m for m in found}


BY_NAME = _table()
ALIASES = {  # scikit-learn's and torchmetrics' names
    "roc_auc": "auc",
    "auroc": "auc",
    "f1_macro": "macro_f1",
    "f1_micro": "micro_f1",
    "f1_weighted": "weighted_f1",
    "mean_squared_error": "mse",
    "root_mean_squared_error": "rmse",
    "mean_absolute_error": "mae",
    "mean_absolute_percentage_error": "mape",
    "matthews_corrcoef": "mcc",
    "cohen_kappa": "kappa",
    "cross_entropy": "nll",
    "cosine_similarity": "cosine",
    "subset_accuracy": "exact_match",
    "mean_iou": "miou",
    "jaccard": "iou",
    "dice": "f1",
    "mean_dice": "macro_f1",
    "seqeval": "entity_f1",
    "char_error_rate": "cer",
    "word_error_rate": "wer",
}


def named(name: str) -> Metric | None:
    """The metric of a name or an alias, `NAME@T` with the threshold T above which one output means
    yes (0 by itself, as of logits; 0.5 of probabilities). None if there is none, InputError for a
    threshold that is none."""
    base, at, text = name.partition("@")
    found = BY_NAME.get(ALIASES.get(base, base))
    if found is None or not at:
        return found
    score: Any = found.sums or found.per_sample or found.whole
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not math.isfinite(threshold) or not _thresholded(found):
        fits = sorted(n for n, m in BY_NAME.items() if _thresholded(m))
        raise InputError(
            "this metric has no such threshold", got=name, allowed=f"accuracy@0.5, and so of {', '.join(fits)}"
        )
    at_it = partial(score, threshold=threshold)
    if found.sums is not None and found.of is not None:
        return replace(found, name=name, sums=at_it, whole=partial(_whole, at_it, found.of), interval=None)
    if found.per_sample is not None:
        return replace(found, name=name, per_sample=at_it)
    return replace(found, name=name, whole=at_it)


def takes_names(found: Metric) -> bool:
    """Does it need the names of the classes?"""
    return "names" in getattr(found.sums, "__annotations__", {})


def told(found: Metric, names: Sequence[str] | None, axis: int | None) -> Metric:
    """The metric of a task whose classes have these names (None: they are not known), and stand on
    this axis of outputs with several places (0: there is one number at each)."""
    if takes_names(found):
        score: Any = found.sums
        sums = partial(score, names=names)
        assert found.of is not None
        found = replace(found, sums=sums, whole=partial(_whole, sums, found.of))
    turn = {-1: _classes_second, 0: _one_number}.get(1 if axis is None else axis)
    if turn is None:
        return found
    parts: dict[str, Any] = {part: getattr(found, part) for part in ("per_sample", "whole", "interval", "sums")}
    turned: dict[str, Any] = {part: partial(turn, score) for part, score in parts.items() if score is not None}
    if axis == 0 and found.per_sample is not None:  # a share of the places
        turned["zero_one"] = False
    return replace(found, **turned)


def _classes_second(score: Score, outputs: np.ndarray, targets: np.ndarray) -> Any:
    """`score` of outputs [n, ..., C]."""
    if outputs.ndim > 2:
        targets = np.moveaxis(targets, -1, 1) if targets.shape == outputs.shape else targets
        outputs = np.moveaxis(outputs, -1, 1)
    return score(outputs, targets)


def _one_number(score: Score, outputs: np.ndarray, targets: np.ndarray) -> Any:
    """`score` of outputs [n, ...] without an axis of classes: each number says yes or no."""
    if targets.size == outputs.size:
        targets = targets.reshape(outputs.shape)
    return score(outputs[:, None], targets)


def _thresholded(m: Metric) -> bool:
    """Does what it computes from take a threshold?"""
    score = m.sums or m.per_sample or m.whole
    return "threshold" in getattr(score, "__annotations__", {})
