"""Gaussian-process Bayesian optimisation, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..records import History
from ..space import Space
from .base import Proposal, Strategy
from .shared import optuna as _optuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Gp(Strategy):
    """A Gaussian process with a Matern 5/2 kernel and a length scale a hole, and the candidate of
    the greatest expected (hypervolume) improvement, under constraints times the probability that
    they hold (Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box
    functions", 1998; log EI: Ament et al., arXiv:2310.20708), by Optuna's GPSampler.

    It models the logarithms of the objectives. A dead hole stands at the middle of its range, so
    conditional spaces are modelled too. Running trials are integrated over. A suggestion that is
    known is replaced by a neighbour.

    A fit takes time that grows with the cube of its trials: it is fitted to the `most` most
    informative ones, a third of them the best (also by each objective), the rest the latest.
    The improvement is maximised with a quarter of Optuna's draws and fewer than half of its local
    searches. Even so it is by far the slowest strategy, at about a second a proposal: for trials
    that take minutes.

    startup: finished trials before the model takes over.
    """

    startup: int = 10
    most: int = 150

    def __post_init__(self) -> None:
        if self.startup < 1 or self.most < 3:
            raise InputError(
                "gp needs at least one startup trial and three to model",
                got=f"startup={self.startup}, most={self.most}",
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        window = _optuna.Window(best=self.most // 3, recent=self.most - self.most // 3)
        reflected = _optuna.mirror(space, history, flat=True)
        return _optuna.propose(space, history, n, rng, reflected, self._sampler, {}, asks=1, window=window)

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        with _optuna.quiet():
            sampler = GPSampler(n_startup_trials=self.startup, seed=seed, warn_independent_sampling=False)
        # of the acquisition's maximum
        sampler._n_preliminary_samples, sampler._n_local_search, sampler._tol = 512, 4, 1e-3
        return sampler
