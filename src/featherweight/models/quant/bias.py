"""Bias correction: rounded weights shift a layer's mean output; its bias takes the shift back.

Nagel et al. 2019, arXiv:1906.04721, section 4.2: with e = W' - W, E[y'] = E[y] + e E[x], so e E[x]
is subtracted from the bias.
Notation: W [O, I, *k], G convolution groups, n = I * k inputs of an output, m [G, n] = E[x] over
samples and positions.
"""

from __future__ import annotations

from torch import Tensor


def correction(w: Tensor, rounded: Tensor, mean: Tensor) -> Tensor:
    """[O], to be added to the bias: (W - W') E[x]."""
    lost = (w.detach().float() - rounded.float()).flatten(1)  # [O, n]
    return (lost.reshape(mean.shape[0], -1, mean.shape[1]) @ mean.float().unsqueeze(2)).reshape(-1)
