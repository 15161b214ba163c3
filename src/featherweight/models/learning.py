"""Passes in training mode that leave a model as it was, and what an ordinary pass does not show
of them: heads that run in training alone, say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .hooks import slow_attention

# they compute the same in both modes, but for chance and the rows beside
_AS_EVER = (_NormBase, _DropoutNd, nn.MultiheadAttention, nn.RNNBase)


@contextmanager
def learning(module: nn.Module) -> Iterator[None]:
    """Within the block the module is in training mode, its norms and dropouts excepted. Afterwards
    modes, buffers and attributes of its submodules are as before."""
    own = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    modes = [(m, m.training) for m in module.modules()]
    saved = [(m, dict(vars(m)), dict(m._buffers)) for m in own]
    values = [(b, b.detach().clone()) for b in module.buffers()]
    try:
        module.train()
        for m in module.modules():
            if isinstance(m, _AS_EVER):
                m.eval()
        yield
    finally:
        for m, attributes, buffers in saved:
            vars(m).clear()
            vars(m).update(attributes)
            m._buffers.clear()
            m._buffers.update(buffers)
        with torch.no_grad():
            for b, value in values:
                b.copy_(value)
        for m, training in modes:
            m.training = training


def learns_apart(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Does a pass in training mode do something else than one in eval mode? Not if it does not run:
    then nobody trains the model by its inputs alone."""
    ordinary = _operations(module, inputs)
    try:
        with learning(module):
            return _operations(module, inputs) != ordinary
    except Exception:  # whatever the model's own code raises
        return False


def _operations(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    with torch.no_grad(), slow_attention(), torch.random.fork_rng(devices=[]), _Listing() as listing:
        torch.manual_seed(0)
        module(*inputs)
    found: list[str] = listing.found
    return found


class _Listing(TorchDispatchMode):
    """Which operations ran, on what."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [tuple(x.shape) if isinstance(x, Tensor) else x for x in tree_leaves((args, kwargs or {}))]
        self.found.append(f"{func} {given}")
        return func(*args, **(kwargs or {}))
