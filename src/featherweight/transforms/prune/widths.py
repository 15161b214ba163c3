"""How many units of each group stay under one ranking over all groups, and which go.

Notation: a group has U units of `size` channels now, `full` units before any pruning, and
importance s [U]; keep: share of channels that stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...models.groups import Group


def rounded(keep: float, group: Group, round_to: int) -> int:
    """The number of units that stays where the ranking says `keep`: channels are a multiple of
    `round_to` (as near as can be), at least one such multiple; a group of fewer channels than that
    is left whole. Of heads any whole number stays, at least one."""
    step = 1 if group.kind == "head" else round_to // math.gcd(round_to, group.size)
    return min(max(round(keep / step) * step, step), len(group.units))


def least(importance: Tensor, keep: int) -> list[int]:
    """The units of least importance, all but `keep`; of equals the first."""
    return sorted(importance.argsort(stable=True)[: len(importance) - keep].tolist())


def ranked(importance: Sequence[Tensor], sizes: Sequence[int], full: Sequence[int], keep: float) -> list[float]:
    """Units that stay in each group under one ranking over all units,
    so that `keep` of all channels stay.

    Each group's importance is divided by its mean, so that groups of different scale
    can be compared.
    """
    if not importance:
        return []
    scaled = [s / s.mean().clamp(min=1e-30) for s in importance]
    every = torch.cat(scaled)  # [sum U]
    channels = torch.cat([torch.full((len(s),), n) for s, n in zip(importance, sizes, strict=True)])  # [sum U]
    order = every.argsort(stable=True)
    # channels that must go now
    gone = int(channels.sum()) - round(keep * sum(n * f for n, f in zip(sizes, full, strict=True)))
    n_cut = int((channels[order].cumsum(0) <= gone).sum())
    if n_cut == len(every):
        return [0.0] * len(scaled)
    floor = every[order[n_cut]]  # of units that tie with it, every group gives up the same share
    below, tied = ([int(x.sum()) for x in each] for each in ([s < floor for s in scaled], [s == floor for s in scaled]))
    share = (n_cut - sum(below)) / sum(tied)
    return [len(s) - b - t * share for s, b, t in zip(scaled, below, tied, strict=True)]
