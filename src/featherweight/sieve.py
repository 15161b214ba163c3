"""A first filter of architectures: nets that score badly before any training are not trained (`featherweight.models.proxies`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from . import registry
from .errors import InputError
from .seeding import derive, generator
from .space import Space

if TYPE_CHECKING:
    from .nets.base import Net
    from .task import Task

SAMPLE = 32  # random nets whose scores set the bar
BATCH = 32  # training samples that a net is scored on


class Sieve:
    """kind: of the proxy; keep: the share of random nets that would pass; seed: the study's. Scores are kept, so a net is scored once."""

    def __init__(self, task: Task, kind: str, keep: float, seed: int) -> None:
        self.task, self.kind, self.keep, self.seed = task, kind, keep, seed
        self._proxy = registry.find("models.proxies", kind)()
        self._scores: dict[Net, float] = {}
        self._bar: float | None = None

    def score(self, net: Net) -> float:
        """Of the untrained net on a batch of training samples, higher is better; minus infinity if it cannot be scored at all."""
        if net not in self._scores:
            import numpy as np

            from .train.loop import tensors

            split = self.task.splits().train
            index = np.sort(generator(self.seed, "sieve").permutation(len(split))[:BATCH])
            inputs, targets = tensors(split, index, "cpu")
            module = net.build(derive(self.seed, "sieve"))
            self._scores[net] = float(self._proxy.score(module, inputs, targets, self.task.loss_fn))
        return self._scores[net]

    def bar(self, space: Space) -> float:
        """The score that `keep` of `SAMPLE` random fillings of the space reach. The same for the same seed."""
        if self._bar is None:
            from .models.proxies._rank import threshold

            rng, scores = generator(self.seed, "bar"), []
            for _ in range(20 * SAMPLE):
                filling = space.sample(rng)
                if space.refused(filling) is None:
                    scores.append(self.score(self._net(space.fill(filling))))
                if len(scores) == SAMPLE:
                    break
            if not scores:
                raise InputError("no filling of the space holds the limits that can be checked before training", fix="loosen the limits")
            self._bar = threshold(scores, self.keep)
        return self._bar

    def refuses(self, candidate: Any, space: Space) -> str | None:
        """Why a filled candidate is not worth training; None if it passes."""
        value, bar = self.score(self._net(candidate)), self.bar(space)
        if value >= bar and not math.isnan(value):
            return None
        return f"its {self.kind} score before training is {value:.4g}; {self.keep:.0%} of random nets reach {bar:.4g}"

    @staticmethod
    def _net(candidate: Any) -> Net:
        net: Net = candidate.recipe.steps[0].net
        return net
