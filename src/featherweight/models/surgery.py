"""Edits of a module's architecture, and their description as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import StoreError

if TYPE_CHECKING:
    from torch import nn


def edit(module: nn.Module, change: dict[str, Any]) -> None:
    """Apply one structural edit, as data: {"edit": its name in `EDITS`, its arguments}. In place. StoreError if there is no such edit."""
    name = change.get("edit")
    if name not in EDITS:
        raise StoreError("no such edit of a model's structure", got=str(name), allowed=", ".join(sorted(EDITS)))
    EDITS[name](module, **{k: v for k, v in change.items() if k != "edit"})


def keep_blocks(module: nn.Module, path: str, index: Iterable[int]) -> None:
    """Keep only the children `index` (rising) of the ModuleList or Sequential at `path`; they are numbered anew. In place."""
    from torch import nn

    index = tuple(index)

    blocks = module.get_submodule(path)
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or not all(0 <= i < len(blocks) for i in index):
        raise StoreError("no such blocks in this model", got=f"{path}: {index}", allowed="indices of a ModuleList or Sequential")
    for i in reversed(range(len(blocks))):
        if i not in index:
            del blocks[i]


def whole_numbers(module: nn.Module) -> dict[str, dict[str, Any]]:
    """For every submodule, its attributes that are whole numbers or tuples of them (in_channels, num_heads, normalized_shape)."""

    def whole(v: Any) -> bool:
        return (isinstance(v, int) and not isinstance(v, bool)) or (
            isinstance(v, (tuple, list)) and len(v) > 0 and all(isinstance(x, int) for x in v)
        )

    return {
        name: {k: list(v) if isinstance(v, (tuple, list)) else v for k, v in vars(m).items() if not k.startswith("_") and whole(v)}
        for name, m in module.named_modules()
    }


EDITS: dict[str, Callable[..., None]] = {"keep_blocks": keep_blocks}  # what changes which submodules there are; all else is a size


def differences(fresh: nn.Module, module: nn.Module, edits: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """{submodule path: {attribute: value}} where `module` differs from `fresh` after `edits`. `fresh` is used up."""
    for change in edits:
        edit(fresh, change)
    before, after = whole_numbers(fresh), whole_numbers(module)
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[:5]
        raise StoreError("the model's structure changed in a way that cannot be saved", got=odd, allowed="resized layers and dropped blocks")
    return {path: changed for path, now in after.items() if (changed := {k: v for k, v in now.items() if before[path].get(k) != v})}


def rebuild(fresh: nn.Module, edits: tuple[dict[str, Any], ...], sizes: dict[str, dict[str, Any]], shapes: dict[str, tuple[int, ...]]) -> nn.Module:
    """Apply saved edits to `fresh` (used up), set sizes, and give tensors their saved shapes (unfilled)."""
    import torch
    from torch import nn

    for change in edits:
        edit(fresh, change)
    for path, changed in sizes.items():
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
