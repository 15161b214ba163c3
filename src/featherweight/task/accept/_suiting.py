"""The metric that goes with a loss, and with outputs that are logits or probabilities."""

from __future__ import annotations

from typing import Any

from ...errors import TaskError
from ..files import name_of
from ._targets import ANSWERS, Meaning


def at_its_turn(asked: Any, means: Meaning, loss: Any) -> Any:
    """The metric that was asked for by name; of outputs that are probabilities yes is above a
    half. loss: which counts; one of logits says that outputs are logits."""
    if means.axis is not None and asked == "accuracy":
        asked = "token_accuracy" if means.metric == "token_accuracy" else "pixel_accuracy"
    half = isinstance(means.metric, str) and means.metric.endswith("@0.5") and not _of_logits(loss)
    return f"{asked}@0.5" if half and isinstance(asked, str) and asked in ANSWERS else asked


def _of_logits(loss: Any) -> bool:
    return loss == "bce" or getattr(loss, "__name__", "") == "BCEWithLogitsLoss"


def suiting(found: Any, loss: Any, given_loss: Any) -> Any:
    """The metric where none was given: that of the targets, if their loss was not another's."""
    if given_loss is None:
        return found
    if _of_logits(loss) and isinstance(found, str):  # whatever the outputs look like, they are logits
        return found.partition("@")[0]
    by_loss = {"mse": "r2", "mae": "mae", "huber": "mae", "cosine": "cosine", "contrastive": "recall_at_1"}
    if isinstance(loss, str) and loss in by_loss:
        return by_loss[loss]
    if found is None:
        raise TaskError(
            "which metric counts?", got=f"loss={name_of(loss)}, no metric", fix='metric="..", or a function'
        )
    return found
