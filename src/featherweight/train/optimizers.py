"""Gradient descent, SGD and Adam as pure steps over plain parameters:
numbers, arrays, or arrays by name. No torch.

Notation: theta parameters, g gradient, t step (from 1), lr learning rate, mu momentum, b velocity,
m and v moments, beta1, beta2 their decays, lambda weight decay.

Sources: Polyak 1964; Nesterov 1983 in the form of Sutskever et al. 2013 (as torch writes it);
Kingma & Ba 2014, Adam (arXiv:1412.6980), Algorithm 1; Loshchilov & Hutter 2019, AdamW
(arXiv:1711.05101), Algorithm 2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError

Params = Any  # a float, a numpy array, or a dict of these; gradients have the same form


@dataclass(frozen=True)
class State:
    """Steps done, and what the optimizer keeps of each parameter by name:
    in the form of the parameters."""

    step: int = 0
    slots: Mapping[str, Params] = field(default_factory=dict)


class Optimizer(ABC):
    """Abstract. `step(theta, g, state)` gives new parameters and a new state,
    and changes nothing that it was given."""

    def step(self, params: Params, grads: Params, state: State | None = None) -> tuple[Params, State]:
        """One step against the gradient. state: that of the step before, None for the first.

        InputError if parameters and gradients differ in form or a gradient is not finite."""
        _same_form(params, grads, "")
        before = state or State()
        params, slots = self._step(params, grads, before.slots, before.step + 1)
        return params, State(before.step + 1, slots)

    @abstractmethod
    def _step(self, theta: Params, g: Params, slots: Mapping[str, Params], t: int) -> tuple[Params, dict[str, Params]]:
        """New parameters and slots of step `t` (from 1); `slots` is empty at the first."""


@dataclass(frozen=True)
class GradientDescent(Optimizer):
    """theta <- theta - lr g."""

    lr: float = 0.1

    def __post_init__(self) -> None:
        _ranges(self, lr=(self.lr, 0.0, math.inf))

    def _step(self, theta: Params, g: Params, slots: Mapping[str, Params], t: int) -> tuple[Params, dict[str, Params]]:
        return _map(lambda p, d: p - self.lr * d, theta, g), {}


@dataclass(frozen=True)
class Sgd(Optimizer):
    """b <- mu b + g; theta <- theta - lr b, or - lr (g + mu b) with `nesterov`. weight_decay:
    g + lambda theta stands for g."""

    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _ranges(
            self,
            lr=(self.lr, 0.0, math.inf),
            momentum=(self.momentum, 0.0, 1.0),
            weight_decay=(self.weight_decay, 0.0, math.inf),
        )
        if self.nesterov and self.momentum == 0:
            raise InputError("Nesterov's step needs momentum", got="momentum=0", fix="momentum=0.9, or nesterov=False")

    def _step(self, theta: Params, g: Params, slots: Mapping[str, Params], t: int) -> tuple[Params, dict[str, Params]]:
        g = _map(lambda d, p: d + self.weight_decay * p, g, theta)
        b = g if t == 1 else _map(lambda v, d: self.momentum * v + d, slots["velocity"], g)
        move = _map(lambda d, v: d + self.momentum * v, g, b) if self.nesterov else b
        return _map(lambda p, d: p - self.lr * d, theta, move), {"velocity": b}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction; weight_decay is AdamW's, decoupled from the gradient."""

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        decays = {
            "beta1": (self.beta1, 0.0, 1.0),
            "beta2": (self.beta2, 0.0, 1.0),
            "weight_decay": (self.weight_decay, 0.0, math.inf),
        }
        _ranges(self, lr=(self.lr, 0.0, math.inf), eps=(self.eps, 0.0, math.inf), **decays)

    def _step(self, theta: Params, g: Params, slots: Mapping[str, Params], t: int) -> tuple[Params, dict[str, Params]]:
        zero = _map(lambda d: d * 0.0, g)
        m = _map(lambda a, d: self.beta1 * a + (1 - self.beta1) * d, slots.get("m", zero), g)  # Adam, Algorithm 1
        v = _map(lambda a, d: self.beta2 * a + (1 - self.beta2) * d * d, slots.get("v", zero), g)
        # the moments start at 0: m / c1 and v / c2 are without bias (section 3)
        c1, c2 = 1 - self.beta1**t, 1 - self.beta2**t
        kept = 1 - self.lr * self.weight_decay  # AdamW, Algorithm 2, line 12
        return _map(lambda p, a, s: kept * p - self.lr * (a / c1) / ((s / c2) ** 0.5 + self.eps), theta, m, v), {
            "m": m,
            "v": v,
        }


@dataclass(frozen=True)
class Minimum:
    """The best point met, its value, and the value at every point, the start first."""

    x: Params
    value: float
    trace: tuple[float, ...]


def minimize(
    f_and_grad: Callable[[Params], tuple[float, Params]],
    x0: Params,
    optimizer: Optimizer,
    steps: int,
    bounds: tuple[Params, Params] | None = None,
) -> Minimum:
    """`steps` steps down from `x0`; f_and_grad(x) gives value and gradient, in the form of x.

    bounds: (low, high), numbers or in the form of x: each iterate is projected onto the box
    (Bertsekas 1976). InputError if a value or a gradient is not finite, or for a negative
    number of steps.
    """
    if steps < 0:
        raise InputError("the number of steps is negative", got=steps, allowed="0 or more")

    def inside(x: Params) -> Params:
        if bounds is None:
            return x
        low, high = (b if isinstance(b, dict) == isinstance(x, dict) else _map(lambda _, b=b: b, x) for b in bounds)
        return _map(lambda p, a, b: np.clip(p, a, b), x, low, high)

    x, state = inside(x0), State()
    value, grad = f_and_grad(x)
    best, trace = (x, float(value)), [float(value)]
    for _ in range(steps):
        x, state = optimizer.step(x, grad, state)
        x = inside(x)
        value, grad = f_and_grad(x)
        if not math.isfinite(value):
            raise InputError(
                "the value is not finite", got=f"{value} after {state.step} steps", fix="lower the learning rate"
            )
        trace.append(float(value))
        if value < best[1]:
            best = (x, float(value))
    return Minimum(*best, tuple(trace))


def _map(f: Callable[..., Any], first: Params, *others: Params) -> Params:
    if isinstance(first, dict):
        return {k: _map(f, v, *(o[k] for o in others)) for k, v in first.items()}
    return f(first, *others)


def _same_form(theta: Params, g: Params, name: str) -> None:
    if isinstance(theta, dict) and isinstance(g, dict) and theta.keys() == g.keys():
        for k in theta:
            _same_form(theta[k], g[k], f"{name}.{k}" if name else str(k))
        return
    if isinstance(theta, dict) or isinstance(g, dict) or np.shape(theta) != np.shape(g):
        raise InputError(
            f"the gradient {name or 'given'} has another form than the parameter", got=_form(g), allowed=_form(theta)
        )
    if not np.all(np.isfinite(g)):
        raise InputError(f"the gradient {name or 'given'} is not finite", got=_form(g), fix="lower the learning rate")


def _form(x: Params) -> str:
    return f"names {sorted(map(str, x))}" if isinstance(x, dict) else f"shape {list(np.shape(x))}"


def _ranges(optimizer: Any, **fields: tuple[float, float, float]) -> None:
    """InputError if a field is outside [low, high); a learning rate and eps may not be 0 either."""
    for name, (value, low, high) in fields.items():
        if not low <= value < high or (name in ("lr", "eps") and value == 0):
            raise InputError(
                f"{type(optimizer).__name__}.{name} is out of its range",
                got=value,
                allowed=f"a number from {low:g} to below {high:g}",
            )
