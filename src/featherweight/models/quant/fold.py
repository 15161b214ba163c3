"""Batch norm folded into the values of the layer before it, so that the weights that are rounded
are those that the exported file holds.

Nagel et al. 2021, arXiv:2106.08295, section 2.3.1. Notation: y = gamma
(W x + b - mu) / sigma + beta, sigma = sqrt(var + eps).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def fold(module: nn.Module, batch_norms: dict[str, str]) -> None:
    """In place, for {layer: the batch norm that alone reads it}: W <- gamma W / sigma, and the
    batch norm becomes an addition of gamma (b - mu) / sigma + beta, or, where the layer has a bias,
    nothing. The modules stay, and so does the function.

    Layers whose gamma has a zero keep that channel's weights at zero,
    as the folded function has it."""
    with torch.no_grad():
        for path, norm in batch_norms.items():
            layer: Any = module.get_submodule(path)
            bn: Any = module.get_submodule(norm)
            factor = (bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()).to(layer.weight.dtype)
            layer.weight.mul_(factor.reshape(-1, *(1,) * (layer.weight.ndim - 1)))
            shift = bn.bias - factor * bn.running_mean
            if layer.bias is not None:
                layer.bias.copy_(layer.bias * factor + shift)
                shift = torch.zeros_like(shift)
            bn.weight.fill_(1.0)
            bn.bias.copy_(shift)
            bn.running_mean.zero_()
            bn.running_var.fill_(1.0 - bn.eps)
