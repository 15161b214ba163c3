"""Putting the weights of a model on the grids of its plan, layer by layer in forward order.

Each layer is rounded for the inputs that it gets from the layers already rounded before it
(Frantar et al. 2022, arXiv:2210.17323, section 4). A method that has to know them runs the
calibration samples from the model's start up to each layer: its time grows with the square of the
depth, its memory with the largest layer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..computed import WHY, computed
from .bias import correction
from .gptq import gptq
from .grid import Grid, fit, nearest
from .inputs import Batches, Inputs, collect
from .layers import is_convolution
from .ranges import search
from .trace import Flow

FIND = {"minmax": fit, "mse": search}


@dataclass(frozen=True)
class Rounding:
    """method: `nearest` or `gptq`; range: how scales are found, `minmax` or `mse`; order: gptq
    takes the columns with the largest inputs first; correct_bias: take back the mean shift of each
    layer's output."""

    method: str = "nearest"
    range: str = "minmax"
    order: bool = False
    correct_bias: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """What it has to know of a layer's inputs."""
        return frozenset({"hessian"} if self.method == "gptq" else ()) | frozenset(
            {"mean"} if self.correct_bias else ()
        )


def round_weights(
    module: nn.Module, grids: dict[str, Grid], flow: Flow, batches: Batches, how: Rounding, sparse: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Round the Linear layers and convolutions `grids` in place. ({PATH.weight.scale,
    PATH.weight.zero (asymmetric only)}, {path: what could not be done there}).

    sparse: parameters whose zeros stay zero. Left as they are, for the target to round: layers
    whose weight is used elsewhere too, or is computed. A layer that did not run in the trace is
    rounded to nearest.
    """
    scales: dict[str, Tensor] = {}
    left = {path: "its weight is used elsewhere too: the target rounds it" for path in grids if path in flow.tied}
    left |= {p: f"{WHY}: the target rounds it" for p in grids if computed(module.get_submodule(p))}
    ran = [[p for p in stage if p in grids and p not in left] for stage in flow.stages]
    idle = [[p] for p in grids if p not in left and not any(p in stage for stage in ran)]
    for stage in [*filter(None, ran), *idle]:
        needs = how.needs if stage not in idle else frozenset[str]()
        once = not flow.repeated & set(stage)
        seen = collect(module, stage, needs, batches, once=once) if needs else {}
        for path in stage:
            scale, zero, problem = _round_layer(
                module, path, grids[path], seen.pop(path, None), flow, how, f"{path}.weight" in sparse
            )
            scales[f"{path}.weight.scale"] = scale
            if not grids[path].symmetric:
                scales[f"{path}.weight.zero"] = zero
            if problem:
                left[path] = problem
            elif how.needs and not needs:
                left[path] = "it does not run by itself on the calibration inputs: rounded to nearest"
    return scales, left


def _round_layer(
    module: nn.Module, path: str, grid: Grid, seen: Inputs | None, flow: Flow, how: Rounding, sparse: bool
) -> tuple[Tensor, Tensor, str | None]:
    """(s, z, what could not be done)."""
    layer: Any = module.get_submodule(path)
    before = layer.weight.detach().float().clone()
    if how.method == "gptq" and seen is not None:
        groups = layer.groups if is_convolution(layer) else 1
        after, s, z = _by_group(before, seen.hessian, grid, groups, how, sparse)
    else:
        s, z = FIND[how.range](before, grid)
        after = nearest(before, s, z, grid)
    with torch.no_grad():
        layer.weight.copy_(after)
    if not how.correct_bias or seen is None:
        return s.cpu(), z.cpu(), None
    problem = shift_bias(module, path, flow.batch_norms.get(path), correction(before, after, seen.mean))
    return s.cpu(), z.cpu(), problem


def _by_group(
    w: Tensor, hessian: Tensor, grid: Grid, groups: int, how: Rounding, sparse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """GPTQ of a weight [O, I, *k] with H [G, n, n], one convolution group at a time. (w', s, z)."""
    find = FIND[how.range]
    whole = find(w, grid) if grid.granularity == "tensor" else None
    out, scales, zeros = [], [], []
    for rows, h in zip(w.flatten(1).chunk(groups), hessian, strict=True):
        q, s, z = gptq(rows, h, grid, scales=whole, find=find, zeros=rows == 0 if sparse else None, order=how.order)
        out.append(q)
        scales.append(s)
        zeros.append(z)
    s, z = whole if whole is not None else (torch.cat(scales), torch.cat(zeros))
    return torch.cat(out).reshape(w.shape), s, z


def shift_bias(module: nn.Module, path: str, norm: str | None, shift: Tensor) -> str | None:
    """Add `shift` [O] to the layer's bias, or take it off the mean of the batch norm behind it;
    the reason if there is neither."""
    layer: Any = module.get_submodule(path)
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias.add_(shift)
        elif norm is not None:
            module.get_buffer(f"{norm}.running_mean").sub_(shift)
        else:
            return "it has no bias to correct"
    return None
