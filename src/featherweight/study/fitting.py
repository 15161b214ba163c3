"""Do a task's model, targets, loss and metric fit each other? Asked with a few training samples,
before anything runs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import InputError, TaskError
from ..measure.accuracy import metric, metric_of
from ..measure.metrics import takes_names
from ..task.data import IGNORED
from ..task.task import Task

_ASKED = 16  # training samples
_SOME = 256  # validation samples that a user's metric is tried on


def check_evidence(task: Task) -> None:
    """TaskError if valid or test has no sample of its own: what is found could not be told from
    what was learned by heart."""
    for name, numbers in task.splits().units.items():
        if len(numbers) and int(numbers.max()) < 0:
            raise TaskError(
                f"every sample of the {name} split is in a split before it, too, so it shows nothing of new data",
                got=f"{len(numbers)} samples in {name}",
                allowed="splits of different samples",
                fix="fw.split(data) cuts one set of samples into three",
            )


def check_fit(task: Task) -> None:
    """TaskError, with the loss and the metric that would fit, if the loss or a built-in metric
    takes no such outputs and targets. Of a task without a model only the targets are asked."""
    import torch

    from ..task.tensors import as_tensor

    train = task.splits().train
    inputs, raw = train.batch(np.arange(min(_ASKED, len(train))))
    targets, values = as_tensor(raw), np.asarray(raw)
    whole = values.dtype.kind in "biu" or np.array_equal(values, np.rint(values))
    got = f"targets {_form(targets)}"
    if task.loss == "cross_entropy" and not whole:
        raise _misfit(task, "cross_entropy takes class numbers", f"{got} that are no whole numbers", _numbers(task))
    if task.model is None:
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs = task.build()(*[as_tensor(v) for v in inputs.values()])
    got = f"outputs {_form(outputs)}, {got}"
    fix = _fix(task, outputs, values, whole)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            loss = task.loss_fn(outputs.clone().requires_grad_(), targets)
        except Exception as e:  # whatever the loss, torch's or the user's, raises
            if f"{IGNORED} is out of bounds" in str(e):
                fix = f"let the loss leave out {IGNORED} (ignore_index), which stands where a target does not count"
            raise _misfit(task, "the loss does not take the model's outputs and the targets", f"{got}: {e}", fix) from e
    if any("target size" in str(w.message) and "different to the input size" in str(w.message) for w in said):
        raise _misfit(task, "the loss would compare each output with each target", got, fix)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        shown = _form(loss) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise _misfit(
            task, "the loss gives no number to train by", f"{shown} for {got}", "return one number with a gradient"
        )
    if isinstance(task.metric, str):
        judged = metric_of(task)
        try:
            judged.scores(outputs.numpy(), values)
        except InputError as e:
            raise _misfit(task, f"the metric {task.metric!r} does not fit", f"{got}: {e.got}", fix) from e
    else:
        _check_function(task, outputs.numpy())


def _check_function(task: Task, outputs: np.ndarray) -> None:
    """TaskError if a metric of the user's own fails, or gives neither a value a sample nor one
    number. It is asked about some of valid, with what the untrained model gives for a few rows in
    turn, and where it fails about all: a few may lack a class. That it has no value for such
    outputs (NaN, a division by zero) is no fault."""
    valid, judged = task.splits().valid, metric_of(task)

    def fault(targets: np.ndarray) -> InputError | None:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                judged.computed(np.resize(outputs, (len(targets), *outputs.shape[1:])), targets)
            except InputError as e:
                return None if isinstance(e.__cause__, ArithmeticError) else e
        return None

    found = fault(valid.batch(np.arange(min(_SOME, len(valid))))[1])
    if found is not None and len(valid) > _SOME:
        found = fault(valid.all_targets())
    if found is not None:
        raise TaskError(
            f"task {task.name!r}: the metric {judged.name!r} does not fit the model's outputs and the targets",
            got=f"{found.what}: {found.got}",
            allowed="a function (outputs, targets) -> one value a sample, [n], or one number; numpy arrays go in",
        ) from found


def _fix(task: Task, outputs: Any, targets: np.ndarray, whole: bool) -> str:
    """The loss and the metric that such outputs and targets ask for."""
    if isinstance(task.metric, str) and takes_names(metric(task.metric)) and _plain_loss(task) is not None:
        names = task.splits().report.get("class_names")
        said = "" if names is None else f" (they are {', '.join(names[:5])})"
        return f"classes=[..]: the names of the classes in the order of the outputs, as {task.metric} needs them{said}"
    suits = _SUITING.get(_plain_loss(task) or "")
    if suits is not None and whole and (outputs.ndim > 2 or task.loss in ("ctc", "contrastive", "bce")):
        return f"loss={_plain_loss(task)!r} goes with metric={' or '.join(map(repr, suits))}"
    if outputs.ndim > 2 and whole and targets.shape != tuple(outputs.shape):
        return (
            "outputs [n, classes, ...] (class_axis=-1: [n, ..., classes]) with class numbers [n, ...] take "
            "loss='cross_entropy', metric='miou'; labels that are read from frames loss='ctc', metric='cer'"
        )
    if outputs.numel() == targets.size and not (whole and outputs.ndim == 2 and outputs.shape[1] > 1):
        if whole and set(np.unique(targets).tolist()) <= {0, 1}:
            return "give the model one output a class; or, of one output: loss='bce', metric='accuracy'" + (
                "" if outputs.ndim < 3 else " (at places: 'iou')"
            )
        return _numbers(task)
    if whole and targets.ndim == 1 and outputs.ndim == 2 and int(targets.min()) >= 0:
        least = int(targets.max()) + 1
        wide = "" if outputs.shape[1] >= least else f"give the model at least {least} outputs; then "
        return f"{wide}loss='cross_entropy', metric='accuracy'"
    if whole and outputs.numel() == targets.size and set(np.unique(targets).tolist()) <= {0, 1}:
        return (
            "of labels that do not exclude each other: loss='bce', metric='micro_f1'; or give loss= and metric= "
            "functions of (outputs, targets)"
        )
    return (
        "give the model as many outputs as the targets have numbers, with loss='mse', metric='mse'; or give "
        "loss= and metric= functions of (outputs, targets)"
    )


_SUITING = {  # of losses of answers that are judged at places, read from frames, or compared
    "cross_entropy": ("miou", "pixel_accuracy", "token_accuracy"),
    "log_loss": ("miou", "iou@0.5", "macro_f1@0.5"),
    "bce": ("accuracy", "iou", "f1", "macro_f1", "micro_f1"),
    "kl": ("agreement",),
    "ctc": ("cer", "wer"),
    "contrastive": ("recall_at_1", "recall_at_5"),
}


def _plain_loss(task: Task) -> str | None:
    """The loss, if it is one of classes by name."""
    return task.loss if isinstance(task.loss, str) and task.loss in _SUITING else None


def _numbers(task: Task) -> str:
    return f"Task({task.name!r}, .., loss='mse', metric='mse') if the targets are numbers (regression)"


def _misfit(task: Task, what: str, got: str, fix: str) -> TaskError:
    name = task.loss if isinstance(task.loss, str) else getattr(task.loss, "__name__", "a function")
    return TaskError(
        f"task {task.name!r}: {what}",
        got=f"loss {name}, metric {task.metric if isinstance(task.metric, str) else 'a function'}; {got}",
        allowed="cross_entropy: outputs [n, classes], class numbers [n]; mse: as many outputs as targets; "
        "or a function (outputs, targets) -> one number",
        fix=fix,
    )


def _form(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
