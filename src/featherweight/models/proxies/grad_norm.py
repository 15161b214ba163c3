"""Gradient norm: a net learns as fast as its loss moves its weights.

Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", arXiv:2101.08134, section 3.2.
Notation: g_l the loss's gradient at the weight of layer l.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import Loss, Proxy, gradients, number


class GradNorm(Proxy):
    """sum_l ||g_l||_2 after one batch; biases and normalisation are left out.
    0 for a net whose loss no weight moves."""

    def score(self, module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, loss_fn: Loss) -> float:
        return number(
            sum(float(g.double().norm()) for _, g in gradients(module, inputs, targets, loss_fn)), "the gradient norm"
        )
