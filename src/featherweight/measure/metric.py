"""What a metric is, and how outputs are read as answers. numpy only.

Notation: outputs [n, ...] what the model gave, targets [n, ...] what is right, v [n] one value a
sample, s [n, S] sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

Score = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True)
class Metric:
    """per_sample: (outputs, targets) -> [n]; whole: (outputs, targets) -> float, for what is no
    mean over samples. One of them is set; with both set to the same function, what it returns
    decides. zero_one: are the per-sample values right or wrong (None: look; of answers at several
    places of a sample they are shares)? interval: (outputs,
    targets) -> the 95 % interval of a whole metric that knows its own (None, or if it gives None:
    bootstrap). within: the smallest and the largest value that there can be (None: not known).
    sums, of: of a whole metric that is a function of sums over samples: what is added up, [n, S],
    and its value, [..., S] -> [...], NaN where there is none. together: does a sample's value
    depend on which others are there?"""

    name: str
    per_sample: Score | None
    whole: Score | None
    higher_is_better: bool
    zero_one: bool | None = None
    interval: Callable[[np.ndarray, np.ndarray], tuple[float, float] | None] | None = None
    within: tuple[float, float] | None = None
    sums: Score | None = None
    of: Callable[[np.ndarray], np.ndarray] | None = None
    together: bool = False

    @property
    def sign(self) -> float:
        """1 if more is better, else -1: sign * value is better the larger it is."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def threshold(self) -> float:
        """Above what a model's only output means yes."""
        return float(self.name.partition("@")[2] or 0) if "@" in self.name else 0.0

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
        return self.zero_one is not False and bool(np.isin(v, (0.0, 1.0)).all())


def predicted(outputs: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """The predicted class [n]: of logits [n, classes] the largest, of one output ([n] or [n, 1])
    whether it is above the threshold; -1 for NaN. ValueError for a threshold, but 0 and a half, of
    several."""
    flat = outputs.reshape(len(outputs), -1)
    if outputs.ndim > 2:
        raise ValueError(
            "class outputs are [n, classes], [n, 1] or [n]; of a class at each place there are pixel_accuracy, "
            "token_accuracy and miou"
        )
    if flat.shape[1] > 1 and threshold not in (0.0, 0.5):
        raise ValueError("of several outputs a sample the largest is the answer: there is no threshold")
    best = (flat[:, 0] > threshold).astype(np.int64) if flat.shape[1] == 1 else flat.argmax(1)
    return np.where(np.isnan(flat).any(1), -1, best)


def labels(targets: np.ndarray) -> np.ndarray:
    """Whole-number class labels [n]."""
    flat = targets.reshape(len(targets), -1)
    if flat.shape[1] != 1 or not np.array_equal(flat, flat.astype(np.int64)):
        raise ValueError("class targets are whole numbers [n]")
    return flat[:, 0].astype(np.int64)


def of_labels(outputs: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(what is said, what is true) of labels that do not exclude each other, bool [n, K]."""
    if outputs.shape != targets.shape or targets.ndim != 2 or not np.isin(targets, (0, 1)).all():
        raise ValueError("targets of labels are 0 or 1, [n, labels], as many as outputs")
    return outputs > threshold, targets > 0


def is_set(targets: np.ndarray) -> bool:
    return targets.ndim == 2 and targets.shape[1] > 1
