"""Follows layers' outputs through the batch normalisation and the activation that come next,
whether modules or functions.

Notation: O outputs of a layer, N samples.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from .hooks import watched

# names of functions of torch, torch.nn.functional and Tensor, in place ones without their last `_`
ACTIVATIONS = frozenset(
    (
        "relu relu6 hardtanh gelu silu mish elu selu celu leaky_relu prelu rrelu hardswish hardsigmoid hardshrink "
        "softshrink tanhshrink softplus softsign sigmoid logsigmoid log_sigmoid tanh threshold"
    ).split()
)


class Follow(TorchFunctionMode):
    """A context in which the model runs. norms: {path: |gamma| [O]}, where a batch norm with a
    scale is applied to the layer's very output."""

    def __init__(self, module: nn.Module, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.module, self.layers, self.norms = module, layers, dict[str, Tensor]()
        self._widths = {path: len(torch.as_tensor(layer.weight)) for path, layer in layers.items()}
        # a tensor that carries a layer's output -> (the layer's path, its stage)
        self._at = WeakTensorKeyDictionary()
        self._means: dict[str, Tensor] = {}
        # 0: the layer's output, 1: after its batch norm, 2: after its activation
        self._stage: dict[str, int] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> Any:
        self._hooks.enter_context(watched(self.module, {path: partial(self._start, path) for path in self.layers}))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._hooks.close()

    def take(self) -> dict[str, Tensor]:
        """What the last run left: {path: each channel's mean over the positions of
        each sample [N, O]}."""
        means, self._means, self._stage, self._at = self._means, {}, {}, WeakTensorKeyDictionary()
        return means

    def _start(self, path: str, _: nn.Module, __: Any, out: Tensor) -> None:
        self._move(path, out, 0)

    def _move(self, path: str, out: Tensor, stage: int) -> None:
        self._at[out] = (path, stage)
        self._stage[path] = stage
        x = out.detach().float()
        x = x.movedim(-1, 1) if isinstance(self.layers[path], nn.Linear) and x.ndim > 1 else x  # channels second
        self._means[path] = x.flatten(2).mean(2) if x.ndim > 2 else x

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removesuffix("_")
        first = args[0] if args else kwargs.get("input")
        out = func(*args, **kwargs)
        if not (name == "batch_norm" or name in ACTIVATIONS) or not isinstance(first, Tensor) or first not in self._at:
            return out
        path, stage = self._at[first]
        if stage != self._stage[path]:
            return out  # the layer has been followed beyond this tensor
        if name == "batch_norm" and stage == 0 and first.shape[1] == self._widths[path]:
            # as in torch.nn.functional.batch_norm
            gamma = args[3] if len(args) > 3 else kwargs.get("weight")
            if gamma is not None:
                self.norms[path] = torch.as_tensor(gamma).detach().float().abs()
            self._move(path, out, 1)
        elif name in ACTIVATIONS and stage < 2:
            self._move(path, out, 2)
        return out
