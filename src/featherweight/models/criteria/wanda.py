"""Wanda: a weight matters as its size times the size of the input that it multiplies.

Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models",
arXiv:2306.11695.
Notation: w weight, ||x_j||_2 the norm of input feature j over all samples and positions, G
convolution groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Seen


class Wanda(Criterion):
    """|w_ij| ||x_j||_2. The paper compares the weights of one output with each other only
    (section 3, "comparison group")."""

    needs = frozenset({"input_norm"})
    by_row = True

    def score(self, seen: Seen, rng: torch.Generator) -> Tensor:
        norm = seen.need("input_norm").float()  # [G, I * k]
        w = seen.weight.detach().float().abs()
        rows = w.reshape(len(norm), -1, norm.shape[1])  # [G, O / G, I * k]
        return (rows * norm[:, None]).reshape(w.shape)  # eq. 1
