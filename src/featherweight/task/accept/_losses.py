"""Losses and metrics as people have them: names, functions, objects of torch and torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ..data import IGNORED
from ..task import LOSSES

if TYPE_CHECKING:
    import torch


def loss_of(given: Any) -> Any:
    """A loss as `Task` takes it: names as they are, torch's plain ones by their names, with targets
    in the form that they take; others as functions."""
    if isinstance(given, str):
        return given
    if isinstance(given, type):
        given = given()
    kind = type(given).__name__
    if type(given).__module__.startswith("torch.nn"):
        named = _TORCH.get(kind)
        if named == "ctc":
            _check_ctc(given)
            return named
        if named is not None and _plain(given):
            return named
        return TorchLoss(given, kind)
    if not callable(given):
        raise TaskError("this is no loss", got=repr(given)[:200], allowed=f"{', '.join(LOSSES)}, or a function")
    return given


_TORCH = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "cross_entropy",  # of log-probabilities, whose log-softmax is themselves
    "BCEWithLogitsLoss": "bce",
    "BCELoss": "log_loss",
    "MSELoss": "mse",
    "L1Loss": "mae",
    "HuberLoss": "huber",
    "SmoothL1Loss": "huber",
    "CTCLoss": "ctc",
    "CosineEmbeddingLoss": None,
}


def ignored_by(given: Any) -> int | None:
    """The target that one of torch's losses leaves out, if it says one of its own; else None."""
    found = getattr(given, "ignore_index", None) if type(given).__module__.startswith("torch.nn") else None
    return found if isinstance(found, int) and found != IGNORED else None


def _check_ctc(loss: Any) -> None:
    """TaskError for settings that the loss "ctc" has not."""
    if loss.blank != 0 or loss.reduction != "mean":
        raise TaskError(
            "the loss that reads labels from frames has class 0 for the blank, and is the mean over samples",
            got=f"CTCLoss(blank={loss.blank}, reduction={loss.reduction!r})",
            allowed="loss='ctc', or nn.CTCLoss() with blank=0 and reduction='mean'",
            fix="put the blank first: let the model's class 0 be the blank, and number labels from 1",
        )


def _plain(loss: Any) -> bool:
    """Has one of torch's losses the settings that it has by default, but for what it leaves out,
    which targets say (`ignored_by`)?"""
    fresh = type(loss)()
    beside = ("training", "ignore_index")
    same = {k: v for k, v in vars(loss).items() if not k.startswith("_") and k not in beside}
    default = {k: v for k, v in vars(fresh).items() if not k.startswith("_") and k not in beside}
    return same == default and not list(loss.buffers())


class TorchLoss:
    """One of torch's losses with settings of its own, given targets in the form that it takes."""

    def __init__(self, loss: Any, name: str) -> None:
        self.loss, self.__name__ = loss, name
        self._same = not name.startswith(("CrossEntropy", "NLL", "MultiMargin", "Triplet", "CTC"))

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        import torch

        loss = self.loss.to(outputs.device)
        if self._same and targets.numel() == outputs.numel():
            targets = targets.to(outputs.dtype).reshape(outputs.shape)
        left_out = getattr(loss, "ignore_index", None)
        if left_out is not None and not targets.is_floating_point():
            counted = (targets != IGNORED) & (targets != left_out)
            if not bool(counted.any()):
                return outputs.sum() * 0  # torch's mean over nothing is NaN
            targets = torch.where(counted, targets, left_out)
        found: torch.Tensor = loss(outputs, targets)
        return found if found.ndim == 0 else found.mean()


def metric_of(given: Any) -> Any:
    """A metric as `Task` takes it: names and functions as they are, torchmetrics' as functions."""
    if type(given).__module__.startswith("torchmetrics") and hasattr(given, "compute"):
        return TorchMetric(given)
    if isinstance(given, type):
        raise TaskError("a metric is a name, a function or an object", got=given.__name__, fix=f"{given.__name__}()")
    return given


class TorchMetric:
    """A metric of torchmetrics as a function of arrays."""

    def __init__(self, metric: Any) -> None:
        self.metric, self.__name__ = metric, type(metric).__name__
        better = metric.higher_is_better
        if better is None:
            raise TaskError(
                "this metric does not say whether more of it is better", got=self.__name__, fix="give a function"
            )
        self.higher_is_better = bool(better)

    def __call__(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        from ..tensors import as_tensor

        self.metric.reset()
        self.metric.update(as_tensor(outputs), as_tensor(targets))
        return float(self.metric.compute())
