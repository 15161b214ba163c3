"""Build: begin with a new model, made from a description of its architecture
(`featherweight.nets`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..nets.base import Net
from ..recipe import Shape, Transform, encode
from ..space import param
from .base import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models.package import Package


@dataclass(frozen=True)
class Build(Transform):
    """A new, untrained model: `Recipe(Build(ConvNet(..)), Distill(..))` makes a student
    of the baseline.

    Its initial weights depend on the step's seed only. InputError if `net` is no description, or if
    the module does not run on a training sample or gives another shape of output than the task's
    own model (or, if there is none, outputs that the task's loss cannot take).
    """

    says = "Start from a new architecture"

    @property
    def starts(self) -> bool:
        return True

    @property
    def shape(self) -> Shape:
        return Shape.FIELDS

    net: Any = param(None, doc="the architecture: ConvNet(..), Cell(..), Encoder(..), Mlp(..); it may have holes")

    def apply(self, model: Package | None, context: Context) -> Package:
        """What came before is not looked at, so `model` may be None."""
        from ..models.package import Package

        if not isinstance(self.net, Net):
            raise InputError(
                "build needs the description of an architecture",
                got=repr(self.net),
                allowed="ConvNet(..), Cell(..), Mlp(..), ..",
            )
        module = self.net.build(context.seed)
        _check(self.net, module, context)
        count = sum(p.numel() for p in module.parameters())
        return Package(module, net=encode(self.net)).noted(step="build", net=self.net.kind, params=count)


def _check(net: Any, module: nn.Module, context: Context) -> None:
    """InputError if the new module does not take the task's inputs,
    or gives outputs that are not what the task needs."""
    import torch

    from ..train.loop import tensors

    train = context.splits.train
    inputs, targets = tensors(train, np.arange(min(2, len(train))), "cpu")
    names = context.task.example()
    got = ", ".join(f"{name}: {v.dtype}{list(v.shape[1:])} a sample" for name, v in zip(names, inputs, strict=True))
    with torch.no_grad():
        try:
            out = module(*inputs)
        except Exception as e:  # whatever torch raises when sizes or types do not fit
            raise InputError(
                f"the described {net.kind} does not take this task's inputs",
                got=f"{got}; {type(e).__name__}: {e}",
                fix="its sizes of inputs (in_channels, features, vocab and length) must be the task's",
            ) from e
        want = context.task.build()(*inputs).shape if context.task.model is not None else None
    if want is not None and out.shape != want:
        raise InputError(
            f"the described {net.kind} gives outputs of another shape than the task's model",
            got=list(out.shape),
            allowed=list(want),
            fix="set classes to the task's outputs",
        )
    if want is None:
        _check_loss(net, out, targets, context)


def _check_loss(net: Any, out: Tensor, targets: Tensor, context: Context) -> None:
    """InputError if the task's loss does not take these outputs, or if a class has none."""
    classes = (
        [int(k) for k in context.splits.report.get("classes") or ()] if context.task.loss == "cross_entropy" else []
    )
    if classes and (out.ndim != 2 or out.shape[1] <= max(classes)):
        raise InputError(
            f"the described {net.kind} has no output for every class",
            got=f"outputs {list(out.shape)}, labels up to {max(classes)}",
            fix=f"set classes={max(classes) + 1}",
        )
    try:
        loss = context.task.loss_fn(out, targets)
        fits = loss.numel() == 1
    except Exception as e:  # whatever the loss raises; it may be the user's own
        raise InputError(
            f"the task's loss does not take the outputs of the described {net.kind}",
            got=f"outputs {list(out.shape)}, targets {list(targets.shape)}; {type(e).__name__}: {e}",
            fix="set its number of outputs (classes) to the task's",
        ) from e
    if not fits:
        raise InputError("the task's loss has to be one number", got=f"shape {list(loss.shape)}")
