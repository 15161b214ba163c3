"""Synaptic flow: the total strength of all paths from input to output.
Needs the net alone, no data.

Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic
flow", arXiv:2006.05467, eq. 3; summed over the net, with normalisation left out, as in
Abdelfattah et al. 2021, arXiv:2101.08134, eq. 1 and section 3.2.
Notation: w the weights, R the sum of the outputs for an input of ones when every w is
replaced by |w|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..hooks import watched
from .base import Loss, Proxy, number, rehearsal


class Synflow(Proxy):
    """log sum_w |w| dR/d|w|, in float64, over weights of two or more dimensions.

    Every input of floating point becomes ones; whole-number inputs (token ids, masks) stay as they
    are for one sample, and an embedding gives ones, so that the flow starts behind it.
    Normalisation modules pass their input on. Activations act as they are: ReLU changes nothing
    here, since all values are positive. -inf: no path leads from the input to the output.
    """

    def score(self, module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, loss_fn: Loss) -> float:
        made = rehearsal(module, inputs).double().eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.abs_()
        replaced = {path: hook for path, part in made.named_modules() if (hook := _replacement(part)) is not None}
        ones = [torch.ones_like(t[:1], dtype=torch.float64) if t.is_floating_point() else t[:1] for t in inputs]
        weights = [p for p in made.parameters() if p.ndim >= 2]
        with torch.enable_grad(), watched(made, replaced):
            flow = made(*ones).sum()  # R, eq. 3
            found = torch.autograd.grad(flow, weights, allow_unused=True) if weights and flow.requires_grad else []
        total = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, found, strict=False) if g is not None)
        return math.log(total) if 0 < number(total, "the synaptic flow") else -math.inf


def _replacement(part: nn.Module) -> Any:
    """The forward hook that makes a normalisation pass its input on, and an embedding give ones;
    None for other modules."""
    if isinstance(part, nn.Embedding):
        return lambda _, args, out: torch.ones_like(out)
    norms = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
    return (lambda _, args, out: args[0]) if isinstance(part, norms) else None
