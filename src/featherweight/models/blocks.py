"""Whole blocks of a model: residual blocks, transformer layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def droppable(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, list[int]]:
    """{path of a ModuleList or Sequential: indices of its children that can be left out}; none inside another's blocks.

    They are of at least two of the same class, with layers of their own, and their (first) output has their first input's shape.
    """
    import torch
    from torch import nn

    fits: dict[tuple[str, int], bool] = {}
    hooks = []
    for path, holder in module.named_modules():
        children = list(holder.children()) if isinstance(holder, (nn.ModuleList, nn.Sequential)) else []
        kinds = [type(c) for c in children]
        for i, block in enumerate(children):
            if kinds.count(type(block)) < 2 or not list(block.children()):
                continue

            def watch(_: nn.Module, args: Any, kwargs: Any, out: Any, key: tuple[str, int] = (path, i)) -> None:
                x = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)), None)
                y = out[0] if isinstance(out, tuple) else out
                same = x is not None and isinstance(y, torch.Tensor) and x.shape == y.shape
                fits[key] = same and fits.get(key, True)

            hooks.append(block.register_forward_hook(watch, with_kwargs=True))
    try:
        with torch.inference_mode():
            module(*inputs)
    finally:
        for h in hooks:
            h.remove()
    found: dict[str, list[int]] = {}
    for path, i in sorted(key for key, fit in fits.items() if fit):
        found.setdefault(path, []).append(i)
    return {p: index for p, index in found.items() if not any(q != p and (q == "" or p.startswith(q + ".")) for q in found)}
