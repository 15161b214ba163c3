"""Units of arrays: what stands inside a net that a search builds for them, so that numbers in the
thousands are learned as well as those between 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..task import Task

_POWERS = {"mse": 2, "huber": 1, "mae": 1}  # losses of numbers, and the power of their scale in them
_PLAIN = (0.2, 5.0)  # standard deviations that a net takes as they are; means, up to the larger


def front_of(task: Task) -> tuple[str, dict[str, Any]] | None:
    """The fields of `nets.standardised.Standardised`, from the training split; None if there is
    nothing to do: the only input is numbers of ordinary size, and targets are classes."""
    example = task.example()
    if len(example) != 1 or task.model is not None:
        return None
    (name, one), train = next(iter(example.items())), task.splits().train
    if one.dtype != np.float32 or one.ndim not in (2, 3, 4):
        return None
    axis = 1 if one.ndim == 3 and one.shape[1] > one.shape[2] else 0  # time before the channels
    n, total, squares, targets = 0, 0.0, 0.0, list[np.ndarray]()
    for inputs, y in train.batches():
        flat = np.moveaxis(inputs[name].astype(np.float64), axis + 1, 0).reshape(one.shape[axis + 1], -1)
        n, total, squares = n + flat.shape[1], total + flat.sum(1), squares + (flat**2).sum(1)
        targets.append(y)
    mean = np.atleast_1d(total / n)
    deviation = np.sqrt(np.maximum(np.atleast_1d(squares / n) - mean**2, 0.0))
    deviation[deviation < 1e-6 * np.maximum(1e-6, np.abs(mean))] = 0.0  # what is left of a constant
    fields: dict[str, Any] = {"shape": tuple(one.shape[1:]), "axis": axis}
    spread = deviation[deviation > 0]
    plain = one.ndim == 4 or not len(spread) or spread.min() >= _PLAIN[0] and spread.max() <= _PLAIN[1]
    if one.ndim < 4 and not (plain and bool((np.abs(mean) <= _PLAIN[1]).all())):
        fields |= {"mean": tuple(map(float, mean)), "deviation": tuple(map(float, deviation))}
    if isinstance(task.loss, str) and task.loss in _POWERS:
        y = np.concatenate(targets).astype(np.float64)
        if float(y.std()) > 0:
            fields |= {"scale": float(y.std()), "shift": float(y.mean()), "power": _POWERS[task.loss]}
    return ("standardised", fields) if {"mean", "power"} & set(fields) else None
