"""Learned step size quantization: weights and activations are rounded in training, and the step of
each grid is trained with them.

LSQ: Esser et al. 2020, arXiv:1902.08153. LSQ+: Bhalgat et al. 2020, arXiv:2004.09576,
for asymmetric activations.

Notation: v a weight or an activation; s step (scale) of its grid; Q_N, Q_P numbers of steps below
and above zero; N_W weights, N_F features that share a step; g gradient scale. Grids here are
integer: codes low..high with zero point z, so Q_N = z - low and Q_P = high - z, and
v^ = clip(round(v / s), -Q_N, Q_P) s. LSQ+ (eq. 1-2) has a real offset beta; runtimes need beta = -z
s, and z stays as calibrated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...errors import InputError
from ..hooks import watched
from . import grid as grids
from .activations import InputGrid
from .grid import Grid

_SAME = 1e-3  # largest change of the outputs, relative to their range, that folding norms may make
_INPUT = "lsq_input"  # the name under which a layer holds the step of its input while it is trained
_FAINTEST = 1e-4  # a channel's first step is at least this share of its layer's largest
_FINEST = 1e-8  # the smallest first step of all


class _Quantize(torch.autograd.Function):
    """v^ of v with step s, which broadcasts against v; the step's gradient is multiplied by g."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, s: Tensor, n: int, p: int, g: Tensor) -> Tensor:
        ctx.save_for_backward(v, s, g)
        ctx.ends = n, p
        return (v / s).clamp(-n, p).round() * s  # LSQ eq. 1 and 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, s, g = ctx.saved_tensors
        n, p = ctx.ends
        x = v / s
        inside = (x > -n) & (x < p)
        # LSQ eq. 3: -v/s + round(v/s), -Q_N or Q_P
        ds = torch.where(inside, x.round() - x, x.clamp(-n, p))
        grad_s = (grad * ds).sum_to_size(s.shape) * g
        # LSQ eq. 5: straight through inside, nothing outside
        return grad * inside, grad_s, None, None, None


def quantize(v: Tensor, s: Tensor, n: int, p: int, g: float | Tensor = 1.0) -> Tensor:
    """v^ [as v] = clip(round(v / s), -n, p) s, with LSQ's gradients (eq. 3 for s, eq. 5 for v).
    s: one step, or steps that broadcast against v;
    g: what the gradient of s is multiplied by (`gradient_scale`)."""
    return _Quantize.apply(v, s, n, p, torch.as_tensor(g, dtype=s.dtype, device=s.device))  # type: ignore[no-any-return, no-untyped-call]


def gradient_scale(count: int, p: int) -> float:
    """g = 1 / sqrt(N Q_P) (LSQ, section 2.2), so that steps and weights move alike,
    relative to their size."""
    return float(1 / (max(count, 1) * max(p, 1)) ** 0.5)


def first_step(w: Tensor, grid: Grid, start: str) -> Tensor:
    """The step that training starts from, [O] or [1]. `lsq`: 2 <|w|> / sqrt(Q_P)
    (LSQ, section 2.1); `minmax`: max|w| / Q_P.

    LSQ's formula suits few bits: at 8 bits its grid reaches to about 18 <|w|>, far more than
    weights need, and short training does not mend it.
    """
    if start == "minmax":
        return grids.fit(w, grid)[0]
    rows = grids.blocks(w.detach().float(), grid)
    s: Tensor = (2 * rows.abs().mean(-1) / grid.high**0.5).reshape(-1).clamp(min=grids.SMALLEST)
    return s


class Step(nn.Module):
    """A learned step: s = unit * |ratio|, where ratio starts at 1. Abstract in use:
    `WeightStep`, `InputStep`.

    An adaptive optimizer (Adam) moves each number by about lr whatever its gradient, which for a
    raw step of 0.001 would be ruin; it moves the ratio instead. g / unit^2 in place of g makes SGD
    move s exactly as it does in LSQ: ds = unit dratio = -lr unit (g / unit^2) (dL/ds unit).
    """

    def __init__(self, unit: Tensor) -> None:
        super().__init__()
        self.unit: Tensor
        self.register_buffer("unit", unit)
        self.ratio = nn.Parameter(torch.ones_like(unit))

    def value(self) -> Tensor:
        """s, in the shape of `unit`."""
        s: Tensor = (self.unit * self.ratio.abs()).clamp(min=grids.SMALLEST)
        return s

    def scaled(self, g: float) -> Tensor:
        out: Tensor = g / self.unit**2
        return out


class WeightStep(Step):
    """Parametrization of a layer's weight [O, ...]: symmetric,
    one step or one for each output channel."""

    def __init__(self, w: Tensor, grid: Grid, start: str) -> None:
        unit = first_step(w, grid, start)
        # A channel of zeros has no step of its own, and one next to none would have a
        # gradient without bounds.
        super().__init__(unit.clamp(min=max(float(unit.max()) * _FAINTEST, _FINEST)))
        self.grid = grid

    def forward(self, w: Tensor) -> Tensor:
        shape = (-1, *[1] * (w.ndim - 1))
        g = gradient_scale(w.numel() // self.unit.numel(), self.grid.high)
        return quantize(w, self.value().reshape(shape), -self.grid.low, self.grid.high, self.scaled(g).reshape(shape))


class InputStep(Step):
    """Of the input of one layer, or of several that read the same tensor.
    The zero point stays as it was calibrated."""

    def __init__(self, start: InputGrid) -> None:
        super().__init__(torch.tensor([max(start.scale, _FINEST)]))
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        n, p = self.start.zero - self.start.low, self.start.high - self.start.zero
        g = gradient_scale(x[0].numel() if len(x) else 1, p)
        return quantize(x, self.value(), n, p, self.scaled(g))


def attach(
    module: nn.Module, groups: Iterable[list[str]], grid: Grid, inputs: dict[str, InputGrid], start: str = "minmax"
) -> None:
    """Make each named layer compute with a rounded weight and, if `inputs` has it, a rounded input.
    In place; `detach` ends it.

    groups: layers that read the same tensor, and so share its step (`activations.same_inputs`).
    The weight moves to `trained_name`.
    """
    for paths in groups:
        shared = InputStep(inputs[paths[0]]) if paths[0] in inputs else None
        for path in paths:
            layer = module.get_submodule(path)
            parametrize.register_parametrization(layer, "weight", WeightStep(layer.weight, grid, start))  # type: ignore[arg-type]
            if shared is not None:
                shared.to(layer.weight.device)  # type: ignore[arg-type]
                layer.add_module(_INPUT, shared)
                layer.register_forward_pre_hook(_round_input)


def _round_input(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (layer.get_submodule(_INPUT)(args[0]), *args[1:])


def trained_name(path: str) -> str:
    """What the parameter that is trained for the weight of a layer is called between
    `attach` and `detach`."""
    return f"{path}.parametrizations.weight.original"


def detach(module: nn.Module, paths: Iterable[str]) -> dict[str, Tensor]:
    """End what `attach` began: ordinary layers, their weights on the grid. In place. Returns the
    scales of a plan (`plan`): PATH.weight.scale [O] or [1], PATH.input.scale [1] and
    PATH.input.zero [1] (float32)."""
    scales: dict[str, Tensor] = {}
    for path in paths:
        layer: Any = module.get_submodule(path)
        scales[f"{path}.weight.scale"] = layer.parametrizations.weight[0].value().detach().float().cpu().clone()
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        if "bias" in layer._parameters:  # back to the usual order, weight first
            layer._parameters["bias"] = layer._parameters.pop("bias")
        if _INPUT in layer._modules:
            step: InputStep = layer._modules.pop(_INPUT)
            scales[f"{path}.input.scale"] = step.value().detach().float().cpu().clone()
            scales[f"{path}.input.zero"] = torch.tensor([float(step.start.zero)])
            for number, hook in list(layer._forward_pre_hooks.items()):
                if hook is _round_input:
                    del layer._forward_pre_hooks[number]
    return scales


def absorb_norms(module: nn.Module, paths: Iterable[str], batch: tuple[Tensor, ...]) -> list[str]:
    """Move the scale of each batch norm that directly follows a named Linear or convolution into
    that layer's weight. In place; the function (in eval mode) stays. Returns the paths of the
    norms, which then only add: gamma = 1, variance 1 - eps, mean and beta as they have to be.

    An exporter that folds norms then leaves the weights as they are, which a grid of one scale for
    the whole tensor needs (Jacob et al. 2018, arXiv:1712.05877, eq. 14: w_fold = gamma
    w / sqrt(var + eps)).
    InputError if that would change what the model computes: a layer's output is read by
    more than its norm.
    """
    made: dict[int, str] = {}
    uses: dict[int, list[str]] = {}
    alive: list[Tensor] = []
    names = {
        m: path
        for path, m in module.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_var is not None
    }

    def after(path: str, _: nn.Module, __: Any, out: Tensor) -> None:
        alive.append(out)
        made[id(out)] = path

    def before(norm: nn.Module, args: tuple[Any, ...]) -> None:
        if id(args[0]) in made:
            uses.setdefault(id(args[0]), []).append(names[norm])  # type: ignore[index]

    hooks = {path: partial(after, path) for path in paths}
    with torch.no_grad(), watched(module, hooks, before=dict.fromkeys(names.values(), before)):
        expected = module.eval()(*batch)
    once = Counter(made.values())
    pairs = {made[key]: found[0] for key, found in uses.items() if len(found) == 1 and once[made[key]] == 1}
    for path, norm in pairs.items():
        _absorb(module.get_submodule(path), module.get_submodule(norm))
    with torch.no_grad():
        error = float((module(*batch) - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not error <= _SAME:
        raise InputError(
            "batch norms cannot be folded into the layers before them in this model",
            got=f"its outputs change by {error:.2g} of their range",
            fix="use granularity='channel', which needs no folding",
        )
    return sorted(pairs.values())


def _absorb(layer: Any, norm: Any) -> None:
    with torch.no_grad():
        gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
        factor = gamma / (norm.running_var + norm.eps).sqrt()
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.mul_(factor)
        norm.running_mean.mul_(factor)
        norm.running_var.fill_(1 - norm.eps)
        if norm.weight is not None:
            norm.weight.fill_(1.0)
