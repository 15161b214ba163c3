"""Losses and metrics as people have them: names, functions, objects of torch and torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
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


def _plain(loss: Any) -> bool:
    """Has one of torch's losses the settings that it has by default?"""
    fresh = type(loss)()
    same = {k: v for k, v in vars(loss).items() if not k.startswith("_") and k != "training"}
    default = {k: v for k, v in vars(fresh).items() if not k.startswith("_") and k != "training"}
    return same == default and not list(loss.buffers())


class TorchLoss:
    """One of torch's losses with settings of its own, given targets in the form that it takes."""

    def __init__(self, loss: Any, name: str) -> None:
        self.loss, self.__name__ = loss, name
        self._same = not name.startswith(("CrossEntropy", "NLL", "MultiMargin", "Triplet", "CTC"))

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = self.loss.to(outputs.device)
        if self._same and targets.numel() == outputs.numel():
            targets = targets.to(outputs.dtype).reshape(outputs.shape)
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
