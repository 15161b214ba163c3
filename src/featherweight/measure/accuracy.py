"""The value of a metric, with a 95 % interval. numpy only.

Notation: outputs [n, ...] what the model gave, targets [n, ...] what is right,
v [n] one value a sample.
"""

from __future__ import annotations

import math
import re
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..proof.student import t975
from ..proof.wilson import wilson
from ..records import Quality
from ..seeding import derive
from .metric import Metric, Score
from .metrics import ALIASES, BY_NAME, named, takes_names, told

if TYPE_CHECKING:
    from ..task.task import Task

RESAMPLES = 1000
_MOST_SUMS = 50_000_000  # numbers that are kept to be added up; of more, the metric is asked anew

# names of what is better when it is lower
_LOWER = re.compile(
    r"(^|_)(r?mse|mae|mape|smape|nll|ppl|wer|cer|brier|perplexity|error|err|loss|distance)($|_)|loss$|error$"
)


def metric(what: str | Metric | Score, higher_is_better: bool | None = None) -> Metric:
    """A built-in by name (`metrics.named`), a Metric as it is, or a function (outputs, targets) ->
    values [n] or one float.

    higher_is_better: of a function; if None, its attribute of that name, else True. InputError for
    a function that does not say, and is named as what is better when it is lower.
    """
    if isinstance(what, Metric):
        return what
    if isinstance(what, str):
        found = named(what)
        if found is None:
            near = get_close_matches(what.partition("@")[0], [*BY_NAME, *ALIASES], 1, 0.5)
            raise InputError(
                "there is no such metric",
                got=what,
                allowed=", ".join(BY_NAME),
                fix=(f"{near[0]}? " if near else "")
                + "use one of these, or give a function (outputs, targets) -> one value a sample",
            )
        return found
    if not callable(what):
        raise InputError(
            "this is no metric", got=repr(what), allowed=f"{', '.join(BY_NAME)}, or a function (outputs, targets)"
        )
    name = getattr(what, "__name__", "metric")
    better = getattr(what, "higher_is_better", None) if higher_is_better is None else higher_is_better
    if better is None and _LOWER.search(name.lower()):
        raise InputError(
            f"is the metric {name} better when it is higher, or when it is lower?",
            got="a function that does not say, with the name of one that is better when it is lower",
            allowed="an attribute higher_is_better, False or True",
            fix=f"after its definition: {name}.higher_is_better = False",
        )
    return Metric(name, what, what, better is None or bool(better))


def metric_of(task: Task) -> Metric:
    """The task's metric, which knows the names of its classes and where outputs have them."""
    found = metric(task.metric)
    if not isinstance(task.metric, str):
        return found
    names = task.splits().report.get("class_names") if takes_names(found) else None
    return told(found, names, task.class_axis)


def evaluate(
    what: str | Metric | Score, outputs: np.ndarray, targets: np.ndarray, seed: int, units: np.ndarray | None = None
) -> Quality:
    """The metric's value, with its interval.

    Interval: Wilson's for right-or-wrong values, Student's t for other per-sample values
    (at least two samples), for whole ones their own (`macro_f1_interval`) or percentile bootstrap
    with 1,000 resamples drawn under `seed`. units: as of `paired.compare`: the value is that of all
    rows, the interval as wide as that of so many samples that count by themselves.
    """
    m = metric(what)
    s = m.scores(outputs, targets)
    n = len(targets)
    keep, units = counted(units, n)
    own = m.interval(outputs, targets) if m.interval is not None and units is None and len(keep) == n else None
    if isinstance(s, float) and own is not None:
        value, interval = s, own
    elif isinstance(s, float):
        low, high = np.quantile(bootstrap(m, [outputs[keep]], targets[keep], seed, units)[:, 0], (0.025, 0.975))
        value, interval = s, (min(s, float(low)), max(s, float(high)))
    elif m.is_zero_one(s):
        value = float(s.mean())
        many = len(mean_of_units(s[keep], units))
        interval = wilson(int(s.sum()), n) if many == n else wilson(value * many, many)
    else:
        value, (low, high) = float(s.mean()), student(mean_of_units(s[keep], units), m.name)
        interval = value - (high - low) / 2, value + (high - low) / 2
    return Quality(m.name, value, interval, n, m.higher_is_better)


def counted(units: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(the rows that count, which of them are one sample: numbers from 0; None: each is), from a
    number for each of n rows: rows with one number are one sample, those below 0 do not count."""
    if units is None:
        return np.arange(n), None
    keep = np.flatnonzero(units >= 0)
    units = np.unique(units[keep], return_inverse=True)[1]
    return keep, None if len(keep) == 0 or int(units.max()) + 1 == len(keep) else units


def mean_of_units(values: np.ndarray, units: np.ndarray | None) -> np.ndarray:
    """[rows] -> [samples]: the mean of each."""
    return values if units is None else np.bincount(units, weights=values) / np.bincount(units)


def student(v: np.ndarray, name: str) -> tuple[float, float]:
    """Student's t 95 % interval of the mean of v [n]. InputError for a single value."""
    if len(v) < 2:
        raise InputError(f"{name} of one sample has no interval", got="1 sample", allowed="at least 2")
    half = t975(len(v) - 1) * float(v.std(ddof=1)) / math.sqrt(len(v))
    return float(v.mean()) - half, float(v.mean()) + half


def bootstrap(
    m: Metric, outputs: list[np.ndarray], targets: np.ndarray, seed: int, units: np.ndarray | None = None
) -> np.ndarray:
    """The whole metric of each of k models on the same 1,000 resamples of the samples: [1000, k]
    (Efron & Tibshirani 1993, chapter 13). units: [n], numbers from 0 of what is drawn as one (None:
    each row).

    Resamples on which the metric has no value, as an area under the ROC curve without a positive
    sample, are drawn again. InputError if it has none on more than half of them.
    """
    rng = np.random.default_rng(derive(seed, "bootstrap", m.name))
    sums = _sums(m, outputs, targets)
    rows: list[list[Any]] = []
    failed = 0
    members = None if units is None else np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1])
    while len(rows) < RESAMPLES:
        if members is None:
            pick = rng.integers(len(targets), size=len(targets))
        else:
            pick = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a metric that warns where it has no value
                if sums is not None:
                    rows.append(_of_sums(m, sums, np.bincount(pick, minlength=len(targets))))
                else:
                    rows.append([m.scores(o[pick], targets[pick]) for o in outputs])
        except InputError as e:
            failed += 1
            if failed > RESAMPLES:
                raise InputError(
                    f"{m.name} has an interval only if it has a value on most resamples of the samples",
                    got=f"none on {failed} of {failed + len(rows)} ({_counted(targets)}): {e.got or e.what}",
                    fix="have more samples of the rarest class, or a metric with one value a sample",
                ) from e
    return np.asarray(rows, dtype=np.float64)


def _sums(m: Metric, outputs: list[np.ndarray], targets: np.ndarray) -> list[np.ndarray] | None:
    """What a metric of sums adds up, [n, S] for each model; None for other metrics, and where that
    would be too much to keep."""
    if m.sums is None or m.of is None:
        return None
    for o in outputs:
        m.scores(o, targets)  # says what does not fit
    if len(targets) * np.size(m.sums(outputs[0][:1], targets[:1])) * len(outputs) > _MOST_SUMS:
        return None
    return [np.asarray(m.sums(o, targets), dtype=np.float64) for o in outputs]


def _of_sums(m: Metric, sums: list[np.ndarray], times: np.ndarray) -> list[float]:
    """The metric of each model where sample i is there times[i] times. InputError if it has no
    value."""
    assert m.of is not None
    values = [float(m.of(times @ s)) for s in sums]
    if not np.isfinite(values).all():
        raise InputError(f"{m.name} is not a finite number", got=values)
    return values


def _counted(targets: np.ndarray) -> str:
    """What the targets are, in words: `targets: 285 of 0, 3 of 1`."""
    kinds, counts = np.unique(targets, return_counts=True)
    if len(kinds) > 10:
        return f"{len(targets)} targets"
    return "targets: " + ", ".join(f"{n} of {k:g}" for k, n in zip(kinds.tolist(), counts.tolist(), strict=True))
