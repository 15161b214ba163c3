"""SNIP: a net is as good as its weights are sensitive.

Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
arXiv:1810.02340, eq. 5; summed over the net as in Abdelfattah et al. 2021, arXiv:2101.08134, eq. 1.
Notation: w a weight, g the loss's gradient at it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import Loss, Proxy, gradients, number


class Snip(Proxy):
    """sum |g w| over all weights, after one batch; biases and normalisation are left out."""

    def score(self, module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, loss_fn: Loss) -> float:
        return number(
            sum(float((w * g).double().abs().sum()) for w, g in gradients(module, inputs, targets, loss_fn)),
            "the SNIP score",
        )
