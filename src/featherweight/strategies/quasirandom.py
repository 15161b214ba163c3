"""Quasirandom search: a scrambled Sobol' sequence over all holes,
which covers the space more evenly than chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..digest import Digest
from ..errors import InputError
from ..records import History, Trial
from ..space import Space
from ..space.cube import Cube
from .base import Fresh, Proposal, Strategy

# direction numbers of Joe and Kuo, "Constructing Sobol sequences with better two-dimensional
# projections", 2008
MOST_DIMS = 21201
BLOCK = 256  # points made at a time: a power of two, as a digital net needs
SKIPS = 512  # points in a row that were known or refused, before a random filling is taken


@dataclass(frozen=True)
class Quasirandom(Strategy):
    """Sobol' points (Sobol', "On the distribution of points in a cube", 1967), scrambled by a
    random linear matrix and a digital shift (Matousek, "On the L2-discrepancy for anchored boxes",
    1998), in the unit cube of all holes.

    Every hole has a coordinate of its own, alive or not, so the fillings of any branch are spread
    evenly too. Categories are equal bins, an Order is a ranking of random keys. Points whose
    filling is known or refused are skipped; in a finite space that is nearly used up, a random one
    of what is left is taken. The first proposal draws the scrambling and notes it; every note holds
    the point's index.

    InputError for a space of more than 21,201 coordinates.
    """

    def propose(self, space: Space, history: History, n: int, rng: np.random.Generator) -> list[Proposal]:
        cube = Cube(space)
        if cube.dims > MOST_DIMS:
            raise InputError(
                "the Sobol' sequence has too few dimensions for this space",
                got=cube.dims,
                allowed=f"up to {MOST_DIMS}",
                fix="use random",
            )
        last = _Last.of(history)
        seed, index = last.seed, last.index
        if seed is None:
            seed = int(rng.integers(2**31))
        fresh, out = Fresh(space, history), list[Proposal]()
        while len(out) < n:
            for at in range(index, index + SKIPS if cube.dims else index):
                filling = cube.filling(_block(cube.dims, seed, at // BLOCK)[at % BLOCK])
                if filling in fresh:
                    out.append(fresh.take(filling, {"sobol": seed, "index": at}))
                    index = at + 1
                    break
            else:
                drawn = fresh.sample(rng)
                if drawn is None:
                    break
                index += SKIPS
                out.append(
                    fresh.take(drawn, {"sobol": seed, "index": index - 1, "random": "no new point among the next"})
                )
        return out


class _Last(Digest):
    """The scrambling in use (None: none yet) and the index of the next point."""

    def __init__(self) -> None:
        super().__init__()
        self.seed: int | None = None
        self.index = 0

    def begun(self, trial: Trial) -> None:
        note = trial.note
        if "sobol" in note and self.seed in (None, note["sobol"]):
            self.seed, self.index = int(note["sobol"]), max(self.index, int(note["index"]) + 1)


@lru_cache(maxsize=16)
def _block(dims: int, seed: int, number: int) -> np.ndarray:
    """Points number * BLOCK and following, [BLOCK, dims]."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(dims, scramble=True, rng=np.random.default_rng(seed))
    if number:
        sequence.fast_forward(number * BLOCK)
    return sequence.random(BLOCK)  # type: ignore[no-any-return]
