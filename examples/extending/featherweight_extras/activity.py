"""Activity: a channel matters as strongly as it answers to the data.

Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference",
arXiv:1611.06440, section 2.2. Notation: N samples, O channels, a_no the mean of channel o's
activation over the positions of sample n.
"""

from __future__ import annotations

from torch import Generator, Tensor

from featherweight.models.criteria.base import Criterion, Seen


class Activity(Criterion):
    """The mean of |a_no| over the samples; 0 for a layer that was never seen at work."""

    needs = frozenset({"outputs"})
    per_weight = False

    def score(self, seen: Seen, rng: Generator) -> Tensor:
        outputs = seen.need("outputs").float()  # [N, O]
        return outputs.abs().sum(0) / max(len(outputs), 1)  # [O]
