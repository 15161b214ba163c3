"""AWQ: scale up the weights of the inputs that are large on average,
so that rounding hurts them less.

Lin et al. 2023, arXiv:2306.00978, section 3.2. Notation: W [O, I], x inputs with mean magnitude s_X
[C], H [I, I] = E[x x^T], s = s_X^a scales by input channel, Q rounding: a* = argmin_a
||Q(W diag(s)) (diag(s)^-1 X) - W X|| (eq. 4-5). The norm is taken through H: E||D
x||^2 = tr(D H D^T), with D = Q(W diag(s)) diag(s)^-1 - W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .grid import Grid, fit, nearest
from .inputs import Batches, collect
from .pairs import Pair, by_channel, rescale

POINTS = 20  # values of a: 0, 1/20 .. 19/20, as in the published code


def output_error(w: Tensor, hessian: Tensor, s: Tensor, grid: Grid) -> float:
    """E||Q(W diag(s)) diag(s)^-1 x - W x||^2. s [I]."""
    scaled = w * s
    d = nearest(scaled, *fit(scaled, grid), grid) / s - w  # [O, I]
    return float(((d @ hessian) * d).sum())


def scales(magnitude: Tensor, a: float) -> Tensor:
    """s [C] = s_X^a, divided by sqrt(max s min s) so that it is around 1 (the published code);
    1 for inputs that are always zero."""
    s = torch.ones_like(magnitude)
    alive = magnitude > 0
    if bool(alive.any()):
        power = magnitude[alive].pow(a).clamp(min=1e-4)
        s[alive] = power / (power.max() * power.min()).sqrt()
    return s


def search(layers: list[tuple[Tensor, Tensor, Tensor, Grid]], magnitude: Tensor) -> tuple[Tensor, float]:
    """(s [C], a) with the least sum of output errors of `layers`: (W [O, I], H [I, I], channel [I]
    of each input, grid). magnitude: s_X [C].

    a = 0 leaves the weights as they are, so the error is never larger than without scales.
    """
    best: tuple[float, Tensor, float] | None = None
    for i in range(POINTS):
        s = scales(magnitude, i / POINTS)
        error = sum(output_error(w, h, s[c], grid) for w, h, c, grid in layers)
        if best is None or error < best[0]:
            best = (error, s, i / POINTS)
    return (best[1], best[2]) if best is not None else (torch.ones_like(magnitude), 0.0)


def awq(module: nn.Module, pairs: list[Pair], grids: dict[str, Grid], batches: Batches) -> dict[str, float]:
    """Scale the pairs whose consumers are all Linear layers with a grid, in place, one pair's
    inputs at a time. {producer: a*}."""
    found: dict[str, float] = {}
    for pair in pairs:
        paths = [c.path for c in pair.consumers]
        if any(not isinstance(module.get_submodule(p), torch.nn.Linear) or p not in grids for p in paths):
            continue
        seen = collect(module, paths, {"hessian", "absmean"}, batches, once=True)
        magnitude = torch.stack(
            [by_channel(seen[c.path].absmean, c.channel, pair.channels) for c in pair.consumers]
        ).amax(0)
        layers = [(_weight(module, c.path), seen[c.path].hessian[0], c.channel, grids[c.path]) for c in pair.consumers]
        s, found[pair.producer] = search(layers, magnitude)
        rescale(module, pair, s)
    return found


def _weight(module: nn.Module, path: str) -> Tensor:
    return module.get_parameter(f"{path}.weight").detach().float()
