"""What a model is worth that looks at no input: the mark that an original has to pass."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..measure.accuracy import metric_of
from ..task.task import Task

_ASKED = 64  # training samples on which the loss is asked what outputs stand for


def guess(task: Task) -> tuple[float, str] | None:
    """(the metric on the validation split of the best answer that is the same for every sample,
    what that is): the classes' shares, the labels' shares, or the mean of the training targets.
    None where the metric has no value for such an answer, or the targets do not give one."""
    import torch

    from ..task.tensors import as_tensor
    from ..train.forms import fitting_form

    splits = task.splits()
    if task.model is None:
        shape: tuple[int, ...] = (task.outputs,)
    else:
        with torch.no_grad():
            shape = tuple(task.build()(*[as_tensor(v) for v in task.example().values()]).shape[1:])
    if task.loss in ("ctc", "contrastive"):  # whose targets say nothing of one output that is always given
        return None
    try:
        first = as_tensor(splits.train.batch(np.arange(min(_ASKED, len(splits.train))))[1])
        form, _ = fitting_form(task.loss, shape, first, task.axis_of_classes)
        known = splits.train.all_targets()
        last = task.class_axis == -1
        found = _at_places(shape, known, last) if form == "softmax" and known.ndim == len(shape) > 1 else None
        found = found or _constant(form, shape, known)
        if found is None:
            return None
        answer, what = found
        targets = splits.valid.all_targets()
        outputs = np.broadcast_to(answer.astype(np.float32).reshape(shape), (len(targets), *shape)).copy()
        return float(np.mean(metric_of(task).scores(outputs, targets))), what
    except InputError:  # a metric or a loss of the user's that takes no such answer
        return None


def _at_places(shape: tuple[int, ...], targets: np.ndarray, last: bool) -> tuple[np.ndarray, str] | None:
    """The commonest class [*shape], at every place. None if targets [n, ...] are no classes of
    places."""
    width = shape[-1] if last else shape[0]
    places = shape[:-1] if last else shape[1:]
    if targets.shape[1:] != places or targets.dtype.kind not in "iu" or int(targets.max()) >= width:
        return None
    counts = np.bincount(targets[targets >= 0].astype(np.int64), minlength=width)
    share = np.log(np.maximum(counts, 0.5) / max(1, counts.sum()))
    one = share.reshape((1,) * len(places) + (width,) if last else (width,) + (1,) * len(places))
    return np.broadcast_to(one, shape), "always the commonest class"


def _constant(form: str, shape: tuple[int, ...], targets: np.ndarray) -> tuple[np.ndarray, str] | None:
    """The answer [outputs], and what it is."""
    width = int(np.prod(shape))
    rows = targets.reshape(len(targets), -1).astype(np.float64)
    if rows.shape[1] != width and rows.shape[1] == 1 and width > 1:  # class numbers
        if not np.isin(rows, np.arange(width)).all():
            return None
        rows = np.eye(width)[rows[:, 0].astype(np.int64)]
    if rows.shape[1] != width:
        return None
    mean = rows.mean(0)
    least = 0.5 / len(rows)
    if form == "softmax":
        return np.log(np.maximum(mean, least)), "always the commonest class"
    if form == "bernoulli":
        share = mean.clip(least, 1 - least)
        return np.log(share / (1 - share)), "always the commoner answer"
    return mean, "always the mean of the training targets"
