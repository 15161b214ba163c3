"""Attention heads as groups of coupled channels.

Notation: H query heads of d channels, K key-value heads, r = H / K query heads share one
(Ainslie et al. 2023, "GQA", arXiv:2305.13245). A unit is one key-value head with the r query heads
that read it: rows of the query, key and value projections, columns of the output's
(Michel et al. 2019, arXiv:1905.10650, cut heads so with r = 1).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from .cutting import can_narrow
from .groups import Group, Member, owners
from .hooks import watched

ROLES = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
COUNTS = (
    "num_attention_heads",
    "num_heads",
    "n_heads",
    "n_head",
    "heads",
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
)
HEAD_SIZES = ("head_dim", "attention_head_size", "dim_head", "head_size", "d_head", "key_value_proj_dim")
_OTHER = "it has other weights for each head or channel"
WIDTHS = ("all_head_size", "inner_dim")  # H d where a module keeps it


def find_heads(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Group], dict[str, str]]:
    """The groups of attention heads, and {path: reason} for attention that is left whole.
    One forward pass on `inputs`."""
    found: dict[str, Group] = {}
    whole: dict[str, str] = {}
    for path, m in module.named_modules():  # what is left whole, and what may be cut
        if isinstance(m, nn.MultiheadAttention):
            whole[path] = "its query, key and value projections are packed in one parameter"
            continue
        roles = _roles(m)
        if roles is None:
            if _number(m, COUNTS) is not None and any(isinstance(c, nn.Linear) for c in m.children()):
                whole[path] = "its query, key and value projections are not three Linear layers"
            continue
        got = _projections(path, m, roles)
        if isinstance(got, str):
            whole[path] = got
        else:
            found[path] = got
    barred = {type(module.get_submodule(p)): p for p, reason in whole.items() if reason.startswith(_OTHER)}
    # such weights may be passed on from layer to layer
    for path in [p for p in found if type(module.get_submodule(p)) in barred]:
        whole[path] = f"{barred[type(module.get_submodule(path))]}, of the same class, is left whole"
        del found[path]
    groups = []
    readers = _readers(module, inputs, found)
    for path, group in found.items():
        reader = readers.get(path)
        reason = (
            "its output projection was not found"
            if reader is None
            else _shared(module, [m.path for m in group.members] + [reader])
        )
        if reader is None or reason is not None:
            whole[path] = str(reason)
        else:
            groups.append(_with_reader(group, reader))
    return groups, whole


def packs_heads(m: nn.Module) -> bool:
    """Does the module say that it has heads, without three Linear layers that make their queries,
    keys and values?"""
    return _roles(m) is None and _number(m, COUNTS) is not None


def projections(module: nn.Module) -> list[nn.Module]:
    """What makes the queries, keys and values of all attention whose projections
    are Linear layers."""
    return [m.get_submodule(_maker(m, name)) for m in module.modules() for name in _roles(m) or ()]


def _roles(m: nn.Module) -> tuple[str, str, str] | None:
    return next((r for r in ROLES if all(_maker(m, n) for n in r)), None)


def _maker(m: nn.Module, name: str) -> str:
    """The path, within `m`, of the Linear layer that makes the output of its child `name`: itself,
    or the last of a factorized one; "" if none."""
    child = getattr(m, name, None)
    if isinstance(child, nn.Linear):
        return name
    if isinstance(child, nn.Sequential) and len(child) and all(isinstance(c, nn.Linear) for c in child):
        return f"{name}.{len(child) - 1}"
    return ""


def _number(m: nn.Module, names: tuple[str, ...]) -> int | None:
    values = (getattr(m, n, None) for n in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def _projections(path: str, m: nn.Module, roles: tuple[str, str, str]) -> Group | str:
    """The group of an attention module's heads, still without its output projection;
    or why there is none."""
    makers = tuple(_maker(m, name) for name in roles)
    q, k, v = (cast("nn.Linear", m.get_submodule(name)) for name in makers)
    n, width = _number(m, COUNTS), q.out_features
    d = _number(m, HEAD_SIZES) or (width // n if n and width % n == 0 else None)
    if d is None or width % d or k.out_features % d or k.out_features != v.out_features:
        return (
            "its number of heads was not found" if d is None else "its projections are no whole number of equal heads"
        )
    heads, shared = width // d, k.out_features // d
    if heads % shared:
        return "its query heads are not spread evenly over its key-value heads"
    odd = _odd(m, makers, heads, width)
    if odd:
        return f"{_OTHER}: {odd}"
    if shared == 1:
        return "it has one head, or one key-value head that all read"
    r = heads // shared
    units = tuple(tuple(range(j * r * d, (j + 1) * r * d)) for j in range(shared))
    rows = tuple(range(width))
    narrow = tuple(range(shared * d))
    # a key row stands for its channel in the unit's first query head
    channel = tuple((p // d) * r * d + p % d for p in narrow)
    members = tuple(
        Member(f"{path}.{name}" if path else name, 0, at, c)
        for name, at, c in zip(makers, (rows, narrow, narrow), (rows, channel, channel), strict=True)
    )
    counts = tuple(
        (a, x)
        for a in COUNTS + WIDTHS
        if isinstance(x := vars(m).get(a), int) and not isinstance(x, bool) and x in (heads, shared, width)
    )
    return Group(path, "head", width, units, members, counts)


def _odd(m: nn.Module, makers: tuple[str, ...], heads: int, width: int) -> str | None:
    """A tensor of an attention module, beside its projections, that has a place for each head or
    for each channel of queries or keys."""
    for name, p in (*m.named_parameters(), *m.named_buffers()):
        path, _, _ = name.rpartition(".")
        layer = m.get_submodule(path)
        if path in makers or (isinstance(layer, nn.Linear) and layer.out_features != heads):
            continue  # the output projection and its like: their outputs are the residual stream's
        # q_norm over the whole width
        if heads in p.shape or (p.ndim == 1 and width in p.shape and (not path or path[0] in "qk")):
            return name
    return None


def _readers(module: nn.Module, inputs: tuple[Tensor, ...], found: dict[str, Group]) -> dict[str, str]:
    """{attention path: path of its output projection}, found by what flows: of every value
    projection only the last head is let through, and the next Linear layer whose input is zero in
    exactly all other heads reads them."""
    waiting: list[tuple[str, Group]] = []
    readers: dict[str, str] = {}

    def close(path: str, group: Group, _: nn.Module, args: Any, out: Tensor) -> Tensor:
        waiting.append((path, group))
        size = out.shape[-1] // len(group.units)
        kept = torch.zeros_like(out)
        kept[..., -size:] = out[..., -size:]
        return kept

    def look(name: str, _: nn.Module, args: Any) -> None:
        for path, group in reversed(waiting):  # the last that was closed is read first
            x = args[0] if args else None
            if not isinstance(x, torch.Tensor) or x.shape[-1] != group.channels or path in readers:
                continue
            if bool((x[..., : -group.size] == 0).all()) and bool((x[..., -group.size :] != 0).any()):
                readers[path] = name
                waiting.remove((path, group))
                return

    after = {group.members[2].path: partial(close, path, group) for path, group in found.items()}
    before = {name: partial(look, name) for name, m in module.named_modules() if isinstance(m, nn.Linear)}
    with torch.no_grad(), watched(module, after, before=before):
        module(*inputs)
    return readers


def _with_reader(group: Group, reader: str) -> Group:
    every = tuple(range(group.channels))
    return replace(group, members=(*group.members, Member(reader, 1, every, every)))


def _shared(module: nn.Module, paths: list[str]) -> str | None:
    """Why these layers cannot be cut: their weights belong to others too,
    or are not plain parameters."""
    held = owners(module)
    for path in paths:
        layer = module.get_submodule(path)
        others = sorted({o for p in layer.parameters(recurse=False) for o in held[id(p)]} - {path})
        if others:
            return f"it shares its weights with {others[0]}"
        if (reason := can_narrow(layer)) is not None:
            return reason
    return None
