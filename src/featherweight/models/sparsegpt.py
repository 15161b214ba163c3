"""SparseGPT: prune a layer column by column, each time letting the columns to the right make up for
what was removed.

Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
arXiv:2301.00774, Algorithm 1.
Notation: w [O, n] weight rows, H [n, n] mean of x x^T over the layer's inputs x, C the upper
Cholesky factor of H^-1 (H^-1 = C^T C), E the errors of a block, B the block size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .criteria.obs import DAMP, damped, factor


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """True where a weight goes: all but the `n` highest scores of each run of `m` columns. scores
    [O, c]; the last run may be shorter."""
    rows, columns = scores.shape
    short = -columns % m
    runs = F.pad(scores, (0, short), value=-float("inf")).reshape(rows, -1, m)
    order = runs.argsort(dim=2, descending=True, stable=True)
    gone = torch.ones_like(runs, dtype=torch.bool).scatter_(2, order[..., :n], False)
    return gone.reshape(rows, -1)[:, :columns]


def sparsegpt(
    w: Tensor,
    hessian: Tensor,
    *,
    ratio: float = 0.0,
    pattern: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    run: int = 0,
    block: int = 128,
    damp: float = DAMP,
) -> Tensor:
    """w' [O, n], float32 or wider: `w` pruned, and updated so that the layer's
    outputs change little.

    What goes: the `ratio` of each block's weights that matter least to OBS; or all but n of m
    consecutive columns (pattern (n, m); runs begin anew every `run` columns, 0: never); or what
    `mask` [O, n] says. Weights that are zero stay zero and count towards the ratio.
    hessian: not damped yet, of any scale; block: columns between two updates of all that is to the
    right, 1 or more. Unlike in the authors' code, an input that was always zero loses its weights
    first, but no more of them than the ratio or pattern asks for. InputError if the damped Hessian
    is not positive definite, or block is not positive.
    """
    if block < 1:
        raise InputError("the block of SparseGPT is out of range", got=block, allowed="1 or more columns")
    w = w.detach().to(torch.promote_types(w.dtype, torch.float32), copy=True)
    rows, n = w.shape
    if n == 0:
        return w
    h = hessian.to(w.dtype)
    # M of Algorithm 1, inverted; grows block by block
    gone = (w == 0) if mask is None else (w == 0) | mask
    live = (h.diagonal() != 0).to(w.dtype)  # [n]
    # C: its row j is all that column j needs
    inverse = factor(torch.cholesky_inverse(factor(damped(h, damp)))).T
    starts = [
        at
        for begin in range(0, n, run or n)
        for at in range(begin, min(begin + (run or n), n), pattern[1] if pattern else 1)
    ]
    for begin, end in _blocks(starts, n, block):
        part, fixed, c = w[:, begin:end], gone[:, begin:end], inverse[begin:end, begin:end]  # views: changed in place
        if pattern is None and mask is None:
            # so that the blocks add up to the ratio of all
            count = round(ratio * rows * end) - round(ratio * rows * begin)
            fixed |= _choose(part, fixed, c.diagonal(), live[begin:end], count)
        errors = _columns(part, fixed, c, live[begin:end], [s - begin for s in starts if begin <= s < end], pattern)
        w[:, end:] -= errors @ inverse[begin:end, end:]
    return w.masked_fill_(gone, 0.0)


def _columns(
    w: Tensor, gone: Tensor, c: Tensor, live: Tensor, starts: list[int], pattern: tuple[int, int] | None
) -> Tensor:
    """Algorithm 1's inner loop over the columns of one block; w and gone change in place.
    The errors E [O, B]."""
    columns = w.shape[1]
    ends = dict(zip(starts, [*starts[1:], columns], strict=True))
    errors = torch.zeros_like(w)
    for j in range(columns):
        # a run's mask is chosen when its first column is reached, with all updates so far
        if pattern and j in ends:
            e = ends[j]
            score = (w[:, j:e] / c.diagonal()[j:e]) ** 2 * live[j:e]
            gone[:, j:e] |= nm_mask(score.masked_fill(gone[:, j:e], -1.0), *pattern)
        errors[:, j] = torch.where(gone[:, j], w[:, j] / c[j, j], 0.0)
        w[:, j:] -= errors[:, j, None] * c[j, j:]  # column j becomes 0 where it is pruned
    return errors


def _blocks(starts: list[int], n: int, block: int) -> list[tuple[int, int]]:
    """Cut 0..n into blocks of at most `block` columns that begin at one of `starts` (more where a
    single run is longer)."""
    cuts = [0]
    for a, b in zip(starts, [*starts[1:], n], strict=True):
        if b - cuts[-1] > block and a > cuts[-1]:
            cuts.append(a)
    return list(zip(cuts, [*cuts[1:], n], strict=True)) if n else []


def _choose(w: Tensor, gone: Tensor, c: Tensor, live: Tensor, count: int) -> Tensor:
    """The `count` weights of a block that matter least: w^2 / C_jj^2 = w^2 / [H^-1]_jj of what is
    left (Algorithm 1, line 7)."""
    score = ((w / c) ** 2 * live).masked_fill(gone, -1.0).flatten()
    order = score.argsort(stable=True)[:count]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(0, order, True).reshape(w.shape)
