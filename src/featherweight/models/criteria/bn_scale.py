"""Batch norm scale: a channel matters as much as the batch normalisation behind it lets through.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming",
arXiv:1708.06519, section 3. Notation: gamma the scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from .base import Criterion, Seen


class BnScale(Criterion):
    """|gamma| of each channel. InputError for a layer that no batch normalisation with a scale
    directly follows."""

    needs = frozenset({"norm"})
    per_weight = False
    comparable = True  # the paper ranks all gammas of a network together

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        if seen.norm is None:
            raise InputError(
                f"no batch normalisation with a scale directly follows the layer {seen.name!r}",
                got="criterion bn_scale",
                fix="use another criterion, such as magnitude or taylor",
            )
        return seen.norm.detach().float().abs()  # [O]
