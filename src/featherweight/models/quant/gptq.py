"""GPTQ: round a layer's weights one column at a time; what is left of the row makes
up for each error.

Frantar et al. 2022, arXiv:2210.17323, Algorithm 1. Notation: W [O, n] weights, H [n, n] = E[x x^T]
of the layer's inputs (the paper's 2 X X^T: a factor changes nothing), U = Cholesky(H^-1)^T upper
triangular, Q [O, n] the rounded weights, E [O, B] the scaled errors of a block of B columns, g the
weights of a row that share a scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import InputError
from .grid import Grid, fit

Find = Callable[[Tensor, Grid], tuple[Tensor, Tensor]]  # (w, grid) -> (s, z), as `grid.fit`


def gptq(
    w: Tensor,  # [O, n]
    hessian: Tensor,  # [n, n]
    grid: Grid,
    *,
    scales: tuple[Tensor, Tensor] | None = None,
    find: Find = fit,
    zeros: Tensor | None = None,  # [O, n] bool
    block: int = 128,
    damp: float = 0.01,
    order: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, s, z): the weights on their grid, float32, and the grid in the shapes of `grid`.

    scales: the grid, if it is fixed already; otherwise `find` makes it from the weights:
    per tensor and channel from the given ones; per group when its first column is reached,
    from the updated ones (with `order`: from the given ones, because groups are then not
    rounded in one piece). zeros: weights that stay zero; what the others had added to them is
    spread on, like a rounding error. block: columns whose later updates are done together (the
    result does not depend on it, but for rounding errors). damp: share of the mean of H's
    diagonal added to it (section 3.3, step 3). order: columns with the largest inputs first.
    InputError if H is not finite.
    """
    w = w.detach().float().clone()
    n = w.shape[1]
    late = grid.granularity == "group" and scales is None and not order
    s, z = scales if scales is not None else (fit if late else find)(w, grid)
    turn = hessian.diagonal().argsort(descending=True, stable=True) if order else torch.arange(n, device=w.device)
    U = inverse_root(hessian[turn][:, turn], damp)
    w, at = w[:, turn], turn.tolist()
    free = None if zeros is None else ~zeros[:, turn]
    q = torch.zeros_like(w)
    size = grid.group if late else block
    for start in range(0, n, size):
        stop = min(start + size, n)
        if late:
            g = start // grid.group
            by_row = replace(grid, granularity="channel", group=0)
            s[:, g], z[:, g] = (t.reshape(-1) for t in find(w[:, start:stop], by_row))
        errors = torch.zeros_like(w[:, start:stop])
        for j in range(start, stop):
            q[:, j] = _round(w[:, j], s, z, at[j], grid)
            if free is not None:
                q[:, j] *= free[:, j]
            errors[:, j - start] = (w[:, j] - q[:, j]) / U[j, j]
            w[:, j:stop] -= errors[:, j - start : j - start + 1] * U[j, j:stop]
        w[:, stop:] -= errors @ U[start:stop, stop:]
    return q[:, turn.argsort()], s, z


def inverse_root(hessian: Tensor, damp: float) -> Tensor:
    """U [n, n], upper triangular with U^T U = (H + damp mean(diag H) I)^-1; float32, computed in
    float64. Inputs that are always zero have no part in it but their own place."""
    if not bool(torch.isfinite(hessian).all()):
        raise InputError(
            "the inputs of a layer are not finite, so its weights cannot be rounded with GPTQ",
            fix="use rounding='nearest'",
        )
    H = hessian.double()
    mean = float(H.diagonal().mean())
    H = H + torch.eye(len(H), dtype=H.dtype, device=H.device) * (damp * mean if mean > 0 else 1.0)
    root: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    return root.float()


def _round(column: Tensor, s: Tensor, z: Tensor, j: int, grid: Grid) -> Tensor:
    """Column j [O] of the weight on its grid."""
    if grid.granularity == "group":
        s, z = s[:, j // grid.group], z[:, j // grid.group]
    return ((column / s + z).round().clamp(grid.low, grid.high) - z) * s
