"""Train: supervised training with the task's own loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError
from ..space import Float, param
from .base import Context, Trained

if TYPE_CHECKING:
    from ..models.package import Package


@dataclass(frozen=True)
class Train(Trained):
    """Train the model on the task's training split for `epochs`, from the weights that it has."""

    says = "Train the weights"

    label_smoothing: float = param(
        0.0, search=Float(0.0, 0.2), legal=Float(0.0, 0.9), doc="for cross-entropy: mass moved to the other classes"
    )

    def apply(self, model: Package, context: Context) -> Package:
        loss = context.task.loss_fn
        if self.label_smoothing > 0:
            if context.task.loss != "cross_entropy":
                raise InputError(
                    "label smoothing needs the cross-entropy loss", got=context.task.loss, fix="set label_smoothing=0"
                )
            from torch.nn.functional import cross_entropy

            smooth = partial(cross_entropy, label_smoothing=self.label_smoothing)
            return self.fit(model, context, lambda out, y, _: smooth(out, y.long()))
        return self.fit(model, context, lambda out, y, _: loss(out, y))
