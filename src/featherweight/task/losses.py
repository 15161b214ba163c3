"""Losses by name. Each takes (outputs, targets) and gives a scalar: the mean over the batch.

Notation: n samples, C classes, K numbers or labels a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..errors import TaskError

_TINY = 1e-7  # the least probability that a logarithm is taken of


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """outputs: logits [n, C], or [n, C, ...] with a class at each place; targets: [n, ...]."""
    return F.cross_entropy(outputs, targets.long())


def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits, each by itself; targets between 0 and 1, as many."""
    return F.binary_cross_entropy_with_logits(outputs, _as(outputs, targets))


def log_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of probabilities: [n, C] that add up to 1 with classes [n], or each by
    itself with as many targets of 0 and 1."""
    p = outputs.clamp(_TINY, 1 - _TINY)
    if outputs.ndim == 2 and outputs.shape[1] > 1 and targets.ndim == 1:
        return F.nll_loss(p.log(), targets.long())
    return F.binary_cross_entropy(p, _as(outputs, targets))


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error; [n, 1] against [n] is taken element by element, never broadcast to
    [n, n]."""
    return F.mse_loss(outputs, _as(outputs, targets))


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(outputs, _as(outputs, targets))


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared up to an error of 1, absolute beyond (Huber 1964)."""
    return F.huber_loss(outputs, _as(outputs, targets))


def kl(outputs: Tensor, targets: Tensor) -> Tensor:
    """KL(softmax(targets) || softmax(outputs)): both are logits [n, C]."""
    log_s, log_t = F.log_softmax(outputs, dim=-1), F.log_softmax(_as(outputs, targets), dim=-1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def cosine(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - cos of the angle between output and target, [n, K] each."""
    return 1 - F.cosine_similarity(outputs.flatten(1), _as(outputs, targets).flatten(1)).mean()


BY_NAME: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (cross_entropy, bce, log_loss, mse, mae, huber, kl, cosine)
}


def _as(outputs: Tensor, targets: Tensor) -> Tensor:
    """The targets in the outputs' type and shape. TaskError if they are not as many."""
    if outputs.numel() != targets.numel():
        raise TaskError(
            "outputs and targets differ in size",
            got=f"{list(outputs.shape)}, {list(targets.shape)}",
            allowed="as many of each",
        )
    return targets.to(outputs.dtype).reshape(outputs.shape)
