"""How much a weight matters: pure functions of weights and gradients. Each returns a tensor shaped as the weight.

Notation: w weight, g gradient of the loss with respect to w.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def magnitude(w: Tensor) -> Tensor:
    """w^2, whose sum over a channel is its squared L2 norm (Li et al. 2017, arXiv:1608.08710, with L2 for L1)."""
    return w.detach().float() ** 2


def taylor(w: Tensor, g: Tensor) -> Tensor:
    """(g w)^2, the squared first-order change of the loss when w is removed (Molchanov et al. 2019, arXiv:1906.10771, eq. 8)."""
    return (g.float() * w.detach().float()) ** 2
