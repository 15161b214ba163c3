"""Tree-structured Parzen estimators, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..records import History
from ..space import Space
from .base import Proposal, Strategy
from .shared import optuna as _optuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# the model of the good takes 25 trials at most (Optuna's gamma), that of the others any
WINDOW = _optuna.Window(best=25, recent=75)
# if all candidates are known, more are drawn: so often at most, so many times as many
DRAWS, GROWTH = 3, 4


@dataclass(frozen=True)
class Tpe(Strategy):
    """Bayesian search: models where good fillings lie and where the others lie, and takes the
    candidate with the best ratio of the two densities (Bergstra et al., "Algorithms for
    hyper-parameter optimization", 2011; several objectives: Ozaki et al., "Multiobjective
    tree-structured Parzen estimator", 2022).

    Multivariate within each group of holes that live together, so conditional holes are modelled
    too. Running trials count as bad ones ("constant liar"), so parallel proposals spread. A filling
    that is known is never proposed again: the best candidate that is new is taken, in a conditional
    space by asking again; last, a neighbour of the suggestion. Beyond 100 finished trials the model
    sees the 25 best (also by each objective) and the 75 latest, so a proposal stays cheap.

    startup: finished trials before the model takes over; candidates: draws among which it
    chooses; multivariate: whether holes are modelled together (else each by itself, as in the
    paper of 2011).
    """

    startup: int = 10
    candidates: int = 24
    multivariate: bool = True

    def __post_init__(self) -> None:
        if self.startup < 1 or self.candidates < 1:
            raise InputError(
                "tpe needs at least one startup trial and one candidate",
                got=f"startup={self.startup}, candidates={self.candidates}",
            )

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        reflected = _optuna.mirror(space, history)

        def sampler(seed: int) -> BaseSampler:
            with _optuna.quiet():
                made: BaseSampler = _sampler()(
                    _optuna.Known(reflected, history),
                    n_startup_trials=self.startup,
                    n_ei_candidates=self.candidates,
                    seed=seed,
                    multivariate=self.multivariate,
                    group=self.multivariate,
                    constant_liar=True,
                )
            return made

        return _optuna.propose(space, history, n, rng, reflected, sampler, {}, window=WINDOW)


@cache
def _sampler() -> Any:
    from optuna.samplers import TPESampler

    class FreshTpe(TPESampler):
        """Optuna's, but a candidate that is known is passed over,
        and where all are, more are drawn."""

        def __init__(self, known: _optuna.Known, **settings: Any) -> None:
            super().__init__(**settings)
            self.known, self.stale = known, False

        def _sample(self, *what: Any) -> Any:
            drawn = self._n_ei_candidates
            try:
                for _ in range(DRAWS):
                    out = super()._sample(*what)
                    if not self.stale:
                        break
                    self._n_ei_candidates *= GROWTH
            finally:
                self._n_ei_candidates = drawn
            return out

        def _compute_acquisition_func(self, samples: dict[str, np.ndarray], *densities: Any) -> np.ndarray:
            values = super()._compute_acquisition_func(samples, *densities)
            self.stale = False
            for i in np.argsort(-values):
                self.stale = self.known({name: float(column[i]) for name, column in samples.items()})
                if not self.stale:
                    break
                values[i] = -np.inf
            return values

    return FreshTpe
