"""Build: begin with a new model, made from a description of its architecture (`featherweight.nets`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Transform, encode
from ..space import param
from .base import Context

if TYPE_CHECKING:
    from torch import nn

    from ..models.package import Package


@dataclass(frozen=True)
class Build(Transform):
    """A new, untrained model: `Recipe(Build(ConvNet(..)), Distill(..))` makes a student of the baseline.

    Its initial weights depend on the step's seed only. InputError if `net` is no description, or if the module does not run on a
    training sample or gives another shape of output than the task's own model.
    """

    @property
    def starts(self) -> bool:
        return True

    net: Any = param(None, doc="the architecture: ConvNet(..), Mlp(..), Encoder(..); it may have holes")

    def apply(self, model: Package, context: Context) -> Package:
        from ..models.package import Package
        from ..nets.base import Net

        if not isinstance(self.net, Net):
            raise InputError("build needs the description of an architecture", got=repr(self.net), allowed="net=ConvNet(..), Mlp(..), Encoder(..)")
        module = self.net.build(context.seed)
        _check(self.net, module, model.module, context)
        count = sum(p.numel() for p in module.parameters())
        return Package(module, net=encode(self.net)).noted(step="build", net=self.net.kind, params=count)


def _check(net: Any, module: nn.Module, baseline: nn.Module, context: Context) -> None:
    """InputError if the new module does not take the task's inputs to outputs of the baseline's shape."""
    import numpy as np
    import torch

    samples = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in context.task.example().items()}
    got = ", ".join(f"{name}: {v.dtype}{list(v.shape)}" for name, v in samples.items())
    with torch.no_grad():
        want = baseline(*samples.values()).shape
        try:
            shape = module(*samples.values()).shape
        except Exception as e:  # whatever torch raises when sizes or types do not fit
            raise InputError(
                f"the described {net.kind} does not take this task's inputs",
                got=f"{got}; {type(e).__name__}: {e}",
                fix="its sizes of inputs (in_channels, features, vocab and length) must be the task's",
            ) from e
    if shape != want:
        raise InputError(
            f"the described {net.kind} gives outputs of another shape than the task's model",
            got=list(shape),
            allowed=list(want),
            fix="set classes to the task's outputs",
        )
