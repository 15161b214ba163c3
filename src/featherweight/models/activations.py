"""Activations that can be told by what they do, whatever class they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import StoreError
from .swaps import swap

COSTLY: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu, by tanh": partial(F.gelu, approximate="tanh"),
    "gelu, by sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
}
CHEAP: dict[str, Any] = {"relu": nn.ReLU, "hardswish": nn.Hardswish}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "hardswish": F.hardswish}


def replaceable(module: nn.Module, to: str) -> dict[str, str]:
    """{path: what it computes} of the submodules that are a costly activation, and of transformer
    layers of torch's own that call one; what is as `to` already left out."""
    found = {}
    for path, m in module.named_modules():
        function: Any = m.activation if isinstance(m, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) else m
        if isinstance(function, nn.Module) and (function is not m or not path or list(m.children()) or _holds(m)):
            continue  # a layer's own module is found by its own path
        name = _told(function)
        if name is not None and name != to:
            found[path] = name
    return found


def _holds(m: nn.Module) -> bool:
    return next(m.parameters(), None) is not None or next(m.buffers(), None) is not None


def _told(function: Any) -> str | None:
    """The costly activation that it computes on numbers from -8 to 8, or None."""
    x = torch.linspace(-8, 8, 65).reshape(1, 5, 13)
    try:
        with torch.inference_mode():
            y = function(x.clone())
    except Exception:  # noqa: BLE001 (whatever a module raises of numbers that are not what it takes: it is no activation)
        return None
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return None
    return next((name for name, known in COSTLY.items() if torch.allclose(y, known(x), atol=1e-5)), None)


def replace_activation(module: nn.Module, path: str, to: str) -> None:
    """Put the activation `to` in the place of the one at `path`. In place."""
    if to not in CHEAP:
        raise StoreError("no such activation to put in", got=to, allowed=", ".join(CHEAP))
    layer: Any = module.get_submodule(path)
    if isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        layer.activation = _FUNCTIONS[to]
    else:  # where nobody takes what it gives, it has to work in place as well
        swap(module, layer, CHEAP[to](inplace=bool(getattr(layer, "inplace", False))))
    for m in _fusing(module):  # which of torch's fused kernels computes what the layer does
        function = m.activation
        if function is _FUNCTIONS[to] or isinstance(function, CHEAP[to]):
            m.activation_relu_or_gelu = 1 if to == "relu" else 0


def _fusing(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, nn.TransformerEncoderLayer)]


@contextmanager
def replaced(module: nn.Module, path: str, to: str) -> Iterator[None]:
    """While it lasts, the activation at `path` is `to`."""
    layer: Any = module.get_submodule(path)
    own = vars(layer).get("activation")
    kernels = [(m, m.activation_relu_or_gelu) for m in _fusing(module)]
    replace_activation(module, path, to)
    try:
        yield
    finally:
        if own is not None:
            layer.activation = own
        if (new := module.get_submodule(path)) is not layer:
            swap(module, new, layer)
        for m, kernel in kernels:
            m.activation_relu_or_gelu = kernel
