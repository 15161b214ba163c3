"""Edits of a module's architecture, and their description as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StoreError

if TYPE_CHECKING:
    from torch import nn


def keep_blocks(module: nn.Module, path: str, index: tuple[int, ...]) -> None:
    """Keep only the children `index` (rising) of the ModuleList or Sequential at `path`; they are numbered anew. In place."""
    from torch import nn

    blocks = module.get_submodule(path)
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or not all(0 <= i < len(blocks) for i in index):
        raise StoreError("no such blocks in this model", got=f"{path}: {index}", allowed="indices of a ModuleList or Sequential")
    for i in reversed(range(len(blocks))):
        if i not in index:
            del blocks[i]


def sizes(module: nn.Module) -> dict[str, dict[str, Any]]:
    """For every submodule, its attributes that are whole numbers or tuples of them (in_channels, num_heads, normalized_shape)."""

    def whole(v: Any) -> bool:
        return (isinstance(v, int) and not isinstance(v, bool)) or (
            isinstance(v, (tuple, list)) and len(v) > 0 and all(isinstance(x, int) for x in v)
        )

    return {
        name: {k: list(v) if isinstance(v, (tuple, list)) else v for k, v in vars(m).items() if not k.startswith("_") and whole(v)}
        for name, m in module.named_modules()
    }


def differences(fresh: nn.Module, module: nn.Module, keeps: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, dict[str, Any]]:
    """{submodule path: {attribute: value}} where `module` differs from `fresh` after `keeps`. `fresh` is used up."""
    for path, index in keeps:
        keep_blocks(fresh, path, index)
    before, after = sizes(fresh), sizes(module)
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[:5]
        raise StoreError("the model's structure changed in a way that cannot be saved", got=odd, allowed="resized layers and dropped blocks")
    return {path: changed for path, now in after.items() if (changed := {k: v for k, v in now.items() if before[path].get(k) != v})}


def rebuild(
    fresh: nn.Module, keeps: tuple[tuple[str, tuple[int, ...]], ...], edits: dict[str, dict[str, Any]], shapes: dict[str, tuple[int, ...]]
) -> nn.Module:
    """Apply saved edits to `fresh` (used up): drop blocks, set sizes, and give tensors their saved shapes (unfilled)."""
    import torch
    from torch import nn

    for path, index in keeps:
        keep_blocks(fresh, path, index)
    for path, changed in edits.items():
        m = fresh.get_submodule(path)
        for name, value in changed.items():
            setattr(m, name, tuple(value) if isinstance(value, list) else value)
    for name, shape in shapes.items():
        parent, _, leaf = name.rpartition(".")
        m = fresh.get_submodule(parent)
        old = getattr(m, leaf)
        if tuple(old.shape) != shape:
            new = torch.empty(shape, dtype=old.dtype)
            setattr(m, leaf, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
    return fresh
