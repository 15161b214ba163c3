"""A model that chooses among what other strategies propose (pre-screening; Emmerich, Giannakoglou
and Naujoks, "Single- and multiobjective evolutionary optimization assisted by Gaussian random field
metamodels", 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...records import History
from ...seeding import derive
from ...space import Filling, Space
from ...surrogate.model import Surrogate
from ...surrogate.observed import VALUED, Observed, observed

LEAST = 8  # finished trials before there is a model
_OFTEN = 50  # a model serves until the history has grown by a share of 1 / _OFTEN
_TREES = 20


class Screen:
    """A model of the trials below `mark[0]`, as the bayesian strategy makes one."""

    def __init__(self, seen: Observed, rows: np.ndarray, mark: tuple[int, ...]) -> None:
        seed = derive(0, "screen", *mark) % 2**31
        self.seen = seen
        self.model = Surrogate(seen, rows, seed, trees=_TREES, min_leaf=1, extra=True, cost_aware=True)

    def judge(self, fillings: Sequence[Filling]) -> tuple[np.ndarray, np.ndarray]:
        """Of each filling the log acquisition (expected improvement for the predicted cost,
        within constraints), and the mean prediction of the objectives, in normal scores, less is
        better; [q] each."""
        x = self.seen.description.rows(fillings)
        means = [forest.ask(x).mean.mean(0) for forest in self.model.forests]
        return self.model.judge(x)[0], np.mean(means, axis=0)


def screen(space: Space, history: History) -> Screen | None:
    """The model of the history as it is; None while fewer than `LEAST` trials have finished, or
    fewer than two with values."""
    seen = observed(space, history)
    step = max(1, len(history) // _OFTEN) if len(history) >= 2 * _OFTEN else 1
    below = len(history) // step * step
    rows = seen.settled(below)
    if len(rows) < LEAST or (seen.fate[rows] == VALUED).sum() < 2:
        return None
    mark = (below, len(rows), int(rows.sum()))
    return seen.kept("screen", mark, lambda: Screen(seen, rows, mark))
