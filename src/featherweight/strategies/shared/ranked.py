"""What the strategies that a supernet guides share: its ranked fillings,
and one number for each finished trial."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from ...digest import Digest
from ...errors import InputError
from ...records import History, Trial
from ...space import Filling, Space
from ...space.vary import middle


def check_ranked(ranked: Any) -> None:
    """InputError if `ranked` is no tuple of JSON objects."""
    for text in ranked if isinstance(ranked, tuple) else [None]:
        try:
            fine = isinstance(text, str) and isinstance(json.loads(text), dict)
        except json.JSONDecodeError:
            fine = False
        if not fine:
            raise InputError(
                "ranked holds something that is no filling",
                got=repr(ranked if text is None else text),
                allowed="""a tuple of JSON texts, as ('{"width": 8}',)""",
            )


def guides(space: Space, ranked: tuple[str, ...]) -> list[Filling]:
    """The ranked fillings, best first, completed by the middles of the holes that they leave
    open; each once.

    InputError for a hole that the space does not have, or a value that it does not allow."""
    out: dict[str, Filling] = {}
    for text in ranked:
        given = json.loads(text)
        for path in given:
            space[path]  # says so if there is no such hole
        filling = _completed(space, given)
        out.setdefault(json.dumps(filling, sort_keys=True), filling)
    return list(out.values())


def _completed(space: Space, given: Filling) -> Filling:
    return space.walk(lambda path, domain: given[path] if path in given else middle(domain))


class Outcomes(Digest):
    """The outcomes of all usable trials as arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.objectives = 0
        # of the trials, in the order in which they were read
        self.numbers = np.zeros(64, dtype=int)
        self.rows = np.zeros((64, 1))  # violation, log of each objective

    def told(self, trial: Trial) -> None:
        if not trial.usable:
            return
        self.objectives = trial.objectives(self.objectives)
        row = [trial.violation, *(math.log(max(v, 1e-12)) for v in trial.values or ())]
        if self.count == 0:
            self.rows = np.zeros((64, len(row)))
        if self.count == len(self.rows):
            self.rows, self.numbers = (
                np.concatenate([self.rows, np.zeros_like(self.rows)]),
                np.concatenate([self.numbers, self.numbers]),
            )
        self.rows[self.count], self.numbers[self.count] = row, trial.number
        self.count += 1

    def best(self, n: int, rng: np.random.Generator, before: int | None = None) -> list[int]:
        """Numbers of the `n` best trials: feasible before infeasible, then by the weighted mean of
        log(objective), weights drawn from the unit simplex where there are several; the earliest of
        equals. before: only of trials with smaller numbers."""
        rows, numbers = self.rows[: self.count], self.numbers[: self.count]
        if before is not None:
            rows, numbers = rows[numbers < before], numbers[numbers < before]
        m = rows.shape[1] - 1
        # row by row: no rounding by place
        means = (rows[:, 1:] * (rng.dirichlet([1.0] * m) if m > 1 else np.ones(m))).sum(1)
        keep = np.arange(len(rows))
        # sort few: those at least as good as the n-th
        for column in (rows[:, 0], means) if len(rows) > 4 * n else ():
            if column is means and rows[keep, 0].max() > rows[keep, 0].min():
                break  # infeasible ones are among them: their order is by violation first
            keep = keep[column[keep] <= np.partition(column[keep], n - 1)[n - 1]]
        return [int(i) for i in numbers[keep][np.lexsort((numbers[keep], means[keep], rows[keep, 0]))[:n]]]


def outcomes(history: History) -> Outcomes:
    """The outcomes of a history, as they are now."""
    return Outcomes.of(history)
