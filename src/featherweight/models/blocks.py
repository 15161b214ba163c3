"""Whole blocks of a model: residual blocks, transformer layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .hooks import Hook, watched
from .loops import unlike


def droppable(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, list[int]]:
    """{path of a ModuleList or Sequential: indices of its children that can be left out}; none
    inside another's blocks. See `examined`."""
    return examined(module, inputs)[0]


def examined(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """(`droppable`, {path of a row of such blocks: why none of them can be left out}).

    Those that can are of at least two of the same class, with layers of their own, their (first)
    output has their first input's shape, and the model does the same around each child of the row
    (`loops`).
    """
    fits: dict[tuple[str, int], bool] = {}

    def watch(key: tuple[str, int], _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        x = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)), None)
        y = out[0] if isinstance(out, tuple) else out
        same = x is not None and isinstance(y, torch.Tensor) and x.shape == y.shape
        fits[key] = same and fits.get(key, True)

    after: dict[str, Hook] = {}
    for path, holder in module.named_modules():
        children = dict(holder.named_children()) if isinstance(holder, (nn.ModuleList, nn.Sequential)) else {}
        kinds = [type(c) for c in children.values()]
        for i, (name, block) in enumerate(children.items()):
            if kinds.count(type(block)) > 1 and list(block.children()):
                after[f"{path}.{name}" if path else name] = partial(watch, (path, i))
    with torch.inference_mode(), watched(module, after, with_kwargs=True):
        module(*inputs)
    found: dict[str, list[int]] = {}
    for path, i in sorted(key for key, fit in fits.items() if fit):
        found.setdefault(path, []).append(i)
    found = {
        p: index for p, index in found.items() if not any(q != p and (q == "" or p.startswith(q + ".")) for q in found)
    }
    whole = unlike(module, found, tuple(t[:2] for t in inputs)) if found else {}
    return {p: index for p, index in found.items() if p not in whole}, whole
