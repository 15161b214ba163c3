"""OBS: a weight matters as the layer's squared output error grows when it is removed and all
others make up for it.

Hassibi & Stork 1992, "Second order derivatives for network pruning: Optimal Brain Surgeon", eq. 5;
the Hessian of the layer's squared error, damped as in Frantar & Alistarh 2023 (SparseGPT),
arXiv:2301.00774, section 3 and Algorithm 1.
Notation: H mean of x x^T over inputs x [I * k], q index of a weight in its row, G
convolution groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from .base import Criterion, Seen

DAMP = 0.01  # of the mean of H's diagonal: the value of SparseGPT


def damped(hessian: Tensor, damp: float = DAMP) -> Tensor:
    """H + damp * mean(diag H) * I, [n, n]. An input that is always zero gets 1 on the diagonal,
    so that H can be inverted."""
    diagonal = hessian.diagonal()  # [n]
    extra = damp * diagonal.mean() + (diagonal == 0).to(hessian.dtype)
    return hessian + torch.diag(extra)


def factor(hessian: Tensor) -> Tensor:
    """The lower Cholesky factor of a damped Hessian [n, n].
    InputError if it is not positive definite."""
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if bool(failed):
        raise InputError(
            "the layer's Hessian is not positive definite",
            got=f"the leading minor of order {int(failed)} is not positive",
            fix="observe more batches or damp more",
        )
    return torch.as_tensor(lower)


class Obs(Criterion):
    """w_q^2 / [H^-1]_qq. The weights of an input that was always zero score 0: removing them
    changes nothing that was seen."""

    needs = frozenset({"hessian"})

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        hessian = seen.need("hessian")  # [G, I * k, I * k]
        w = seen.weight.detach().float()
        scores = torch.empty_like(w).reshape(len(hessian), -1, hessian.shape[-1])  # [G, O / G, I * k]
        for g, (rows, h) in enumerate(zip(w.reshape(scores.shape), hessian, strict=True)):
            inverse = torch.cholesky_inverse(factor(damped(h))).diagonal()  # [I * k]
            scores[g] = rows**2 / inverse * (h.diagonal() != 0)  # eq. 5 without its factor 1/2
        return scores.reshape(w.shape)
