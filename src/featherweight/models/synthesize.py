"""Inputs made from nothing but a teacher with batch norm: DeepInversion.

Notation: x [B, C, *spatial] synthetic inputs, y [B] random labels; per batch-norm layer l: mu_l,
var_l [C_l] the mean and (biased) variance of its input over the batch, and mean_l, running_l those
that it kept from its training.
Source: Yin et al. 2020, "Dreaming to Distill" (arXiv:1912.08795): x minimises
CE(teacher(x), y) + R(x) (eq. 1), with R = a_tv R_TV + a_l2 R_l2 (eq. 2) + a_f R_feature (eq. 3),
R_feature = sum_l ||mu_l - mean_l||_2 + sum_l ||var_l - running_l||_2 (eq. 4).
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..seeding import derive
from .hooks import watched

_FEATURE, _TV, _L2 = 1.0, 1e-3, 1e-3  # a_f, a_tv, a_l2, for the priors taken per element
_BATCH = 64


def total_variation(x: Tensor) -> Tensor:
    """The mean squared difference of neighbours along each spatial axis of x [B, C, *spatial],
    summed over the axes (R_TV per element)."""
    total = x.new_zeros(())
    for axis in range(2, x.ndim):
        if x.shape[axis] > 1:
            total = total + torch.diff(x, dim=axis).square().mean()
    return total


class Statistics:
    """While it is entered: keeps R_feature of the module's last forward pass (eq. 4),
    from hooks on its batch-norm layers."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers = [
            path
            for path, m in module.named_modules()
            if isinstance(m, _BatchNorm) and m.running_mean is not None and m.running_var is not None
        ]
        self._terms: list[Tensor] = []
        self._hooks = ExitStack()

    def __enter__(self) -> Statistics:
        self._hooks.enter_context(watched(self.module, before=dict.fromkeys(self.layers, self._watch)))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._terms = []

    def _watch(self, m: Any, args: tuple[Any, ...]) -> None:
        x = args[0].float()  # [B, C] or [B, C, *spatial]
        axes = [i for i in range(x.ndim) if i != 1]
        mean, var = x.mean(axes), x.var(axes, correction=0)
        norm = torch.linalg.vector_norm
        self._terms.append(norm(mean - m.running_mean) + norm(var - m.running_var))

    def loss(self) -> Tensor:
        """R_feature of the pass since the last call: a scalar."""
        total = torch.stack(self._terms).sum()
        self._terms = []
        return total


def synthesize(
    teacher: nn.Module,
    shape: tuple[int, ...],
    n: int,
    *,
    seed: int,
    steps: int = 200,
    lr: float = 0.1,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """(inputs [n, *shape] float32, the labels [n] int64 that they were made for), by `steps` of
    Adam from Gaussian noise.

    teacher: takes [B, *shape] and gives logits [B, classes]; in eval mode, not changed.
    shape: (channels, *spatial). Deterministic for a seed. InputError if the teacher kept no
    batch-norm statistics or gives no logits of classes.
    """
    if n < 1:
        raise InputError("there is nothing to synthesise", got=n, allowed="at least one sample")
    if not Statistics(teacher).layers:
        raise InputError(
            "the teacher keeps no batch-norm statistics, which synthetic inputs are made from",
            got=type(teacher).__name__,
            allowed="a model with BatchNorm layers (track_running_stats=True)",
            fix="give real inputs: data='' or data='FILE.py:NAME'",
        )
    teacher.to(device).eval()
    try:
        with torch.no_grad():
            out = teacher(torch.zeros((1, *shape), device=device))
        if out.ndim != 2 or out.shape[1] < 2:
            raise InputError(
                "synthetic inputs are made for classes",
                got=f"outputs {list(out.shape)}",
                allowed="logits [batch, 2 classes or more]",
            )
        generator = torch.Generator().manual_seed(derive(seed, "synthesize") % 2**63)
        x = np.empty((n, *shape), dtype=np.float32)
        y = torch.randint(out.shape[1], (n,), generator=generator)
        # a last small batch joins the one before: statistics of few samples say little
        for start in range(0, n, _BATCH):
            stop = n if n - start < 2 * _BATCH else start + _BATCH
            noise = torch.randn((stop - start, *shape), generator=generator)
            x[start:stop] = invert(teacher, noise.to(device), y[start:stop].to(device), steps, lr).cpu().numpy()
            if stop == n:
                break
    finally:
        teacher.to("cpu")
    return x, y.numpy()


def invert(teacher: nn.Module, x: Tensor, y: Tensor, steps: int, lr: float) -> torch.Tensor:
    """x [B, C, *spatial] after `steps` of Adam on eq. 1 with a learning rate that falls to 0 as
    half a cosine; the teacher's parameters get no gradients. InputError if the loss is not
    finite."""
    x = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    with Statistics(teacher) as statistics, torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            logits = teacher(x)
            prior = _TV * total_variation(x) + _L2 * x.square().mean()  # eq. 2
            loss = F.cross_entropy(logits, y) + prior + _FEATURE * statistics.loss()  # eq. 1 and 3
            (x.grad,) = torch.autograd.grad(loss, [x])
            optimizer.step()
    if not bool(torch.isfinite(x).all()):
        raise InputError("synthesis diverged", got="inputs that are not finite", fix="lower its learning rate")
    return x.detach()
