"""What a model is worth that looks at no input: the mark that an original has to pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from ..measure.accuracy import metric_of
from ..task.task import Task

_ASKED = 64  # training samples on which the loss is asked what outputs stand for


def guess(task: Task) -> tuple[float, str] | None:
    """(the metric on the validation split of the best answer that is the same for every sample,
    what that is): the classes' shares, the labels' shares, the mean or the median of the training
    targets, or of labels that are read from frames none.
    None where the metric has no value for such an answer, or the targets do not give one."""
    import torch

    from ..task.tensors import as_tensor

    splits = task.splits()
    if task.model is None:
        shape: tuple[int, ...] = (task.outputs,)
    else:
        with torch.no_grad():
            shape = tuple(task.build()(*[as_tensor(v) for v in task.example().values()]).shape[1:])
    try:
        answers = list(_answers(task, shape))
        targets = splits.valid.all_targets()
        judged = metric_of(task)
        found = []
        for answer, what in answers:
            outputs = np.broadcast_to(answer.astype(np.float32).reshape(shape), (len(targets), *shape)).copy()
            found.append((float(np.mean(judged.scores(outputs, targets))), what))
        return max(found, key=lambda one: judged.sign * one[0], default=None)
    except InputError:  # a metric or a loss of the user's that takes no such answer
        return None


def _answers(task: Task, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, str]]:
    """Answers [outputs] that are the same for every sample, and what they are."""
    from ..task.tensors import as_tensor
    from ..train.forms import fitting_form

    if task.loss == "contrastive":  # whose targets say nothing of one output that is always given
        return
    if task.loss == "ctc":
        yield (
            _blanks(shape, task.class_axis == -1),
            "no label at all, as of nets that were trained for too short a time",
        )
        return
    train = task.splits().train
    first = as_tensor(train.batch(np.arange(min(_ASKED, len(train))))[1])
    form, _ = fitting_form(task.loss, shape, first, task.axis_of_classes)
    form = "mse" if task.loss == "kl" else form  # targets are outputs
    known = train.all_targets()
    classes = form == "softmax" or task.loss == "log_loss"
    found = None
    if classes and known.ndim == len(shape) > 1:
        found = _at_places(shape, known, task.class_axis == -1, form == "softmax")
    found = found or _constant(form, shape, known, task.loss in ("bce", "log_loss"))
    if found is not None:
        yield found
        median = np.median(known.reshape(len(known), -1).astype(np.float64), axis=0)
        if form == "mse" and task.loss != "log_loss" and median.size == found[0].size:
            yield median, "always the median of the training targets"  # the least mean absolute error


def _blanks(shape: tuple[int, ...], last: bool) -> np.ndarray:
    """[*shape] logits of frames that all say class 0, the blank."""
    one: np.ndarray = np.zeros(shape)
    (one.T if last else one)[0] = 1
    return one


def _at_places(shape: tuple[int, ...], targets: np.ndarray, last: bool, logits: bool) -> tuple[np.ndarray, str] | None:
    """The classes' shares [*shape], at every place, as logits or as they are. None if targets
    [n, ...] are no classes of places."""
    width = shape[-1] if last else shape[0]
    places = shape[:-1] if last else shape[1:]
    if targets.shape[1:] != places or targets.dtype.kind not in "iu" or int(targets.max()) >= width:
        return None
    counts = np.bincount(targets[targets >= 0].astype(np.int64), minlength=width)
    share = np.maximum(counts, 0.5) / max(1, counts.sum())
    share = np.log(share) if logits else share
    one = share.reshape((1,) * len(places) + (width,) if last else (width,) + (1,) * len(places))
    return np.broadcast_to(one, shape), "always the commonest class"


def _constant(form: str, shape: tuple[int, ...], targets: np.ndarray, left_out: bool) -> tuple[np.ndarray, str] | None:
    """The answer [outputs], and what it is. left_out: do targets below 0 not count?"""
    width = int(np.prod(shape))
    rows = targets.reshape(len(targets), -1).astype(np.float64)
    if rows.shape[1] != width and rows.shape[1] == 1 and width > 1:  # class numbers
        if not np.isin(rows, np.arange(width)).all():
            return None
        rows = np.eye(width)[rows[:, 0].astype(np.int64)]
    if rows.shape[1] != width:
        return None
    mean = _mean(rows, rows >= 0) if left_out else rows.mean(0)
    least = 0.5 / len(rows)
    if form == "softmax":
        return np.log(np.maximum(mean, least)), "always the commonest class"
    if form == "bernoulli":
        share = mean.clip(least, 1 - least)
        return np.log(share / (1 - share)), "always the commoner answer"
    return mean, "always the mean of the training targets"


def _mean(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """[n, K] -> [K]: the mean of those that count; of a place without any that of all."""
    many = there.sum(0)
    of_all = rows[there].mean() if there.any() else 0.0
    mean: np.ndarray = np.where(many > 0, np.where(there, rows, 0.0).sum(0) / np.maximum(many, 1), of_all)
    return mean
