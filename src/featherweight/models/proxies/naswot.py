"""NASWOT: a net is as good as its activation patterns tell the samples of a batch apart.

Mellor et al. 2021, "Neural Architecture Search without Training", arXiv:2006.04647,
section 3, eq. 2.
Notation: n samples, A activations (of all layers), c_i [A] the binary code of sample i (1 where an
activation lets its input pass), d_H the Hamming distance, K_H [n, n] the kernel A - d_H(c_i, c_j).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import InputError
from .base import Loss, Proxy, number, rehearsal

# aten operators, `_` at the end if in place
_RELU_LIKE = ("relu", "leaky_relu", "_prelu_kernel", "gelu", "silu", "hardswish", "elu", "celu", "mish")
_CLIPPED = ("hardtanh",)  # as ReLU6 calls it: from 0 up


class Naswot(Proxy):
    """log |K_H|.

    What counts is each call of a ReLU-like operator, as a module or as a function: ReLU, ReLU6,
    LeakyReLU, PReLU, ELU, CELU, SELU, GELU, SiLU, Hardswish, Mish; for all of them the code is 1
    where the input is above 0. -inf: two samples have the same code. InputError: the module calls
    none of these, or on a tensor whose first dimension is not the samples.
    """

    def score(self, module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, loss_fn: Loss) -> float:
        made, n = rehearsal(module, inputs), len(inputs[0])
        kernel = torch.zeros(n, n, dtype=torch.float64)

        def seen(pre: Tensor) -> None:
            if pre.ndim == 0 or len(pre) % n:
                raise InputError(
                    "NASWOT met an activation whose first dimension is not the samples",
                    got=list(pre.shape),
                    allowed=f"a multiple of {n}",
                )
            code = (pre.detach() > 0).reshape(n, -1).float()  # [n, A of this layer]
            # A - d_H counts the places where two codes agree
            kernel.add_((code @ code.T + (1 - code) @ (1 - code).T).double().cpu())

        # with gradients: without, fused encoder layers hide their activations
        with torch.enable_grad(), _watch(seen):
            made(*inputs)
        if not bool(kernel.any()):
            raise InputError(
                "NASWOT needs activations and this module has none",
                allowed=", ".join(_RELU_LIKE),
                fix="use another proxy",
            )
        sign, logarithm = torch.linalg.slogdet(kernel)
        codes_differ = bool((kernel < kernel[0, 0]).logical_or(torch.eye(n, dtype=torch.bool)).all())
        return number(float(logarithm), "the NASWOT score") if codes_differ and sign > 0 else -math.inf


def _watch(seen: Any) -> Any:
    """A context in which `seen` is given the input of every ReLU-like operator."""

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kind = func.overloadpacket.__name__.removesuffix("_")
            if kind in _RELU_LIKE or (kind in _CLIPPED and len(args) > 1 and args[1] == 0):
                seen(args[0])
            return func(*args, **(kwargs or {}))

    return Watch()  # type: ignore[no-untyped-call]
