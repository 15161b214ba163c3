"""A first filter of architectures: nets that score badly before any training are not trained
(`featherweight.models.proxies`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import registry
from ..errors import InputError
from ..nets.base import Net
from ..seeding import derive, generator
from ..space import Space
from ..task.task import Task

SAMPLE = 32  # random nets whose scores set the bar
BATCH = 32  # training samples that a net is scored on


class ProxyFilter:
    """kind: of the proxy; keep: the share of random nets that would pass; seed: the study's. Scores
    are kept, so a net is scored once."""

    def __init__(self, task: Task, kind: str, keep: float, seed: int) -> None:
        self.task, self.kind, self.keep, self.seed = task, kind, keep, seed
        self._proxy = registry.find("models.proxies", kind)()
        self._scores: dict[Net, tuple[float, str]] = {}
        self._bar: float | None = None

    def score(self, net: Net) -> float:
        """Of the untrained net on a batch of training samples, higher is better; minus infinity if
        nothing of the input reaches its output, or if the proxy cannot score it
        (`refuses` says why)."""
        return self._scored(net)[0]

    def _scored(self, net: Net) -> tuple[float, str]:
        """The score, and what kept the proxy from giving one ("": nothing)."""
        if net not in self._scores:
            from ..train.loop import tensors

            split = self.task.splits().train
            index = np.sort(generator(self.seed, "sieve").permutation(len(split))[:BATCH])
            inputs, targets = tensors(split, index, "cpu")
            try:
                module = net.build(derive(self.seed, "sieve"))
                self._scores[net] = float(self._proxy.score(module, inputs, targets, self.task.loss_fn)), ""
            except InputError as e:
                # of this one net: its sums overflow, or it has nothing that the proxy looks at
                self._scores[net] = -math.inf, str(e)
        return self._scores[net]

    def bar(self, space: Space) -> float:
        """The score that `keep` of `SAMPLE` random fillings of the space reach. The same for the
        same seed. InputError if none can be scored."""
        if self._bar is None:
            from ..models.proxy_ranks import threshold

            rng, scores, why = generator(self.seed, "bar"), list[float](), ""
            for _ in range(20 * SAMPLE):
                filling = space.sample(rng)
                if space.refused(filling) is None:
                    score, problem = self._scored(self._net(space.fill(filling)))
                    why = why or problem
                    if not problem:
                        scores.append(score)
                if len(scores) == SAMPLE:
                    break
            if not scores and why:
                raise InputError(
                    f"{self.kind} can score no net of this space", got=why, fix="use another proxy, or none"
                )
            if not scores:
                raise InputError(
                    "no filling of the space holds the limits that can be checked before training",
                    fix="loosen the limits",
                )
            self._bar = threshold(scores, self.keep)
        return self._bar

    def refuses(self, candidate: Any, space: Space) -> str | None:
        """Why a filled candidate is not worth training; None if it passes."""
        (value, problem), bar = self._scored(self._net(candidate)), self.bar(space)
        if problem:
            return f"{self.kind} cannot score it before training: {problem}"
        if value >= bar:
            return None
        return f"its {self.kind} score before training is {value:.4g}; {self.keep:.0%} of random nets reach {bar:.4g}"

    @staticmethod
    def _net(candidate: Any) -> Net:
        net: Net = candidate.recipe.steps[0].net
        return net
