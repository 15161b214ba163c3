"""Does a model's code look at values, by which it may choose its way?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .hooks import slow_attention, tensors

_PICKS = ("index", "index_put", "index_put_", "_index_put_impl_", "masked_scatter", "masked_scatter_")


def by_value(func: Any, given: list[Tensor]) -> bool:
    """Does what comes of an operation, or how much, depend on the values that it is given, not on
    shapes?"""
    if func.overloadpacket.__name__ in _PICKS:
        return any(t.dtype in (torch.bool, torch.uint8) for t in given[1:])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


class _Looking(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.found = self.found or by_value(func, list(tensors((args, kwargs or {}))))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def looks_at_values(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """In a run on `inputs`, as the module is; whatever its own code raises is raised."""
    mode = _Looking()
    with slow_attention(), mode:
        module(*inputs)
    return mode.found
