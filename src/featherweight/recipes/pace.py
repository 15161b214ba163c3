"""How long a training of a task's model takes, from a few timed steps.

What is decided by it (which recipe fits the minutes, how many epochs) must not hang on what else
the machine does at that moment. So steps are timed on one thread, by its processor time: several
threads wait for each other at every layer, and for long if another program has one of their cores.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TaskError

if TYPE_CHECKING:
    from ..task.task import Task

_SLOW = 1.0  # seconds of a step from which on no larger one is tried
_STEPS, _ENOUGH = 3, 0.7  # that are timed at least, and seconds for more of them
_GAIN = 0.7  # k threads are as fast as k^0.7 of one


@dataclass(frozen=True)
class Pace:
    """Seconds a sample: of a training step, and of a forward pass alone, the least of those timed,
    which others disturbed least; samples: of a timed step."""

    train: float
    forward: float
    samples: int


def pace(task: Task, net: Any = None, threads: int = 1) -> Pace:
    """Of the task's model, or of a described net, on so many threads of a machine that does nothing
    else. Steps of 64 samples, or of fewer if they are slow."""
    import torch

    from ..train.loop import tensors

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = (task.build() if net is None else net.build(0)).train()
        if not any(p.requires_grad for p in module.parameters()):
            raise TaskError(
                "nothing in this model can be trained",
                got=f"{len(list(module.parameters()))} parameters, none that takes a gradient",
                fix="a recipe that trains nothing: recipe=fw.recipes.ptq(); or parameters with requires_grad",
            )
        split = task.splits().train
        for n in (2, 8, 32, 64):
            n = min(n, len(split))
            x, y = tensors(split, np.arange(n), "cpu")
            # the first of a shape is slow, and one may be disturbed
            rows = [_timed(task, module, x, y) for _ in range(3)]
            if n == len(split) or 4 * n * min(map(sum, rows)) > _SLOW:
                break
        rows, until = rows[1:], time.perf_counter() + _ENOUGH
        while len(rows) < _STEPS or time.perf_counter() < until:
            rows.append(_timed(task, module, x, y))
    finally:
        torch.set_num_threads(before)
    gain = threads**_GAIN
    return Pace(min(r[0] for r in rows) / gain, min(r[1] for r in rows) / gain, n)


def _timed(task: Task, module: Any, x: Any, y: Any) -> tuple[float, float]:
    """Processor seconds a sample of one training step, and of one forward pass. Gradients are not
    used."""
    import torch

    start = time.process_time()
    task.loss_fn(module(*x), y).backward()  # type: ignore[no-untyped-call]
    middle = time.process_time()
    with torch.inference_mode():
        module(*x)
    return (middle - start) / len(y), (time.process_time() - middle) / len(y)
