"""What a pruning criterion is: a pure function of what was seen of one layer.

Notation: O outputs, I inputs (of one convolution group), G convolution groups (1 for a Linear), k
kernel positions, N samples, B batches. A score is large where the weight matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import InputError


@dataclass(frozen=True)
class Seen:
    """One layer as a criterion sees it; what a criterion does not name in `needs` is None."""

    weight: Tensor  # [O, I, *k] of a Linear or convolution
    # [O] |gamma| of the batch norm that follows the layer, None if none does
    norm: Tensor | None = None
    gradient: Tensor | None = None  # [B, O, I, *k] the loss's gradient on each of B batches
    # [G, I * k, in the order of weight[0].flatten()] L2 norm of each input feature over
    # samples and positions
    input_norm: Tensor | None = None
    # [G, I * k, I * k] mean of x x^T over samples and positions, for each of G convolution groups
    hessian: Tensor | None = None
    # [N, O] each channel's mean over the positions of one sample, after its activation
    outputs: Tensor | None = None
    name: str = ""  # the layer's path, for messages

    def need(self, field: str) -> Tensor:
        """The field, which a criterion named in its `needs`. InputError if it was not observed."""
        value: Tensor | None = getattr(self, field)
        if value is None:
            raise InputError(
                f"the layer {self.name!r} was scored without its {field}",
                got="None",
                fix="observe the layer with what the criterion `needs`",
            )
        return value


class Criterion(ABC):
    """Abstract: how much each weight, or each output channel, matters."""

    # the fields of Seen that it looks at besides `weight`
    needs: ClassVar[frozenset[str]] = frozenset()
    per_weight: ClassVar[bool] = True  # False: it judges whole output channels only
    # scores of different layers are on one scale, so that one ranking may span layers
    comparable: ClassVar[bool] = False
    # a ratio holds in each output's row: weights are compared with those of the same output only
    by_row: ClassVar[bool] = False

    @abstractmethod
    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        """Shaped as the weight, or [O] if not `per_weight`; float32, finite, not negative. rng:
        for criteria that draw."""
