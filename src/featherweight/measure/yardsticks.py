"""What a task needs no network for: other learners' value of its metric, on the same splits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import Quality
from ..task.data import Subset
from .accuracy import evaluate, metric_of

if TYPE_CHECKING:
    from ..task.data import Split
    from ..task.task import Task

BOOSTING = "gradient boosting (scikit-learn)"
_MOST = 50_000  # training rows that it is fitted to
_BINS = 255  # values of a category that scikit-learn's histograms tell apart
_TINY = 1e-12  # the least probability that a logarithm is taken of


@dataclass(frozen=True)
class Yardstick:
    """name: of the learner; metric: its value on the validation split, with its interval; seconds:
    that fitting took, on all cores."""

    name: str
    metric: Quality
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "metric": self.metric.to_json(), "seconds": self.seconds}


def yardsticks(task: Task, seed: int = 0) -> list[Yardstick]:
    """Histogram gradient boosting (Ke et al. 2017; scikit-learn's, as it is set by default) on the
    training split of a task of tables: rows of numbers [n, C] and of category numbers [n, K], with
    class numbers or one number to predict. None for other tasks.

    Of more than 50,000 rows the first so many are used, and the name says so. Missing values are
    given to it as such, and categories as what they are. Its outputs are judged
    by the task's metric: logarithms of probabilities in the place of logits.
    """
    splits = task.splits()
    inputs, targets = splits.train.batch(np.arange(min(2, len(splits.train))))
    classes = task.loss == "cross_entropy"
    if task.front is None and not any(v.dtype.kind == "f" for v in inputs.values()):
        return []  # whole numbers that no table says are categories: tokens
    if any(v.ndim != 2 for v in inputs.values()) or targets.ndim != 1 or not (classes or task.loss in ("mse", "mae")):
        return []
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    train = splits.train if len(splits.train) <= _MOST else Subset(splits.train, np.arange(_MOST))
    name = BOOSTING if train is splits.train else f"{BOOSTING}, fitted to {_MOST:,} rows"
    rows, categorical = _rows(task, train)
    settings: dict[str, Any] = {"categorical_features": categorical or None, "random_state": seed}
    begun = time.perf_counter()
    if classes:
        made = HistGradientBoostingClassifier(**settings).fit(rows, train.all_targets())
        outputs = np.full((len(splits.valid), task.outputs), np.log(_TINY))
        probabilities = made.predict_proba(_rows(task, splits.valid)[0])
        outputs[:, made.classes_.astype(int)] = np.log(np.maximum(probabilities, _TINY))
    else:
        loss = "absolute_error" if task.loss == "mae" else "squared_error"
        made = HistGradientBoostingRegressor(loss=loss, **settings).fit(rows, train.all_targets())
        outputs = made.predict(_rows(task, splits.valid)[0])[:, None]
    seconds = time.perf_counter() - begun
    outputs, targets = outputs.astype(np.float32), splits.valid.all_targets()
    found = evaluate(metric_of(task), outputs, targets, seed, splits.units.get("valid"))
    return [Yardstick(name, found, seconds)]


def _rows(task: Task, split: Split) -> tuple[np.ndarray, list[int]]:
    """[n, features], NaN where there is no value, and which columns are categories."""
    front = None if task.front is None else task.front()
    missing = 0 if front is None else int(front[1].get("missing", 0))
    whole = [inputs for inputs, _ in split.batches()]
    parts: list[np.ndarray] = []
    categorical: list[int] = []
    for name in whole[0]:
        value = np.concatenate([inputs[name] for inputs in whole])
        width = sum(p.shape[1] for p in parts)
        if value.dtype.kind in "iu":
            categorical += [width + i for i in range(value.shape[1]) if value[:, i].max() < _BINS]
            parts.append(value.astype(np.float64))
            continue
        known = value.shape[1] - missing
        numbers = value[:, :known].astype(np.float64)
        numbers[:, :missing][value[:, known:] > 0] = np.nan
        parts.append(numbers)
    return np.concatenate(parts, axis=1), categorical
