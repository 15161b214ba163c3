"""Edits of a module's architecture, and their description as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..errors import StoreError
from .activations import replace_activation
from .attention import put_apart
from .entry import HOW, Cut, Pooled, Resampled, attach
from .tables import trim
from .tokens import merge, settle

_LONGEST = 2**13  # side of an image that is resized: two matrices of this side are held for it


def edit(module: nn.Module, change: dict[str, Any]) -> None:
    """Apply one structural edit, as data: {"edit": its name in `EDITS`, its arguments}. In place.
    StoreError if there is no such edit."""
    name = change.get("edit")
    if name not in EDITS:
        raise StoreError("no such edit of a model's structure", got=str(name), allowed=", ".join(sorted(EDITS)))
    EDITS[name](module, **{k: v for k, v in change.items() if k != "edit"})


def keep_blocks(module: nn.Module, path: str, index: Iterable[int]) -> None:
    """Keep only the children `index` (rising) of the ModuleList or Sequential at `path`; they are
    numbered anew. In place."""
    index = tuple(index)

    blocks = module.get_submodule(path)
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or not all(0 <= i < len(blocks) for i in index):
        raise StoreError(
            "no such blocks in this model", got=f"{path}: {index}", allowed="indices of a ModuleList or Sequential"
        )
    gone = tuple(i for i in range(len(blocks)) if i not in index)
    settle(blocks, gone)
    for i in reversed(gone):
        del blocks[i]


def factorize(module: nn.Module, path: str, form: str, ranks: Iterable[int]) -> None:
    """Put, in place of the layer at `path`, the Sequential of layers that `form` and `ranks` make
    of it, with weights not set. In place."""
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, factorized(module.get_submodule(path), form, ranks))


def factorized(layer: Any, form: str, ranks: Iterable[int]) -> nn.Sequential:
    """The layers, in their order, that have a layer's inputs and outputs at lower rank; weights not
    set, in the layer's type and place.

    linear, ranks [r]: Linear(I, r), Linear(r, O). pointwise [r]: a convolution with one tap, the
    first of the two with its stride and padding. tucker2 [r_in, r_out]: 1x1 to r_in, the layer's
    own kernel from r_in to r_out, 1x1 to O. Only the last has a bias, if the layer has. StoreError
    if the layer is of another kind or the ranks do not fit.
    """
    ranks, cls = tuple(ranks), type(layer)
    linear, conv = cls is nn.Linear, cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and layer.groups == 1
    n_in, n_out = (
        (layer.in_features, layer.out_features)
        if linear
        else (layer.in_channels, layer.out_channels)
        if conv
        else (0, 0)
    )
    fits = len(ranks) == (2 if form == "tucker2" else 1) and all(
        isinstance(r, int) and 1 <= r <= max(n_in, n_out) for r in ranks
    )
    if not fits or not (linear if form == "linear" else conv and form in ("pointwise", "tucker2")):
        raise StoreError(
            "this layer cannot be factorized so",
            got=f"{layer}: {form} {ranks}",
            allowed="linear, pointwise or tucker2, and its ranks",
        )
    like: dict[str, Any] = {"device": "meta", "dtype": layer.weight.dtype}
    last = {"bias": layer.bias is not None, **like}
    parts: list[nn.Module]
    if form == "linear":
        parts = [nn.Linear(n_in, ranks[0], bias=False, **like), nn.Linear(ranks[0], n_out, **last)]
    else:
        moves: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "padding_mode": layer.padding_mode}
        if form == "pointwise":
            parts = [cls(n_in, ranks[0], 1, bias=False, **moves, **like), cls(ranks[0], n_out, 1, **last)]
        else:
            middle = cls(*ranks, layer.kernel_size, dilation=layer.dilation, bias=False, **moves, **like)
            parts = [cls(n_in, ranks[0], 1, bias=False, **like), middle, cls(ranks[1], n_out, 1, **last)]
    made = nn.Sequential(*parts).to_empty(device=layer.weight.device).train(layer.training)
    return made.requires_grad_(layer.weight.requires_grad)  # a frozen layer's stay frozen


def whole_numbers(module: nn.Module) -> dict[str, dict[str, Any]]:
    """For every submodule, its attributes that are whole numbers or tuples of them (in_channels,
    num_heads, normalized_shape)."""

    def whole(v: Any) -> bool:
        return (isinstance(v, int) and not isinstance(v, bool)) or (
            isinstance(v, (tuple, list)) and len(v) > 0 and all(isinstance(x, int) for x in v)
        )

    return {
        name: {
            k: list(v) if isinstance(v, (tuple, list)) else v
            for k, v in vars(m).items()
            if not k.startswith("_") and whole(v)
        }
        for name, m in module.named_modules()
    }


# What changes which submodules there are; all else is a size.
def names_of(module: nn.Module, parameters: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """What those parameters that the module still has are called now:
    blocks are numbered anew when one is dropped."""
    names = {id(p): name for name, p in module.named_parameters()}
    return tuple(names[id(p)] for p in parameters if id(p) in names)


def resize_input(module: nn.Module, input: int, name: str, of: Iterable[int], to: Iterable[int], how: str) -> None:
    """The model makes the images of an input, [.., H, W] = `of`, as small as `to`, before anything
    else: by pooling where that is the same. In place."""
    (height, width), (h, w) = of, to
    if how not in HOW or not (0 < h <= height <= _LONGEST and 0 < w <= width <= _LONGEST):
        raise StoreError(
            "images cannot be resized so",
            got=f"{height} x {width} to {h} x {w}, {how}",
            allowed=f"a smaller size, of sides of up to {_LONGEST}; {' or '.join(HOW)}",
        )
    stride = height // h
    if how == "area" and (h * stride, w * stride) == (height, width):
        attach(module, Pooled(input, name, (-2, -1), stride))
    else:
        attach(module, Resampled(input, name, (height, width), (h, w), how))


def cut_input(module: nn.Module, input: int, name: str, axis: int, length: int) -> None:
    """The model reads only the first `length` of an input along `axis`. In place."""
    attach(module, Cut(input, name, axis, length))


def pool_input(module: nn.Module, input: int, name: str, axis: int, stride: int) -> None:
    """The model reads the means of each `stride` values of a series along `axis`. In place."""
    attach(module, Pooled(input, name, (axis,), stride))


def trim_table(module: nn.Module, path: str, rows: int) -> None:
    """Leave the embedding at `path` so many rows, not set, and a table of which id reads which. In
    place."""
    layer = module.get_submodule(path)
    if not isinstance(layer, nn.Embedding) or not 0 < rows <= layer.num_embeddings + 1:
        raise StoreError(
            "no such embedding in this model",
            got=f"{path}: {rows} rows",
            allowed="an nn.Embedding, and no more rows than it has, and one",
        )
    trim(layer, rows)


def merge_tokens(module: nn.Module, path: str, block: int, merged: int) -> None:
    """`merged` tokens become one with their likes before block number `block` of the row at `path`,
    and are given back behind its last one. In place."""
    if not isinstance(merged, int) or merged < 1:
        raise StoreError("so many tokens cannot be merged", got=str(merged), allowed="a whole number, 1 at least")
    merge(module, path, block, merged)


def fold_norm(module: nn.Module, layer: str, norm: str) -> None:
    """Nothing in the place of the batch norm at `norm`, and a bias, not set, for the layer before
    it if it has none. In place."""
    before: Any = module.get_submodule(layer)
    if not isinstance(getattr(before, "weight", None), nn.Parameter) or not hasattr(before, "bias"):
        raise StoreError("no layer that a norm can be folded into", got=f"{layer}: {type(before).__name__}")
    if before.bias is None:
        width = before.weight.shape[0]
        before.bias = nn.Parameter(
            torch.zeros(width, dtype=before.weight.dtype, device=before.weight.device),
            requires_grad=before.weight.requires_grad,
        )
    parent, _, leaf = norm.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())


EDITS: dict[str, Callable[..., None]] = {
    "keep_blocks": keep_blocks,
    "factorize": factorize,
    "resize_input": resize_input,
    "cut_input": cut_input,
    "pool_input": pool_input,
    "trim_table": trim_table,
    "merge_tokens": merge_tokens,
    "fold_norm": fold_norm,
    "replace_activation": replace_activation,
    "put_apart": put_apart,
}


def differences(fresh: nn.Module, module: nn.Module, edits: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """{submodule path: {attribute: value}} where `module` differs from `fresh` after `edits`.
    `fresh` is used up."""
    for change in edits:
        edit(fresh, change)
    before, after = whole_numbers(fresh), whole_numbers(module)
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[:5]
        raise StoreError(
            "the model's structure changed in a way that cannot be saved", got=odd, allowed="new sizes and the edits"
        )
    return {
        path: changed
        for path, now in after.items()
        if (changed := {k: v for k, v in now.items() if before[path].get(k) != v})
    }


def rebuild(
    fresh: nn.Module,
    edits: tuple[dict[str, Any], ...],
    sizes: dict[str, dict[str, Any]],
    shapes: dict[str, tuple[int, ...]],
    cut: dict[str, list[int]] | None = None,
) -> nn.Module:
    """Apply saved edits to `fresh` (used up), set sizes, and give tensors their saved
    shapes (unfilled).

    cut: the tensors that are not as large as the unedited model's, with the sizes that those had
    (None: not known, of what was saved before). StoreError if `fresh` has others: it is another
    architecture's."""
    for change in edits:
        edit(fresh, change)
    for path, changed in sizes.items():
        m = fresh.get_submodule(path)
        for name, value in changed.items():
            setattr(m, name, tuple(value) if isinstance(value, list) else value)
    _same_architecture(fresh, shapes, cut)
    for name, shape in shapes.items():
        parent, _, leaf = name.rpartition(".")
        m = fresh.get_submodule(parent)
        old = getattr(m, leaf)
        if tuple(old.shape) != shape:
            new = torch.empty(shape, dtype=old.dtype)
            parameter = isinstance(old, nn.Parameter)
            setattr(m, leaf, nn.Parameter(new, requires_grad=old.requires_grad) if parameter else new)
    return fresh


def resized(fresh: nn.Module, module: nn.Module) -> dict[str, list[int]]:
    """{tensor: its sizes in `fresh`} of those that have others in `module`."""
    now = module.state_dict()
    return {n: list(v.shape) for n, v in fresh.state_dict().items() if n in now and v.shape != now[n].shape}


def _same_architecture(fresh: nn.Module, shapes: dict[str, tuple[int, ...]], cut: dict[str, list[int]] | None) -> None:
    """StoreError if tensors of `fresh`, whose sizes are set, are others than the saved ones were
    before they were cut; where that is not known, if a layer's are not as its fields say."""
    odd = []
    state = fresh.state_dict()
    for name, shape in shapes.items():
        if name not in state:
            continue  # it is missed where the weights are read
        path, _, leaf = name.rpartition(".")
        mine = tuple(state[name].shape)
        wanted = (
            tuple(cut.get(name, shape)) if cut is not None else _by_fields(fresh.get_submodule(path), leaf) or shape
        )
        if cut is not None and mine != wanted:
            odd.append(f"{name}: {list(wanted)}, and {list(mine)} in what was given")
        elif cut is None and wanted != shape:
            odd.append(f"{name}: {list(shape)}, and {list(wanted)} in what was given")
    if odd:
        raise StoreError(
            "these weights are of another architecture",
            got="; ".join(odd[:5]) + (f"; and {len(odd) - 5} more" if len(odd) > 5 else ""),
            fix="give what made the model that was optimized, with the same sizes",
        )


def _by_fields(m: nn.Module, leaf: str) -> tuple[int, ...] | None:
    """The sizes that a layer's tensor has to have by its fields; None where they do not say."""
    if isinstance(m, nn.Linear):
        return {"weight": (m.out_features, m.in_features), "bias": (m.out_features,)}.get(leaf)
    if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        kernel = (m.out_channels, m.in_channels // m.groups, *m.kernel_size)
        return {"weight": kernel, "bias": (m.out_channels,)}.get(leaf)
    if isinstance(m, nn.Embedding):
        return {"weight": (m.num_embeddings, m.embedding_dim)}.get(leaf)
    if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and leaf != "num_batches_tracked":
        return (m.num_features,)
    return None
