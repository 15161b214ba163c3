"""Parameters and multiply-accumulates of a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import TargetError
from ..graphs.parity import evaluating

if TYPE_CHECKING:
    import torch
    from torch import nn


def params(module: nn.Module) -> int:
    """The number of parameters; shared ones count once, buffers not at all."""
    return sum(p.numel() for p in module.parameters())


def macs(module: nn.Module, example: dict[str, torch.Tensor]) -> int:
    """Multiply-accumulates of one inference of one sample: half the FLOPs that torch counts in matrix products, convolutions and attention.

    example: one sample per input, batch 1 (of a larger batch the first sample is used); elementwise work is not counted, as is the custom.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    if not example or any(len(v) == 0 for v in example.values()):
        raise TargetError("the example input is not usable", got=list(example), allowed="a tensor per input name with at least one sample")
    counter = FlopCounterMode(display=False)
    # The fused CPU attention kernel is unknown to the counter; the plain one is made of matrix products.
    with evaluating(module), sdpa_kernel(SDPBackend.MATH), counter:
        module(*[v[:1] for v in example.values()])
    return int(counter.get_total_flops()) // 2
