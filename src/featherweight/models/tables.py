"""Embedding tables that have lost rows: which row an id reads now is a small table of whole numbers
in front of them. The rest of the model goes on seeing the ids themselves.

Notation: V ids, R rows that are left, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHUNK = 1024  # rows that are compared with all others at a time
ROWS = "featherweight_rows"  # the buffer [V]: the row of each id
_SMALL = 2**15


def trim(layer: nn.Embedding, rows: int) -> None:
    """Give an embedding so many rows, not filled, and a table in front of it, not filled; of one
    that has a table already the table stays as wide as it is. In place."""
    weight = layer.weight
    kind = torch.int16 if rows <= _SMALL else torch.int32
    before = rows_of(layer)
    table = torch.zeros(layer.num_embeddings if before is None else len(before), dtype=kind, device=weight.device)
    if before is None:
        layer.register_forward_pre_hook(_looked_up, with_kwargs=True)
    layer.register_buffer(ROWS, table)
    new = torch.empty(rows, layer.embedding_dim, dtype=weight.dtype, device=weight.device)
    layer.weight = nn.Parameter(new, requires_grad=weight.requires_grad)
    layer.num_embeddings = rows
    if layer.padding_idx is not None:
        layer.padding_idx = 0  # until the table is filled


def rows_of(layer: nn.Module) -> Tensor | None:
    """[V] the row of each id; None of a table that has all of its rows."""
    return layer._buffers.get(ROWS)


def row_bytes(ids: int, rows: int) -> int:
    """What the table in front takes, in bytes."""
    return ids * (2 if rows <= _SMALL else 4)


def trimmed(weight: Tensor, kept: Tensor, unknown: str) -> tuple[Tensor, Tensor]:
    """(rows [R, D], table [V] int64: the row of each id) of a table `weight` [V, D] of which the
    rows `kept` [V] (bool, at least one) stay, in their order.

    unknown: what the others read: the row of those that stay whose cosine with theirs is largest
    ("nearest"), or one more row, the mean of those that went ("mean")."""
    gone = (~kept).nonzero()[:, 0]
    rows, table = weight[kept], kept.cumsum(0) - 1
    if not len(gone):
        return rows, table
    if unknown == "mean":
        table[gone] = len(rows)
        return torch.cat([rows, weight[gone].mean(0, keepdim=True)]), table
    unit = F.normalize(rows, dim=1)
    parts = [(F.normalize(weight[part], dim=1) @ unit.t()).argmax(1) for part in torch.split(gone, _CHUNK)]
    table[gone] = torch.cat(parts)
    return rows, table


def _looked_up(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ids = args[0] if args else kwargs["input"]
    return (getattr(layer, ROWS)[ids].to(ids.dtype),), {}
