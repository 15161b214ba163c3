"""Metrics, and their values with a 95 % interval. numpy only.

Notation: outputs [n, ...] what the model gave, targets [n, ...] what is right,
v [n] one value a sample.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..errors import InputError
from ..proof.student import Z95, t975
from ..records import Quality
from ..seeding import derive

Score = Callable[[np.ndarray, np.ndarray], Any]
RESAMPLES = 1000


@dataclass(frozen=True)
class Metric:
    """per_sample: (outputs, targets) -> [n]; whole: (outputs, targets) -> float, for what is no
    mean over samples. One of them is set; with both set to the same function, what it returns
    decides. zero_one: are the per-sample values right or wrong (None: look)? interval: (outputs,
    targets) -> the 95 % interval of a whole metric that knows its own (None: bootstrap). within:
    the smallest and the largest value that there can be (None: not known)."""

    name: str
    per_sample: Score | None
    whole: Score | None
    higher_is_better: bool
    zero_one: bool | None = None
    interval: Callable[[np.ndarray, np.ndarray], tuple[float, float]] | None = None
    within: tuple[float, float] | None = None

    @property
    def sign(self) -> float:
        """1 if more is better, else -1: sign * value is better the larger it is."""
        return 1.0 if self.higher_is_better else -1.0

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | float:
        """Values [n], or one float for a metric that is whole. InputError if there are no samples,
        lengths differ, or a value is not finite."""
        value = self.computed(outputs, targets)
        if not np.isfinite(value).all():
            size, odd = np.size(value), int((~np.isfinite(value)).sum())
            raise InputError(f"{self.name} is not a finite number", got=f"{odd} of {size} values")
        return value

    def computed(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | float:
        """`scores`, finite or not."""
        if len(outputs) != len(targets) or len(targets) == 0:
            raise InputError(
                f"{self.name} cannot be computed",
                got=f"{len(outputs)} outputs, {len(targets)} targets",
                allowed="as many of both, at least one",
            )
        score = self.per_sample or self.whole
        if score is None:
            raise InputError(f"the metric {self.name!r} has neither per_sample nor whole")
        try:
            value = np.asarray(score(outputs, targets), dtype=np.float64)
        except Exception as e:  # a user's function raises what it likes
            raise InputError(
                f"{self.name} cannot be computed",
                got=f"outputs {outputs.shape}, targets {targets.shape} {targets.dtype}: {type(e).__name__}: {e}",
            ) from e
        if value.ndim == 0 and self.whole is not None:
            return float(value)
        if value.shape != (len(targets),) or self.per_sample is None:
            raise InputError(
                f"{self.name} gives no usable value",
                got=f"shape {value.shape}",
                allowed=f"one value a sample, shape ({len(targets)},), or one number",
            )
        return value

    def is_zero_one(self, v: np.ndarray) -> bool:
        """Are the values right-or-wrong ones?"""
        return bool(np.isin(v, (0.0, 1.0)).all()) if self.zero_one is None else self.zero_one


# names of what is better when it is lower
_LOWER = re.compile(
    r"(^|_)(r?mse|mae|mape|smape|nll|ppl|wer|cer|brier|perplexity|error|err|loss|distance)($|_)|loss$|error$"
)


def metric(what: str | Metric | Score, higher_is_better: bool | None = None) -> Metric:
    """A built-in by name (accuracy, top5, macro_f1, mse, mae, nll), a Metric as it is, or a
    function (outputs, targets) -> values [n] or one float.

    higher_is_better: of a function; if None, its attribute of that name, else True. InputError for
    a function that does not say, and is named as what is better when it is lower.
    """
    if isinstance(what, Metric):
        return what
    if isinstance(what, str):
        if what not in _BUILT_IN:
            raise InputError(
                "there is no such metric",
                got=what,
                allowed=", ".join(_BUILT_IN),
                fix=(f"{' or '.join(near)}? " if (near := get_close_matches(what, _BUILT_IN, cutoff=0.5)) else "")
                + "use one of these, or give a function (outputs, targets) -> one value a sample",
            )
        return _BUILT_IN[what]
    if not callable(what):
        raise InputError(
            "this is no metric", got=repr(what), allowed=f"{', '.join(_BUILT_IN)}, or a function (outputs, targets)"
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
    if isinstance(s, float) and m.interval is not None and units is None and len(keep) == n:
        value, interval = s, m.interval(outputs, targets)
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


def wilson(k: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion k/n (Wilson 1927;
    Brown, Cai & DasGupta 2001, equation 4)."""
    z2 = Z95 * Z95
    middle = (k + z2 / 2) / (n + z2)
    half = Z95 / (n + z2) * math.sqrt(k * (n - k) / n + z2 / 4)
    # At the ends the formula gives exactly 0 and 1; rounding must not put the value
    # outside its interval.
    return (0.0 if k == 0 else max(0.0, middle - half)), (1.0 if k == n else min(1.0, middle + half))


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


def _counted(targets: np.ndarray) -> str:
    """What the targets are, in words: `targets: 285 of 0, 3 of 1`."""
    kinds, counts = np.unique(targets, return_counts=True)
    if len(kinds) > 10:
        return f"{len(targets)} targets"
    return "targets: " + ", ".join(f"{n} of {k:g}" for k, n in zip(kinds.tolist(), counts.tolist(), strict=True))


def predicted(outputs: np.ndarray) -> np.ndarray:
    """The predicted class [n]: of logits [n, classes] the largest, of one logit ([n] or [n, 1])
    whether it is above 0; -1 for NaN."""
    flat = outputs.reshape(len(outputs), -1)
    if outputs.ndim > 2:
        raise ValueError("class outputs are [n, classes], [n, 1] or [n]")
    best = (flat[:, 0] > 0).astype(np.int64) if flat.shape[1] == 1 else flat.argmax(1)
    return np.where(np.isnan(flat).any(1), -1, best)


def labels(targets: np.ndarray) -> np.ndarray:
    """Whole-number class labels [n]."""
    flat = targets.reshape(len(targets), -1)
    if flat.shape[1] != 1 or not np.array_equal(flat, flat.astype(np.int64)):
        raise ValueError("class targets are whole numbers [n]")
    return flat[:, 0].astype(np.int64)


def _accuracy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    right: np.ndarray = predicted(outputs) == labels(targets)
    return right


def _top5(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    if outputs.ndim != 2 or outputs.shape[1] < 5:
        raise ValueError("top5 needs outputs [n, classes] with at least 5 classes")
    best = np.argpartition(outputs, -5, axis=1)[:, -5:]
    found: np.ndarray = (best == labels(targets)[:, None]).any(1) & ~np.isnan(outputs).any(1)
    return found


def _macro_f1(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that occur in targets or predictions of 2 TP / (2 TP + FP + FN)."""
    y, z = labels(targets), predicted(outputs)
    top = int(max(y.max(), z.max())) + 2
    # shifted by one: -1 stands for "no class", which is never right
    hit, said, true = (np.bincount(x + 1, minlength=top).astype(np.float64) for x in (y[y == z], z, y))
    there = (said + true > 0) & (np.arange(top) > 0)
    return float((2 * hit[there] / (said + true)[there]).mean())


def macro_f1_interval(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """95 % interval of macro-F1, by MOVER (Zou & Donner 2008, "Construction of confidence limits
    about effect measures", Statistics in Medicine 27, equation 3) from those of the classes.

    A bootstrap is wrong here: a class of few samples is missing in many resamples, where the mean
    is then over the other classes ([38.8, 90.1] was seen around 42.6). Notation, for the K classes
    that occur: T_c samples that are c and called so, U_c those that are c or are called c. T_c of
    U_c is a proportion J_c with Wilson's interval, F_c = 2 J_c / (1 + J_c) rises with it, and its
    ends l_c, u_c give the mean's: mean - sqrt(sum_cd r_cd (F_c - l_c)(F_d - l_d)) / K, and likewise
    above. r_cd: correlation of F_c and F_d, from how much each sample moves them (delta method).
    """
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


def _errors(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Differences [n, values a sample]."""
    a, b = outputs.reshape(len(outputs), -1).astype(np.float64), targets.reshape(len(targets), -1).astype(np.float64)
    if a.shape != b.shape:  # broadcasting would compare everything with everything
        raise ValueError("outputs and targets differ in shape")
    return a - b


def _mse(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    mean: np.ndarray = (_errors(outputs, targets) ** 2).mean(1)
    return mean


def _mae(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.abs(_errors(outputs, targets)).mean(1)
    return mean


def _nll(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[target], in nats."""
    y = labels(targets)
    if outputs.ndim != 2 or not ((0 <= y) & (y < outputs.shape[1])).all():
        raise ValueError("nll needs logits [n, classes] and targets below the number of classes")
    x = outputs.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    loss: np.ndarray = np.log(np.exp(x).sum(1)) - x[np.arange(len(y)), y]
    return loss


_BUILT_IN = {
    "accuracy": Metric("accuracy", _accuracy, None, True, True, within=(0, 1)),
    "top5": Metric("top5", _top5, None, True, True, within=(0, 1)),
    "macro_f1": Metric("macro_f1", None, _macro_f1, True, interval=macro_f1_interval, within=(0, 1)),
    "mse": Metric("mse", _mse, None, False, False, within=(0, math.inf)),
    "mae": Metric("mae", _mae, None, False, False, within=(0, math.inf)),
    "nll": Metric("nll", _nll, None, False, False, within=(0, math.inf)),
}
