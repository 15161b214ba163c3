"""Low-rank factors of a layer's weight. Pure tensor maths, in float64 inside.

Notation
    W [O, I]           weight of a linear layer or of a convolution with one tap
    T [O, I, K]        weight of a convolution with K taps (kh * kw, flattened)
    X [I, N]           the layer's inputs; G = X X^T [I, I]; S [I, I] lower triangular, S S^T = G
                       (the identity: plain, not activation-aware)
    s [min(O, I)]      singular values, falling; energy: the sum of their squares
    r                  rank; A [O, r], B [r, I]: W' = A B
    r_in, r_out        Tucker-2 ranks: T'[o, i, k] = sum_pq U_out[o, p] C[p, q, k] U_in[i, q]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

# of the mean diagonal of G: keeps S invertible where inputs are dead or fewer than I
DAMPING = 1e-6
# of HOOI; the error of the truncated HOSVD that they start from is already within
# sqrt(2) of the best
SWEEPS = 5


class LowRank(ABC):
    """Abstract: the decomposition of one weight, ready to be cut at any ranks."""

    @property
    @abstractmethod
    def full(self) -> tuple[int, ...]:
        """The largest ranks; there the factors give the weight itself."""

    @abstractmethod
    def ranks_keeping(self, energy: float) -> tuple[int, ...]:
        """The smallest ranks that are sure to keep this share (0 to 1) of the energy."""

    @abstractmethod
    def ranks_saving(self, ratio: float) -> tuple[float, ...]:
        """The ranks, as real numbers, at which the factors have (1 - ratio) times the
        parameters of the weight."""

    @abstractmethod
    def sizes(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Parameters of each factor, in the order in which they are applied."""

    @abstractmethod
    def kept(self, ranks: tuple[int, ...]) -> float:
        """The share of the energy (of W S) that the factors keep: 1 - ||(W - W') S||^2 / ||W S||^2;
        1 for a weight of zeros."""

    @abstractmethod
    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The factors in the order in which they are applied: B, A; or U_in^T [r_in, I], C
        [r_out, r_in, K], U_out [O, r_out]."""


@dataclass(frozen=True)
class Matrix(LowRank):
    """The SVD of W S: u [O, m], s [m], vh [m, I]; root: S, or None for the
    identity. ranks: (r,)."""

    u: Tensor
    s: Tensor
    vh: Tensor
    root: Tensor | None

    @property
    def full(self) -> tuple[int, ...]:
        return (len(self.s),)

    def ranks_keeping(self, energy: float) -> tuple[int, ...]:
        return (rank_keeping(self.s.square(), energy),)

    def ranks_saving(self, ratio: float) -> tuple[float, ...]:
        o, i = self.u.shape[0], self.vh.shape[1]
        return ((1 - ratio) * o * i / (o + i),)

    def sizes(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        return ranks[0] * self.vh.shape[1], ranks[0] * self.u.shape[0]

    def kept(self, ranks: tuple[int, ...]) -> float:
        energy = self.s.square()
        return _share(energy[: ranks[0]].sum(), energy.sum())

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """A = U_r s_r^1/2, B = s_r^1/2 V_r^T S^-1 (SVD-LLM, Wang et al. 2024, arXiv:2403.07378,
        section 3.1): by Eckart-Young and ||(W - W') X||_F = ||(W - W') S||_F, no W' of rank r has a
        smaller error on the outputs."""
        half = self.s[: ranks[0]].sqrt()
        b = half[:, None] * self.vh[: ranks[0]]  # [r, I]
        if self.root is not None:
            b = torch.linalg.solve_triangular(self.root, b, upper=False, left=False)  # b S^-1
        return b, self.u[:, : ranks[0]] * half


@dataclass(frozen=True)
class Tucker(LowRank):
    """The weight t [O, I, K] of a convolution (T S: S applied to its inputs) and its two mode Gram
    spectra. ranks: (r_in, r_out)."""

    t: Tensor
    energy_in: Tensor  # [I] falling: squared singular values of the unfolding along the inputs
    energy_out: Tensor  # [O]
    root: Tensor | None

    @property
    def full(self) -> tuple[int, ...]:
        return self.t.shape[1], self.t.shape[0]

    def ranks_keeping(self, energy: float) -> tuple[int, ...]:
        """Each mode may lose half: the error^2 is at most the sum of what the modes drop (De
        Lathauwer et al. 2000, "A multilinear singular value decomposition", SIAM J. Matrix Anal.
        Appl. 21, property 10), and HOOI only lowers it."""
        each = 1 - (1 - energy) / 2
        return rank_keeping(self.energy_in, each), rank_keeping(self.energy_out, each)

    def ranks_saving(self, ratio: float) -> tuple[float, ...]:
        """r_in = p I, r_out = p O, where I^2 p + O I K p^2 + O^2 p = (1 - ratio) O I K."""
        o, i, k = self.t.shape
        b, a = i * i + o * o, o * i * k
        p = (math.sqrt(b * b + 4 * a * a * (1 - ratio)) - b) / (2 * a)
        return p * i, p * o

    def sizes(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        (o, i, k), (r_in, r_out) = self.t.shape, ranks
        return i * r_in, r_in * r_out * k, r_out * o

    def kept(self, ranks: tuple[int, ...]) -> float:
        core = tucker2(self.t, *ranks)[1]
        # orthonormal factors: ||T'|| = ||C||
        return _share(core.square().sum(), self.t.square().sum())

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
        u_in, core, u_out = tucker2(self.t, *ranks)
        first = u_in.T
        if self.root is not None:
            first = torch.linalg.solve_triangular(self.root, first, upper=False, left=False)
        return first, core, u_out


def decompose(weight: Tensor, root: Tensor | None = None) -> LowRank:
    """The decomposition of a weight [O, I, *taps]: SVD where there is one tap,
    Tucker-2 where there are more.

    root: S [I, I] (`whitening`) for the activation-aware form. Of a convolution with several taps
    each tap is weighed alone: what is minimised is sum_k ||(T_k - T'_k) X||_F^2, which takes the
    channels' correlations into account but not those between pixels. InputError if a number in the
    weight is not finite.
    """
    w = weight.detach().double().flatten(2) if weight.ndim > 2 else weight.detach().double()[:, :, None]  # [O, I, K]
    if not bool(torch.isfinite(w).all()):
        raise InputError(
            "a weight that is to be factorized is not finite", got="NaN or infinity", fix="did the training diverge?"
        )
    if root is not None:
        w = torch.einsum("oik,ij->ojk", w, root)
    if w.shape[2] == 1:
        u, s, vh = torch.linalg.svd(w[:, :, 0], full_matrices=False)
        return Matrix(u, s, vh, root)
    inner, outer = torch.einsum("oik,ojk->ij", w, w), torch.einsum("oik,pik->op", w, w)
    spectra = [torch.linalg.eigvalsh(g).flip(0).clamp(min=0) for g in (inner, outer)]
    return Tucker(w, spectra[0], spectra[1], root)


def whitening(gram: Tensor, damping: float = DAMPING) -> Tensor:
    """S [I, I], the Cholesky factor of G + damping * mean(diag G) * 1 (SVD-LLM, arXiv:2403.07378,
    section 3.1). InputError if G is not finite."""
    g = gram.double()
    if not bool(torch.isfinite(g).all()):
        raise InputError(
            "the inputs of a layer that is to be factorized are not finite",
            got="NaN or infinity",
            fix="did the training diverge?",
        )
    # a layer that sees only zeros is cut as the plain form cuts it
    level = (damping * g.diagonal().mean()).clamp(min=1e-30)
    return torch.linalg.cholesky(g + level * torch.eye(len(g), dtype=g.dtype, device=g.device))  # type: ignore[no-any-return]


def tucker2(t: Tensor, r_in: int, r_out: int, sweeps: int = SWEEPS) -> tuple[Tensor, Tensor, Tensor]:
    """U_in [I, r_in], C [r_out, r_in, K], U_out [O, r_out] of t [O, I, K],
    the U with orthonormal columns.

    Truncated HOSVD, then HOOI: alternating best subspaces (Tucker-2 for convolutions:
    Kim et al. 2016, arXiv:1511.06530, section 3.1; HOOI: De Lathauwer et al. 2000, "On the best
    rank-1 and rank-(R1..RN) approximation", SIAM J. Matrix Anal. Appl. 21, section 4).
    """
    u_in = _leading(torch.einsum("oik,ojk->ij", t, t), r_in)
    u_out = _leading(torch.einsum("oik,pik->op", t, t), r_out)
    if (r_in, r_out) != (t.shape[1], t.shape[0]):
        for _ in range(sweeps):
            y = torch.einsum("oik,iq->oqk", t, u_in)
            u_out = _leading(torch.einsum("oqk,pqk->op", y, y), r_out)
            z = torch.einsum("oik,op->pik", t, u_out)
            u_in = _leading(torch.einsum("pik,pjk->ij", z, z), r_in)
    core = torch.einsum("oik,op,iq->pqk", t, u_out, u_in)
    return u_in, core, u_out


def rank_keeping(energy: Tensor, share: float) -> int:
    """The smallest r >= 1 whose first r values of `energy` [m] (falling) sum up to at
    least `share` of all."""
    cumulative = energy.cumsum(0)
    enough = cumulative >= share * cumulative[-1] * (1 - 1e-12)  # the slack is float64's own
    return int(enough.int().argmax()) + 1


def _leading(gram: Tensor, r: int) -> Tensor:
    """The eigenvectors [n, r] of the r largest eigenvalues of a symmetric matrix
    [n, n], largest first."""
    vectors: Tensor = torch.linalg.eigh(gram)[1]
    return vectors[:, -r:].flip(1)


def _share(part: Tensor, total: Tensor) -> float:
    return float(part / total) if float(total) > 0 else 1.0
