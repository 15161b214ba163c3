"""One level for each group, so that enough is saved and the least is lost: a multiple-choice
knapsack, solved exactly.

Notation: G groups, L levels a group; loss [G][L] what a level costs, saving [G][L] what it saves;
need: what all must save together.

    minimise sum_gl loss_gl x_gl subject to sum_gl saving_gl x_gl >= need, sum_l x_gl = 1, x binary

The same problem allots widths (Prune) and bit widths, where losses of groups add up: the integer
program of HAWQ-V3 (Yao et al. 2021, arXiv:2011.10680).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError


def choose(loss: Sequence[Sequence[float]], saving: Sequence[Sequence[float]], need: float) -> list[int]:
    """The level of each group [G]. Groups may have different numbers of levels, at least one each.

    If no choice saves `need`, the largest saving there is (of levels that save alike, the one that
    loses least). The constraint holds to one part in 10^6 of `need` (the solver's own tolerance).
    InputError if the tables differ in shape, a group has no level, or a value is not finite.
    """
    _check(loss, saving, need)
    most = [max(range(len(s)), key=lambda i, s=s, v=v: (s[i], -v[i])) for s, v in zip(saving, loss, strict=True)]  # type: ignore[misc]
    best = math.fsum(s[i] for s, i in zip(saving, most, strict=True))
    if not loss or best <= need:
        return most
    return _solve(loss, saving, need)


def _solve(loss: Sequence[Sequence[float]], saving: Sequence[Sequence[float]], need: float) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    # [sum L] each
    cost, save = (np.concatenate([np.asarray(row, dtype=np.float64) for row in table]) for table in (loss, saving))
    sizes = [len(row) for row in loss]
    ends = np.cumsum([0, *sizes])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    one = csr_array((np.ones(len(cost)), (owner, np.arange(len(cost)))))  # [G, sum L]
    # both rows near 1, so that the solver's absolute tolerances mean something
    unit = max(float(np.abs(save).max()), 1e-300)
    scale = max(float(np.abs(cost).max()), 1e-300)
    found = milp(
        cost / scale,
        integrality=np.ones(len(cost)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint((save / unit)[None, :], need / unit, np.inf)],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise InputError("no levels could be chosen", got=found.message, fix="ask for a smaller saving")
    return [int(found.x[a:b].argmax()) for a, b in zip(ends, ends[1:], strict=False)]


def _check(loss: Sequence[Sequence[float]], saving: Sequence[Sequence[float]], need: float) -> None:
    shapes = [[len(row) for row in table] for table in (loss, saving)]
    if shapes[0] != shapes[1] or 0 in shapes[0]:
        raise InputError(
            "loss and saving do not fit together",
            got=f"levels a group: {shapes[0]} and {shapes[1]}",
            allowed="as many of each, at least one",
        )
    bad = [v for table in (loss, saving) for row in table for v in row if not math.isfinite(v)]
    if bad or not math.isfinite(need):
        raise InputError(
            "losses and savings are finite numbers",
            got=bad[:3] or need,
            fix="does the model give infinite losses or NaN?",
        )
