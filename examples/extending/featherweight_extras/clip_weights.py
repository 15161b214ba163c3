"""ClipWeights: no weight is larger than some multiple of its tensor's root mean square.

A few outliers stretch the range that a grid of integers has to cover, and cost all other weights
resolution. Notation: w a weight tensor, c `multiple`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featherweight.recipe import Made, Mark, Shape, Transform
from featherweight.space import Float, param
from featherweight.transforms.base import Context

if TYPE_CHECKING:
    from torch import Tensor

    from featherweight.models.package import Package


def clipped(w: Tensor, multiple: float) -> Tensor:
    """w, cut off at -c rms(w) and c rms(w). What was zero stays zero."""
    bound = multiple * float(w.square().mean().sqrt())
    return w.clamp(-bound, bound)


@dataclass(frozen=True)
class ClipWeights(Transform):
    """Cut off the outliers among the weights of each layer; biases and norms stay as they are."""

    says = "Cut off the largest weights"

    multiple: float = param(
        4.0,
        search=Float(2.0, 8.0),
        legal=Float(0.1, 1000.0),
        doc="largest weight allowed, as a multiple of its tensor's root mean square",
    )

    @property
    def refuses(self) -> dict[Mark, str]:
        return {Made.INTEGER_WEIGHTS: "the weights are on an integer grid, which clipping leaves"}

    @property
    def shape(self) -> Shape:
        return Shape.KEEPS

    def apply(self, model: Package, context: Context) -> Package:
        import torch

        module, changed = copy.deepcopy(model.module), 0
        with torch.no_grad():
            for w in module.parameters():
                if w.ndim > 1:
                    new = clipped(w, self.multiple)
                    changed += int((new != w).sum())
                    w.copy_(new)
        return model.edited(module=module).noted(step=self.kind, clipped=changed)
