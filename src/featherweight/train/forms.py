"""What a model's outputs stand for, and so which distance between student and teacher fits them.

A task's loss may be any function, so it is asked: at made-up outputs z [B, ...], what does it want
of each of them? g = d loss / d z.

softmax     sum_c g_c = 0 in every row: only differences between logits count, as in cross-entropy,
            weighted, smoothed or focal; or g is negative at the sample's own class and 0 elsewhere
            (log-likelihood of log-probabilities).
bernoulli   targets of 0 and 1, and g pushes every output up where they are 1 and down where they
            are 0, however far it is: logits of labels that do not exclude each other.
mse         anything else: numbers, or probabilities, which have no logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError

FORMS = ("softmax", "bernoulli", "mse")
# of losses by name; probabilities have no logits, and vectors are no classes
_NAMED = {"cross_entropy": "softmax", "kl": "softmax", "ctc": "softmax", "bce": "bernoulli"}
_NAMED |= dict.fromkeys(("log_loss", "mse", "mae", "huber", "cosine", "contrastive"), "mse")
_SPREAD = 3.0  # standard deviation of the made-up outputs: beyond the targets' range
Loss = Callable[[Tensor, Tensor], Tensor]


def fitting_form(loss: str | Loss, shape: Sequence[int], targets: Tensor, axis: int = 1) -> tuple[str, str]:
    """(one of FORMS, why). loss: a task's; shape: of the outputs of one sample; targets: [B, ...],
    real ones; axis: that of classes (0: none; one number at each place says yes or no).

    InputError if the loss gives no gradients on made-up outputs.
    """
    if not callable(loss):
        alone = axis == 0 or not shape or shape[-1 if axis == -1 else 0] == 1
        return "bernoulli" if loss == "kl" and alone else _NAMED[loss], f"the loss is {loss}"
    generator = torch.Generator().manual_seed(0)
    z = _SPREAD * torch.randn(len(targets), *shape, generator=generator)
    g = _gradient(loss, z, targets)
    if g is None:  # it may take probabilities only
        p = torch.rand(z.shape, generator=generator) * 0.9 + 0.05
        if z.ndim > 1 and z.shape[-1] > 1:
            p = p / p.sum(-1, keepdim=True)
        if _gradient(loss, p, targets) is None:
            raise InputError(
                "what the outputs stand for cannot be told from this loss",
                got="no finite gradient on made-up outputs",
                allowed=f"form={' or '.join(map(repr, FORMS))}",
                fix="set the form of the distance between the student's and the teacher's outputs",
            )
        return "mse", "the loss takes probabilities, not logits"
    if axis != 0 and z.ndim > 2 and targets.ndim == z.ndim - 1:  # a class at each place
        g, targets = _rows(g, targets, axis)
        z = g
    if axis != 0 and z.ndim == 2 and z.shape[1] > 1:
        if bool((g.sum(1).abs() <= 1e-3 * g.abs().sum(1)).all()):
            return "softmax", "the loss counts differences between logits"
        if (own := _own(g, targets)) is not None and bool((own < 0).all()):
            others = g.abs().sum(1) - own.abs()
            if bool((others <= 1e-6 * own.abs()).all()):
                return "softmax", "the loss counts each sample's own class"
            if _pushes(g, torch.nn.functional.one_hot(targets.reshape(-1).long(), z.shape[1])):
                return "bernoulli", "the loss takes each class by itself"
    if targets.numel() == z.numel() and bool(((targets == 0) | (targets == 1)).all()):
        if _pushes(g, targets.reshape(z.shape)):
            return "bernoulli", "the targets are 0 or 1, each output by itself"
    return "mse", "the outputs are numbers"


def _gradient(loss: Loss, z: Tensor, targets: Tensor) -> Tensor | None:
    """g, finite and not all 0; None if there is none."""
    z = z.clone().requires_grad_()
    try:
        with torch.enable_grad():
            value = loss(z, targets)
            (g,) = torch.autograd.grad(value, z)
    except Exception:  # whatever a user's function raises on outputs that it was not made for
        return None
    return g if bool(torch.isfinite(g).all() and (g != 0).any()) else None


def _rows(g: Tensor, targets: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Of [B, C, ...] and [B, ...]: [places, C] and [places], those that count."""
    flat, at = g.movedim(axis, -1), targets.reshape(-1)
    flat = flat.reshape(-1, flat.shape[-1])
    if len(flat) != len(at):
        return g, targets
    return flat[at >= 0], at[at >= 0]


def _own(g: Tensor, targets: Tensor) -> Tensor | None:
    """g [B, C] at each sample's own class; None if the targets are no classes below C."""
    y = targets.reshape(-1)
    if len(y) != len(g) or not bool(((y == y.long()) & (y >= 0) & (y < g.shape[1])).all()):
        return None
    own: Tensor = g.gather(1, y.long()[:, None])[:, 0]
    return own


def _pushes(g: Tensor, targets: Tensor) -> bool:
    """Is every output pushed up where its target is 1, and down where it is 0? One that is far on
    the right side already may be left alone."""
    wrong = torch.where(targets == 1, g > 0, g < 0)
    moved = torch.where(targets == 1, g < 0, g > 0)
    return not bool(wrong.any()) and bool(moved.any())
