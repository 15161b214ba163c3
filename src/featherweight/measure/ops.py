"""Parameters and multiply-accumulates of a torch module."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from ..errors import TargetError
from ..graphs.parity import evaluating
from ..models import recurrent
from ..models.hooks import tensors, watched


def params(module: nn.Module) -> int:
    """The number of parameters; shared ones count once, buffers not at all."""
    return sum(p.numel() for p in module.parameters())


def macs(module: nn.Module, example: dict[str, torch.Tensor]) -> int:
    """Multiply-accumulates of one inference of one sample: half the FLOPs that torch counts in
    matrix products, convolutions and attention.

    example: one sample per input, batch 1 (of a larger batch the first sample is used); elementwise
    work is not counted, as is the custom.
    """
    if not example or any(len(v) == 0 for v in example.values()):
        raise TargetError(
            "the example input is not usable",
            got=list(example),
            allowed="a tensor per input name with at least one sample",
        )
    counter = FlopCounterMode(display=False)
    # The fused CPU kernels of attention and LSTM are unknown to the counter;
    # the plain ones are made of matrix products.
    with evaluating(module), sdpa_kernel(SDPBackend.MATH), _unfused(), counter:
        module(*[v[:1] for v in example.values()])
    return int(counter.get_total_flops()) // 2


@contextmanager
def _unfused() -> Iterator[None]:
    """Without oneDNN's kernels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other devices' settings, which come with this one
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def layer_macs(module: nn.Module, inputs: Sequence[torch.Tensor]) -> dict[str, float]:
    """Multiply-accumulates of one sample in each Linear and convolution, in the order in which they
    run; those that do not run are left out. Of a recurrent layer, for each of its matrices, by the
    name of the parameter.

    inputs: the module's arguments, each [B, ...]; what all B samples take is divided by B.
    The module runs as it is.
    """
    counts: dict[str, float] = {}

    def count(path: str, layer: Any, args: Any, out: torch.Tensor) -> None:
        # each of its numbers meets weight[0] (or, Linear, a row) once
        moved = args[0] if getattr(layer, "transposed", False) else out
        counts[path] = counts.get(path, 0.0) + moved.numel() / len(inputs[0]) * (
            layer.weight.numel() // max(len(layer.weight), 1)
        )

    def count_matrices(path: str, layer: Any, args: Any, out: Any) -> None:
        y = next(tensors(out))
        for m in recurrent.matrices(layer):  # each meets every moment
            name = f"{path}.{m.name}".removeprefix(".")
            counts[name] = counts.get(name, 0.0) + y.numel() / y.shape[-1] / len(inputs[0]) * m.weight.numel()

    hooks: dict[str, Any] = {}
    for path, m in module.named_modules():
        if isinstance(m, (nn.Linear, _ConvNd, nn.RNNBase)):
            hooks[path] = partial(count_matrices if isinstance(m, nn.RNNBase) else count, path)
    with torch.no_grad(), watched(module, hooks):
        module(*inputs)
    return counts
