"""What a model is worth that looks at no input: the mark that an original has to pass."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..measure.accuracy import metric
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
    with torch.no_grad():
        shape = tuple(task.build()(*[as_tensor(v) for v in task.example().values()]).shape[1:])
    try:
        first = as_tensor(splits.train.batch(np.arange(min(_ASKED, len(splits.train))))[1])
        form, _ = fitting_form(task.loss, shape, first)
        found = _constant(form, shape, splits.train.all_targets())
        if found is None:
            return None
        answer, what = found
        targets = splits.valid.all_targets()
        outputs = np.broadcast_to(answer.astype(np.float32).reshape(shape), (len(targets), *shape)).copy()
        return float(np.mean(metric(task.metric).scores(outputs, targets))), what
    except InputError:  # a metric or a loss of the user's that takes no such answer
        return None


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
