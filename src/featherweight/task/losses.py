"""Losses by name. Each takes (outputs, targets) and gives a scalar: the mean over the batch.

Notation: n samples, C classes, K numbers or labels a sample; ... places of a sample (pixels,
tokens, frames), each with an answer of its own. Targets below 0 are places that do not count.

Sources: Graves et al. 2006, "Connectionist temporal classification" (ICML); Khosla et al. 2020,
"Supervised contrastive learning" (arXiv:2004.11362).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TaskError
from .data import IGNORED

_TINY = 1e-7  # the least probability that a logarithm is taken of
_TEMPERATURE = 0.1  # of contrastive: Khosla et al., section 4


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """outputs: logits [n, C], or [n, C, ...] with a class at each place; targets: [n, ...]."""
    targets = targets.long()
    targets = torch.where(targets < 0, IGNORED, targets)
    return _mean(F.cross_entropy(outputs, targets, ignore_index=IGNORED, reduction="sum"), targets >= 0)


def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits, each by itself; targets between 0 and 1, as many."""
    known = _as(outputs, targets)
    there = known >= 0
    each = F.binary_cross_entropy_with_logits(outputs, known.clamp(min=0), reduction="none")
    return _mean(torch.where(there, each, 0).sum(), there)


def log_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of probabilities: [n, C, ...] that add up to 1 with classes [n, ...], or
    each by itself with as many targets between 0 and 1."""
    p = outputs.clamp(_TINY, 1 - _TINY)
    if outputs.ndim >= 2 and outputs.shape[1] > 1 and targets.ndim == outputs.ndim - 1:
        targets = targets.long()
        targets = torch.where(targets < 0, IGNORED, targets)
        return _mean(F.nll_loss(p.log(), targets, ignore_index=IGNORED, reduction="sum"), targets >= 0)
    known = _as(outputs, targets)
    there = known >= 0
    each = F.binary_cross_entropy(p, known.clamp(min=0), reduction="none")
    return _mean(torch.where(there, each, 0).sum(), there)


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
    """KL(softmax(targets) || softmax(outputs)): both are logits [n, C, ...]. Of one number ([n],
    [n, 1, ...]), which says yes or no, KL(B(sigmoid(targets)) || B(sigmoid(outputs)))."""
    targets = _as(outputs, targets)
    if outputs.ndim < 2 or outputs.shape[1] == 1:
        p = torch.sigmoid(targets)
        yes, no = F.logsigmoid(targets) - F.logsigmoid(outputs), F.logsigmoid(-targets) - F.logsigmoid(-outputs)
        return (p * yes + (1 - p) * no).mean()
    log_s, log_t = F.log_softmax(outputs, dim=1), F.log_softmax(targets, dim=1)
    return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1).mean()


def cosine(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - cos of the angle between output and target, [n, K] each."""
    return 1 - F.cosine_similarity(outputs.flatten(1), _as(outputs, targets).flatten(1)).mean()


def ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    """Connectionist temporal classification: outputs are logits [n, C, frames] with class 0 for
    blank, targets [n, at most so many labels], with 0 or less after the last. A target that is too
    long for its frames counts nothing."""
    frames = outputs.log_softmax(1).permute(2, 0, 1)  # [frames, n, C]
    lengths = (targets > 0).sum(1)
    given = torch.full((len(outputs),), outputs.shape[2], dtype=torch.long, device=outputs.device)
    return F.ctc_loss(frames, targets.clamp(min=0).long(), given, lengths, zero_infinity=True)


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2) of embeddings [n, K], which are put
    to length 1: samples of one class [n] are to be near each other, and far from the others. A
    sample that is alone in its class in a batch pulls none."""
    z = F.normalize(outputs.flatten(1), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    scores = (z @ z.T / _TEMPERATURE).masked_fill(itself, -torch.inf)
    log_p = (scores - scores.logsumexp(1, keepdim=True)).masked_fill(itself, 0.0)
    same = (targets.reshape(-1, 1) == targets.reshape(1, -1)) & ~itself
    mates = same.sum(1)
    loss = -(log_p * same).sum(1)[mates > 0] / mates[mates > 0]
    return loss.mean() if len(loss) else outputs.sum() * 0


def classes_second(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    """`loss` of outputs [n, ..., C], whose classes are on the last axis."""
    if outputs.ndim > 2:
        targets = targets.movedim(-1, 1) if targets.ndim == outputs.ndim else targets
        outputs = outputs.movedim(-1, 1)
    return loss(outputs, targets)


def one_number(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    """`loss` of outputs [n, ...] with one number at each place, which says yes or no: they have no
    axis of classes."""
    return loss(outputs.unsqueeze(1), targets.reshape(outputs.shape).unsqueeze(1))


BY_NAME: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (cross_entropy, bce, log_loss, mse, mae, huber, kl, cosine, ctc, contrastive)
}


def _mean(total: Tensor, there: Tensor) -> Tensor:
    """The mean over what counts; 0, with a gradient of 0, of nothing."""
    return total / there.sum().clamp(min=1)


def _as(outputs: Tensor, targets: Tensor) -> Tensor:
    """The targets in the outputs' type and shape. TaskError if they are not as many."""
    if outputs.numel() != targets.numel():
        raise TaskError(
            "outputs and targets differ in size",
            got=f"{list(outputs.shape)}, {list(targets.shape)}",
            allowed="as many of each",
        )
    return targets.to(outputs.dtype).reshape(outputs.shape)
