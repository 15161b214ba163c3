"""What a task needs no network for: other learners' value of its metric, on the same splits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..records import Quality
from ..task.data import Subset
from .accuracy import evaluate, metric_of

if TYPE_CHECKING:
    from ..task.data import Split
    from ..task.task import Task

BOOSTING = "gradient boosting (scikit-learn)"
_MOST = 50_000  # training rows that it is fitted to
_TABLES = ("columns", "standardised")  # what makes features of the rows of tables
# numbers times classes from which on it is asked how long it will take, the columns that it is
# asked with, and the trees of a whole fit
_SOON, _TRIED, _TREES = 1_000_000, 100, 100
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


def refuse_if_long(name: str, takes_s: float, within_s: float) -> None:
    """InputError if a learner would take longer than there is time for."""
    if takes_s > within_s:
        raise InputError(
            f"{name} would take about {takes_s:.0f} s, and there is time for {within_s:.0f} s",
            fix="give more minutes",
        )


def yardsticks(task: Task, seed: int = 0, within_s: float = math.inf) -> list[Yardstick]:
    """Histogram gradient boosting (Ke et al. 2017; scikit-learn's, as it is set by default) on the
    training split of a task of tables: rows of numbers [n, C] and of category numbers [n, K], with
    class numbers or one number to predict. None for other tasks (not of sounds, either: their
    16,000 numbers a row are no columns).

    Of more than 50,000 rows the first so many are used, and the name says so. Missing values are
    given to it as such, and categories as what they are. Its outputs are judged
    by the task's metric: logarithms of probabilities in the place of logits. InputError if fitting
    would take longer than `within_s`, as a few trees on some of the columns say.
    """
    splits = task.splits()
    inputs, targets = splits.train.batch(np.arange(min(2, len(splits.train))))
    classes = task.loss == "cross_entropy"
    if task.front is not None and (front := task.front()) is not None and front[0] not in _TABLES:
        return []
    if task.front is None and not any(v.dtype.kind == "f" for v in inputs.values()):
        return []  # whole numbers that no table says are categories: tokens
    if any(v.ndim != 2 for v in inputs.values()) or targets.ndim != 1 or not (classes or task.loss in ("mse", "mae")):
        return []
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    train = splits.train if len(splits.train) <= _MOST else Subset(splits.train, np.arange(_MOST))
    name = BOOSTING if train is splits.train else f"{BOOSTING}, fitted to {_MOST:,} rows"
    rows, categorical = _rows(task, train)
    loss = "absolute_error" if task.loss == "mae" else "squared_error"
    settings: dict[str, Any] = {"categorical_features": categorical or None, "random_state": seed}
    learner = HistGradientBoostingClassifier if classes else partial(HistGradientBoostingRegressor, loss=loss)
    known = train.all_targets()
    refuse_if_long(name, _would_take(learner, settings, rows, known, len(np.unique(known)) if classes else 1), within_s)
    begun = time.perf_counter()
    made = learner(**settings).fit(rows, known)
    if classes:
        outputs = np.full((len(splits.valid), task.outputs), np.log(_TINY))
        probabilities = made.predict_proba(_rows(task, splits.valid)[0])
        outputs[:, made.classes_.astype(int)] = np.log(np.maximum(probabilities, _TINY))
    else:
        outputs = made.predict(_rows(task, splits.valid)[0])[:, None]
    seconds = time.perf_counter() - begun
    outputs, targets = outputs.astype(np.float32), splits.valid.all_targets()
    found = evaluate(metric_of(task), outputs, targets, seed, splits.units.get("valid"))
    return [Yardstick(name, found, seconds)]


def _would_take(
    learner: Callable[..., Any], settings: dict[str, Any], rows: np.ndarray, known: np.ndarray, classes: int
) -> float:
    """Seconds that fitting will take, going by a few of its trees on some of the columns; 0 where
    it is soon done."""
    if rows.size * classes < _SOON:
        return 0.0
    width = min(_TRIED, rows.shape[1])
    chosen = [i for i in settings["categorical_features"] or () if i < width]
    took = []
    for trees in (1, 4):
        begun = time.perf_counter()
        learner(**{**settings, "categorical_features": chosen or None}, max_iter=trees).fit(rows[:, :width], known)
        took.append(time.perf_counter() - begun)
    a_tree = max(took[1] - took[0], 0.0) / 3
    return float((took[0] + (_TREES - 1) * a_tree) * rows.shape[1] / width)


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
