"""Weights that a model computes from other parameters each time it runs: weight and spectral
normalisation, old and new, and every other parametrization. Writing to such a weight writes to
nothing that is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_OLD = (WeightNorm, SpectralNorm)  # they write `weight` before each pass
WHY = "its weight is computed from other parameters"


def computed(layer: nn.Module) -> bool:
    """Is the weight of the layer, or another parameter of it, computed?"""
    return parametrize.is_parametrized(layer) or (
        isinstance(getattr(layer, "weight", None), Tensor)
        and "weight" not in layer._parameters
        and "weight" not in layer._buffers
    )


def settle(layer: Any) -> None:
    """Make what is computed plain parameters of the values that they have, in place."""
    if parametrize.is_parametrized(layer):
        values = {name: getattr(layer, name) for name in layer.parametrizations}
        # torch's own removal takes the property off the class, which copies of the layer share
        layer.__class__ = type(layer).__bases__[0]
        del layer._modules["parametrizations"]
        for name, value in values.items():
            layer.register_parameter(name, nn.Parameter(value.detach()))
    for key, hook in list(layer._forward_pre_hooks.items()):
        if isinstance(hook, _OLD):
            hook.remove(layer)
            del layer._forward_pre_hooks[key]


def refresh(module: nn.Module) -> None:
    """Compute the weights of the old normalisations anew, without a graph. After a training pass
    they are parts of one, and such a module cannot be copied."""
    with torch.no_grad():
        for m in module.modules():
            for hook in m._forward_pre_hooks.values():
                if isinstance(hook, _OLD):
                    training, m.training = m.training, False
                    hook(m, ())
                    m.training = training
