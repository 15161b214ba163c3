"""The gradients of a bi-level problem: min_a L_v(w*(a), a) with w*(a) = argmin_w L_t(w, a). Pure
maths over torch tensors.

Notation: w weights, a architecture parameters (alphas), L_t and L_v losses on the weights' and on
the alphas' data, xi the step of the inner problem, v a unit vector over all alphas, H the Hessian
of L_v in a.

Sources: Liu et al. 2019, DARTS (arXiv:1806.09055), eq. 5-8; Zela et al. 2020, R-DARTS
(arXiv:1909.09656), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError

Loss = Callable[[], Tensor]  # the loss of a fixed batch at the present values of the parameters


def unrolled_gradient(
    train_loss: Loss, valid_loss: Loss, weights: Sequence[Tensor], alphas: Sequence[Tensor], xi: float
) -> tuple[list[Tensor], float]:
    """(gradient of L_v(w - xi grad_w L_t(w, a), a) in each alpha, L_v there). xi = 0:
    the first-order gradient, at w itself (DARTS, section 2.3).

    The weights are moved meanwhile and put back bit for bit.
    InputError if a gradient is not finite."""
    before = [w.detach().clone() for w in weights]
    try:
        if xi > 0:
            _move(weights, _grads(train_loss(), weights), -xi)  # w' (eq. 6)
        loss = valid_loss()
        grads = _grads(loss, [*alphas, *weights])
        out, dw = grads[: len(alphas)], grads[len(alphas) :]
        norm = float(torch.sqrt(sum((g.square().sum() for g in dw), torch.zeros(())).detach()))
        if xi > 0 and norm > 0:
            eps = 0.01 / norm  # eq. 8 and its footnote
            sides = []
            for sign in (1.0, -1.0):
                _put(weights, before)
                _move(weights, dw, sign * eps)  # w+ and w-
                sides.append(_grads(train_loss(), alphas))
            out = [g - xi * (p - m) / (2 * eps) for g, p, m in zip(out, *sides, strict=True)]  # eq. 7
    finally:
        _put(weights, before)
    if not all(bool(torch.isfinite(g).all()) for g in out):
        raise InputError(
            "the architecture's gradient is not finite",
            got=f"loss {float(loss.detach())}",
            fix="lower the learning rates",
        )
    return out, float(loss.detach())


def largest_eigenvalue(
    loss: Tensor, alphas: Sequence[Tensor], seed: int, steps: int = 50, tolerance: float = 1e-3
) -> float:
    """The largest eigenvalue (by value, not modulus) of the Hessian of `loss` in all alphas,
    by power iteration on H v.

    If the eigenvalue of greatest modulus, m, is negative, a second iteration on H - m I
    finds the largest."""
    first = torch.autograd.grad(loss, alphas, create_graph=True, allow_unused=True)
    flat = torch.cat(
        [(torch.zeros_like(a) if g is None else g).reshape(-1) for g, a in zip(first, alphas, strict=True)]
    )
    if not flat.requires_grad:
        return 0.0  # a loss that is linear in the alphas, or knows nothing of them

    def product(v: Tensor) -> Tensor:
        rows = torch.autograd.grad(flat, alphas, v, retain_graph=True, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(a) if r is None else r).reshape(-1) for r, a in zip(rows, alphas, strict=True)]
        )

    def iterate(shift: float) -> float:
        generator = torch.Generator().manual_seed(seed % 2**63)
        v = torch.randn(flat.shape, generator=generator, dtype=flat.dtype).to(flat.device)
        v, value = v / v.norm(), 0.0
        for _ in range(steps):
            hv = product(v) - shift * v
            before, value = value, float(v @ hv)  # the Rayleigh quotient
            length = hv.norm()
            if float(length) == 0.0 or abs(value - before) <= tolerance * abs(value):
                break
            v = hv / length
        return value + shift

    dominant = iterate(0.0)
    return dominant if dominant >= 0 else iterate(dominant)


def _grads(loss: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(of), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, of, strict=True)]


def _move(weights: Sequence[Tensor], along: Sequence[Tensor], step: float) -> None:
    with torch.no_grad():
        for w, d in zip(weights, along, strict=True):
            w.add_(d, alpha=step)


def _put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for w, v in zip(weights, values, strict=True):
            w.copy_(v)
