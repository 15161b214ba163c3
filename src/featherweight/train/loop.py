"""The one training loop: Train, Distill and every recovery step run it.

Notation: B batch size, N samples of the split, `index` [B] the samples of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.computed import refresh
from ..seeding import derive
from ..task.data import Split
from ..task.tensors import as_tensor
from .checkpoint import Position, Rungs, Training

# (outputs, targets, index) -> scalar loss
Objective = Callable[[Tensor, Tensor, np.ndarray], Tensor]


@dataclass(frozen=True)
class Settings:
    """epochs over the split; lr: peak learning rate; warmup:
    fraction of all steps spent rising to it linearly."""

    epochs: int
    lr: float
    batch_size: int
    optimizer: str = "adamw"
    schedule: str = "cosine"
    weight_decay: float = 0.0
    momentum: float = 0.9
    warmup: float = 0.0


def learning_rate(step: int, steps: int, settings: Settings) -> float:
    """The learning rate of step `step` (from 0) of `steps`:
    linear warm-up, then constant, linear or half a cosine to 0."""
    rising = int(settings.warmup * steps)
    if step < rising:
        return settings.lr * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "linear":
        return settings.lr * (1 - done)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(module: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD with momentum, Adam or AdamW. Weight decay spares biases and normalisation
    (tensors of one axis), as is usual."""
    decayed = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    spared = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    return (
        torch.optim.Adam(groups, lr=settings.lr)
        if settings.optimizer == "adam"
        else torch.optim.AdamW(groups, lr=settings.lr)
    )


def batches(
    split: Split, size: int, rng: np.random.Generator, device: str, skip: int = 0
) -> Iterator[tuple[list[Tensor], Tensor, np.ndarray]]:
    """One shuffled pass: (inputs in order, targets, index). skip:
    so many batches are left out at its beginning."""
    order = rng.permutation(len(split))
    for start in _starts(len(order), size)[skip:]:
        index = order[start : start + size]
        yield *tensors(split, index, device), index


def _starts(n: int, size: int) -> range:
    """Where the batches of a pass begin. A last batch of one sample is left out, because batch norm
    cannot use it, unless each has one."""
    return range(0, n if size == 1 or n == 1 else n - 1, size)


def tensors(split: Split, index: np.ndarray, device: str) -> tuple[list[Tensor], Tensor]:
    """The samples `index` of a split as tensors: (inputs in order, targets)."""
    inputs, targets = split.batch(index)
    return [as_tensor(v, device) for v in inputs.values()], as_tensor(targets, device)


def fit(
    module: nn.Module,
    split: Split,
    objective: Objective,
    settings: Settings,
    *,
    seed: int,
    device: str = "cpu",
    report: Callable[[dict[str, Any]], None] = lambda _: None,
    sparse: Sequence[str] = (),
    extra: nn.Module | None = None,
    rungs: Rungs | None = None,
) -> float:
    """Train `module` in place and leave it in eval mode on the CPU;
    returns the mean loss of the last epoch.

    sparse: names of parameters whose zeros stay zero. extra: what the objective needs trained along
    (projections), in place, too.
    rungs: where it may have to pause (`train.checkpoint`); it goes on from a checkpoint if there is
    one, to the same weights, bit for bit.

    The global torch generator (dropout) is seeded inside and restored after. InputError if the loss
    is not finite or all of the module is frozen, Paused if it has to wait.
    """
    if settings.epochs == 0 or len(split) == 0:
        return math.nan
    rng = np.random.default_rng(derive(seed, "order"))
    module.to(device).train()
    if not any(p.requires_grad for p in module.parameters()):
        raise InputError(
            "the model has nothing to train",
            got="every parameter is frozen (requires_grad=False), or it has none",
            fix="leave some parameters free in the model's builder, or leave this step out",
        )
    learned = module if extra is None else torch.nn.ModuleList([module, extra.to(device)])
    optimizer = make_optimizer(learned, settings)
    masks = [(p, p.detach() != 0) for p in (module.get_parameter(name) for name in sparse)]
    per_epoch = len(_starts(len(split), settings.batch_size))
    steps = settings.epochs * per_epoch
    training = Training(module, learned, optimizer, rng, seed, device, settings.epochs, per_epoch)
    at, mean = Position(), math.nan
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(derive(seed, "torch") % 2**63)
        if rungs is not None:
            at = rungs.restore(training)
        for epoch in range(at.epoch, settings.epochs):
            order = dict(rng.bit_generator.state)
            total, seen, step = at.total, at.seen, at.step
            for batch, (inputs, targets, index) in enumerate(
                batches(split, settings.batch_size, rng, device, at.batch), at.batch
            ):
                if rungs is not None:
                    rungs.visit(training, order, Position(epoch, batch, step, total, seen))
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, steps, settings)
                loss = objective(module(*inputs), targets, index)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(learned.parameters(), 5.0)
                optimizer.step()
                for parameter, mask in masks:
                    parameter.data.mul_(mask)
                total, seen, step = total + float(loss.detach()) * len(index), seen + len(index), step + 1
            at, mean = Position(epoch + 1, 0, step), total / max(seen, 1)
            if not math.isfinite(mean):
                raise InputError(
                    "training diverged",
                    got=f"loss {mean} in epoch {epoch + 1}",
                    fix=f"lower the learning rate (now {settings.lr})",
                )
            report({"step": "train", "epoch": epoch + 1, "of": settings.epochs, "loss": mean})
    learned.zero_grad(set_to_none=True)
    learned.to("cpu")
    module.eval()
    refresh(module)
    return mean


def predict(module: nn.Module, split: Split, device: str = "cpu", size: int = 64) -> np.ndarray:
    """The module's outputs [N, ...] for every sample of a split, in order."""
    module.to(device).eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(split), size):
            inputs, _ = tensors(split, np.arange(start, min(start + size, len(split))), device)
            out.append(module(*inputs).float().cpu().numpy())
    module.to("cpu")
    return np.concatenate(out)


def mean_loss(
    module: nn.Module, split: Split, loss: Callable[[Tensor, Tensor], Tensor], device: str = "cpu", size: int = 64
) -> float:
    """The mean of `loss`(outputs, targets) over the samples of a split; the module is left in eval
    mode, on the CPU."""
    module.to(device).eval()
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(split), size):
            index = np.arange(start, min(start + size, len(split)))
            inputs, targets = tensors(split, index, device)
            total += float(loss(module(*inputs), targets)) * len(index)
    module.to("cpu")
    return total / len(split)
