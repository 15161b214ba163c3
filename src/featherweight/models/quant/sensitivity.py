"""How much a model suffers when one of its layers is quantized.

Notation: w weight, w_q the weight on a grid, d = w_q - w; g_n gradient of the loss of batch n of N
with respect to w; f outputs [B, ...] of the model in floating point, f_q of the model with one
layer quantized.

fisher    1/2 sum_i F_i d_i^2 with F_i = 1/N sum_n g_n,i^2, the diagonal of the empirical Fisher
          information in place of the Hessian: the second term of the Taylor series of the loss
          (SqueezeLLM, Kim et al. 2023, arXiv:2306.07629, section 4.1; HAWQ-V2, Dong et al. 2019,
          arXiv:1911.03852, has the Hessian's mean eigenvalue in its place). The Fisher information
          proper has one sample a batch.
taylor    sum_i (g_i d_i)^2 with g = 1/N sum_n g_n: squared first-order changes of the loss, weight
          by weight (Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with d in place of -w). Near a
          minimum of the loss g vanishes; then fisher says more.
measured  mean over samples of the distance between f and f_q: KL(softmax(f) || softmax(f_q)) in
          nats for logits, else the mean squared difference.

fisher and taylor see weights only; measured sees what the simulation sees, inputs too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...plan import LayerPlan
from .fake import FLOAT, Simulated

FORMULAS = ("fisher", "taylor")
# weights whose gradients are held at once; larger models take several backward passes a batch
AT_ONCE = 2**27
Batch = tuple[Sequence[Tensor], Tensor]  # inputs, targets


def fisher(g2: Tensor, d: Tensor) -> Tensor:
    """1/2 sum_i F_i d_i^2, a scalar. g2: F, the mean of squared gradients; d: the change of the
    weight; both shaped as the weight."""
    return 0.5 * (g2 * d**2).sum()


def taylor(g: Tensor, d: Tensor) -> Tensor:
    """sum_i (g_i d_i)^2, a scalar. g: the mean gradient; d: the change of the weight;
    both shaped as the weight."""
    return ((g * d) ** 2).sum()


def distance(f: Tensor, f_q: Tensor, logits: bool) -> Tensor:
    """How far f_q [B, ...] is from f, the mean over the batch: KL over the last axis in nats if
    they are logits of several classes, else the mean squared difference."""
    f, f_q = f.float(), f_q.float()
    if not logits or f.shape[-1] == 1:
        return F.mse_loss(f_q, f)
    log_p, log_q = f.log_softmax(-1), f_q.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def mean_gradients(
    module: nn.Module,
    paths: Sequence[str],
    batches: Sequence[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    power: int,
) -> dict[str, Tensor]:
    """1/N sum_n g_n^power of the weight of each named layer, shaped as it; power 1 or 2. A weight
    that the loss does not reach has zeros.

    The module is used in the mode that it is in. InputError for no batches,
    or gradients that are not finite.
    """
    if not batches:
        raise InputError("a sensitivity needs samples", got="no batches")
    weights: dict[str, Any] = {path: module.get_submodule(path).weight for path in paths}
    before = {path: w.requires_grad for path, w in weights.items()}
    total = {path: torch.zeros_like(w, dtype=torch.float32, requires_grad=False) for path, w in weights.items()}
    try:
        for w in weights.values():
            w.requires_grad_(True)
        with torch.enable_grad():
            for inputs, targets in batches:
                found = torch.autograd.grad(loss(module(*inputs), targets), list(weights.values()), allow_unused=True)
                for path, g in zip(weights, found, strict=True):
                    if g is not None:
                        total[path] += g.float() ** power / len(batches)
    finally:
        for path, w in weights.items():
            w.requires_grad_(before[path])
    bad = [path for path, g in total.items() if not bool(torch.isfinite(g).all())]
    if bad:
        raise InputError(
            "gradients that are not finite say nothing",
            got=bad[:10],
            fix="use sensitivity='measured', or mend the model",
        )
    return total


def by_formula(
    simulated: Simulated,
    options: dict[str, list[LayerPlan]],
    batches: Sequence[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    how: str,
) -> dict[str, list[float]]:
    """`fisher` or `taylor` of every option of every layer: {path: [one value an option]}.
    The simulation must be in floating point.

    loss: (outputs, targets) -> scalar. Layers are taken in runs of at most `AT_ONCE` weights, each
    with its own backward passes.
    """
    formula, power = {"fisher": (fisher, 2), "taylor": (taylor, 1)}[how]
    out: dict[str, list[float]] = {}
    for run in _runs(simulated.module, list(options)):
        gradients = mean_gradients(simulated.module, run, batches, loss, power)
        for path in run:
            w: Any = simulated.module.get_submodule(path).weight
            changes = [simulated.rounded(path, entry).float() - w.detach().float() for entry in options[path]]
            out[path] = [float(formula(gradients[path], d)) for d in changes]
            del gradients[path]
    return out


def measured(
    simulated: Simulated, options: dict[str, list[LayerPlan]], batches: Sequence[Sequence[Tensor]], logits: bool
) -> dict[str, list[float]]:
    """`measured` of every option of every layer, {path: [one value an option]}: each layer is
    quantized alone, all others in floating point.

    The simulation is left as it was. InputError if there are no batches or the
    outputs are not finite.
    """
    before = dict(simulated.layers)
    simulated.apply({path: FLOAT for path in before})
    expected = outputs(simulated.module, batches)
    out: dict[str, list[float]] = {}
    for path, entries in options.items():
        out[path] = []
        for entry in entries:
            simulated.set(path, entry)
            # 32 bits change nothing; what a run would give is 0.
            got = expected if entry.bits == 32 else outputs(simulated.module, batches)
            # KL >= 0; sums of float32 may end just below
            out[path].append(max(float(distance(expected, got, logits)), 0.0))
            simulated.set(path, FLOAT)
    simulated.apply(before)
    bad = [path for path, values in out.items() if not all(math.isfinite(v) for v in values)]
    if bad:
        raise InputError("outputs that are not finite say nothing of a layer's sensitivity", got=bad[:10])
    return out


def outputs(module: nn.Module, batches: Sequence[Sequence[Tensor]]) -> Tensor:
    """The module's outputs [N, ...] for all batches, without gradients."""
    if not batches:
        raise InputError("a sensitivity needs samples", got="no batches")
    with torch.no_grad():
        return torch.cat([module(*inputs) for inputs in batches])


def _runs(module: nn.Module, paths: list[str]) -> list[list[str]]:
    """The paths in their order, cut where more than `AT_ONCE` weights would come together."""
    runs: list[list[str]] = []
    size = 0
    for path in paths:
        n = int(module.get_submodule(path).weight.numel())  # type: ignore[operator]
        if not runs or size + n > AT_ONCE:
            runs, size = [*runs, []], 0
        runs[-1].append(path)
        size += n
    return runs
