"""What a zero-cost proxy is: a score of an untrained module from one batch, to be compared with the
scores of other modules.

Notation: n samples, w a weight, g the loss's gradient at it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import InputError
from ..copies import copied

Loss = Callable[[Any, Tensor], Tensor]  # (outputs, targets) -> scalar


class Proxy(ABC):
    """Abstract: how good a module looks before it is trained."""

    @abstractmethod
    def score(self, module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, loss_fn: Loss) -> float:
        """Higher: expected to be better once trained. Scores are comparable between modules on the
        same batch only.

        inputs: the module's arguments in order, each [n, ...]; targets: [n, ...]. The module and
        the global random state are left as they were. -inf: nothing of the input reaches the
        output. InputError: fewer than 2 samples, or a score that is not a number.
        """


def rehearsal(module: nn.Module, inputs: Sequence[Tensor], targets: Tensor | None = None) -> nn.Module:
    """A copy of the module to score: no dropout, batch normalisation by the batch's own statistics
    (an untrained module has no others), all parameters with gradients. InputError for fewer than 2
    samples or inputs of different lengths."""
    lengths = [len(t) for t in (*inputs, *([] if targets is None else [targets])) if t.ndim]
    if not inputs or len(set(lengths)) != 1 or lengths[0] < 2:
        raise InputError(
            "a proxy needs a batch: inputs and targets of equal length",
            got=f"lengths {lengths}",
            allowed="2 samples or more",
        )
    made = copied(module).eval().requires_grad_(True)
    made.zero_grad(set_to_none=True)
    for part in made.modules():
        if isinstance(part, _BatchNorm):
            part.train()
    return made


def gradients(
    module: nn.Module, inputs: Sequence[Tensor], targets: Tensor, loss_fn: Loss
) -> list[tuple[Tensor, Tensor]]:
    """(w, g) of every weight of two or more dimensions (matrices, kernels, embeddings) that the
    loss depends on, as in the code of Abdelfattah et al. 2021, which leaves out biases and
    normalisation."""
    made = rehearsal(module, inputs, targets)
    weights = [p for p in made.parameters() if p.ndim >= 2]
    with torch.enable_grad():
        loss = loss_fn(made(*inputs), targets)
        if not weights or not loss.requires_grad:
            return []
        found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(weights, found, strict=True) if g is not None]


def number(score: float, what: str) -> float:
    """The score; InputError if it is NaN or infinite upwards."""
    if score != score or score == float("inf"):
        raise InputError(
            f"{what} of this module is not a number", got=score, fix="look for weights, inputs or losses that overflow"
        )
    return score
