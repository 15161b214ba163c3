"""Tree-structured Parzen estimators, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..records import History
from ..space import Space
from . import _optuna
from .base import Proposal, Strategy

if TYPE_CHECKING:
    import numpy as np
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Tpe(Strategy):
    """Bayesian search: models where good fillings lie and where the others lie, and takes the candidate with the best
    ratio of the two densities (Bergstra et al., "Algorithms for hyper-parameter optimization", 2011; several
    objectives: Ozaki et al., "Multiobjective tree-structured Parzen estimator", 2022).

    Multivariate within each group of holes that live together, so conditional holes are modelled too. Running trials
    count as bad ones ("constant liar"), so parallel proposals spread. A filling that is known is never proposed again.

    startup: finished trials before the model takes over; candidates: draws among which it chooses.
    """

    startup: int = 10
    candidates: int = 24

    def __post_init__(self) -> None:
        if self.startup < 1 or self.candidates < 1:
            raise InputError("tpe needs at least one startup trial and one candidate", got=f"startup={self.startup}, candidates={self.candidates}")

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        return _optuna.propose(space, history, n, rng, _optuna.mirror(space, history), self._sampler, {})

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        with _optuna.quiet():
            return TPESampler(
                n_startup_trials=self.startup, n_ei_candidates=self.candidates, seed=seed, multivariate=True, group=True, constant_liar=True
            )
