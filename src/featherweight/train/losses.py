"""Distances between what a student and a teacher give: the pure maths of distillation.

Notation: s student, t teacher; B samples of a batch, C classes or channels, D features, L tokens, P
positions; T temperature; h relation heads, d = D / h. Every function returns a scalar, 0 where both
give the same. Gradients flow into whatever needs them: detach the teacher.

Sources: Hinton, Vinyals & Dean 2015 (arXiv:1503.02531); Ba & Caruana 2014 (arXiv:1312.6184);
Romero et al. 2015, FitNets (arXiv:1412.6550); Zagoruyko & Komodakis 2017, attention transfer
(arXiv:1612.03928); Wang et al. 2021, MiniLMv2 (arXiv:2012.15828); Park et al. 2019, RKD
(arXiv:1904.05068).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

# MiniLMv2, section 4: 48 relation heads; on 768 features that is 16 each
_HEADS, _HEAD_WIDTH = 48, 16
_ANGLES = 256  # samples of a batch that the angles are taken over: there are B^3 of them


def soft_loss(s: Tensor, t: Tensor, form: str, temperature: float, axis: int = -1) -> Tensor:
    """The distance of student from teacher outputs, in one of `forms.FORMS`. axis: that of classes.

    softmax: T^2 KL(softmax(t/T) || softmax(s/T)) of logits [B, C], or with a class at each place
    [B, C, ...], the mean over samples and places (Hinton et al. 2015, section 2, with the factor
    T^2 so that it keeps its scale).
    bernoulli: T^2 KL(B(sigmoid(t/T)) || B(sigmoid(s/T))) of each logit by itself, the mean over
    all, as of binary cross-entropy.
    mse: the mean squared difference. Ba & Caruana 2014, eq. 1; Kim et al. 2021 (arXiv:2105.08919)
    on why it is the limit of large T.
    """
    if form == "mse":
        return F.mse_loss(s, t)
    if form == "bernoulli":
        s, t = s / temperature, t / temperature
        p = torch.sigmoid(t)
        kl = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
        return kl.mean() * temperature**2
    if axis == 0:
        raise InputError(
            "the softmax form compares distributions over classes",
            got="one number at each place",
            fix="form='bernoulli'",
        )
    log_s, log_t = F.log_softmax(s / temperature, dim=axis), F.log_softmax(t / temperature, dim=axis)
    each = F.kl_div(log_s, log_t, reduction="sum", log_target=True) * s.shape[axis] / max(1, s.numel())
    return each * temperature**2


def ensemble_logits(teachers: Sequence[Tensor], form: str, temperature: float, axis: int = -1) -> Tensor:
    """One teacher's outputs [B, C] that stand for all of them,
    for `soft_loss` of the same form and temperature. axis: that of classes.

    mse: the mean of the outputs. bernoulli: z with sigmoid(z/T) = the mean of sigmoid(t_k/T).
    softmax: z with softmax(z/T) = the mean of softmax(t_k/T)
    (Hinton et al. 2015, section 1: the teacher's distribution is the ensemble's mean), so z = T log
    mean_k softmax(t_k/T). A single teacher is given back as it is. InputError if there is none, or
    if they differ in shape.
    """
    if not teachers or any(t.shape != teachers[0].shape for t in teachers):
        raise InputError(
            "teachers have to give outputs of one shape",
            got=[list(t.shape) for t in teachers],
            allowed="one or more of [B, C]",
        )
    if len(teachers) == 1:
        return teachers[0]
    if form == "mse":
        return torch.stack(list(teachers)).mean(0)
    if form == "bernoulli":
        scaled = torch.stack(list(teachers)) / temperature
        yes, no = (torch.logsumexp(F.logsigmoid(v), dim=0) for v in (scaled, -scaled))
        odds: Tensor = temperature * (yes - no)
        return odds
    logs = torch.stack([torch.log_softmax(t / temperature, dim=axis) for t in teachers])  # [K, B, C]
    mean: Tensor = torch.logsumexp(logs, dim=0) - math.log(len(teachers))
    return temperature * mean


def hint_loss(s: Tensor, t: Tensor) -> Tensor:
    """1/2 ||t - r(s)||^2 (FitNets, eq. 3), as a mean over the elements and not their sum, so that a
    weight means the same for every layer. s: the student's features after the regressor r, in the
    teacher's shape."""
    return 0.5 * F.mse_loss(s, t)


def attention_map(f: Tensor) -> Tensor:
    """Feature maps [B, C, *spatial] -> [B, P]: Q = vec(sum_c |f_c|^2), divided by ||Q||_2
    (attention transfer, section 3.1, F_sum^2)."""
    q: Tensor = F.normalize(f.square().sum(1).flatten(1), dim=1)
    return q


def attention_loss(s: Tensor, t: Tensor) -> Tensor:
    """1/2 || Q_s/||Q_s|| - Q_t/||Q_t|| ||_2 (attention transfer, eq. 2, p = 2),
    the mean over samples.

    s [B, C_s, *spatial], t [B, C_t, *spatial]: channels may differ, positions not.
    """
    distance: Tensor = torch.linalg.vector_norm(attention_map(s) - attention_map(t), dim=1)
    return 0.5 * distance.mean()


def relation_heads(*widths: int) -> int:
    """How many relation heads vectors of these widths are split in: the greatest number, at most
    48, that divides every width and leaves at least 16 features a head; else 1."""
    common = gcd(*widths)
    return max((h for h in range(1, _HEADS + 1) if common % h == 0 and min(widths) // h >= _HEAD_WIDTH), default=1)


def self_relation(x: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """log softmax(A A^T / sqrt(d)) over the last axis, for x [B, L, D] split in relation heads A
    [B, h, L, d] (MiniLMv2, section 3.1).

    mask: [B, L], 0 at padding, which no token then relates to. -> [B, h, L, L].
    """
    b, n, width = x.shape
    a = x.reshape(b, n, heads, width // heads).transpose(1, 2)  # [B, h, L, d]
    scores = a @ a.transpose(-1, -2) / (width // heads) ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask.bool()[:, None, None, :], torch.finfo(scores.dtype).min)
    return torch.log_softmax(scores, dim=-1)


def self_relation_loss(s: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(relation of t || relation of s), the mean over samples, heads and tokens (MiniLMv2,
    section 3.1: the sums over 1 / (A_r |x|)).

    s [B, L, D_s], t [B, L, D_t]: queries, keys or values of one attention layer. mask:
    [B, L], 0 at padding.
    """
    heads = relation_heads(s.shape[-1], t.shape[-1])
    log_s, log_t = self_relation(s, heads, mask), self_relation(t, heads, mask)
    kl = (log_t.exp() * (log_t - log_s)).sum(-1)  # [B, h, L]
    if mask is None:
        return kl.mean()
    real = mask.bool()[:, None, :].expand_as(kl)
    return kl[real].mean()


def distance_loss(s: Tensor, t: Tensor) -> Tensor:
    """RKD-D: Huber distance of psi_D(t_i, t_j) = ||t_i - t_j|| / mu,
    mu the mean over the pairs (RKD, section 3.2.1).

    s [B, D_s], t [B, D_t]. The mean over pairs i < j; 0 for a batch of one. Invariant to scale,
    rotation and shift of either.
    """
    if len(s) < 2:
        return s.sum() * 0

    def psi(x: Tensor) -> Tensor:
        d: Tensor = F.pdist(x)  # [B (B - 1) / 2]; its gradient at equal points is 0
        return d / d.mean().clamp_min(torch.finfo(d.dtype).tiny)

    return F.huber_loss(psi(s), psi(t))  # delta = 1


def angle_loss(s: Tensor, t: Tensor) -> Tensor:
    """RKD-A: Huber distance of psi_A(t_i, t_j, t_k) = cos of the angle at t_j (RKD, section 3.2.2).

    s [B, D_s], t [B, D_t]. The mean over triples of distinct samples, of the first 256 of a batch;
    0 for fewer than three.
    """
    s, t = s[:_ANGLES], t[:_ANGLES]
    n = len(s)
    if n < 3:
        return s.sum() * 0

    def psi(x: Tensor) -> Tensor:
        e = x[None, :, :] - x[:, None, :]  # [j, i, D]: from j to i
        length = torch.linalg.vector_norm(e, dim=-1, keepdim=True)
        e = e / length.where(length > 0, 1.0)  # equal samples have no direction, and push none
        cosines: Tensor = e @ e.transpose(-1, -2)  # [j, i, k]
        return cosines

    i = torch.arange(n, device=s.device)
    distinct = (
        (i[:, None, None] != i[None, :, None])
        & (i[:, None, None] != i[None, None, :])
        & (i[None, :, None] != i[None, None, :])
    )
    return F.huber_loss(psi(s)[distinct], psi(t)[distinct])


def relational_loss(s: Tensor, t: Tensor) -> Tensor:
    """RKD-DA: distance loss + 2 * angle loss (RKD, section 4: weights 25 and 50). s [B, ...], t
    [B, ...]; all but the first axis is flattened."""
    s, t = s.flatten(1), t.flatten(1)
    return distance_loss(s, t) + 2 * angle_loss(s, t)
