"""What a search would take: the space, and the time and memory of a trial,
from a few timed training steps."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Any

import numpy as np

from ..recipe import Candidate, Recipe, decode
from ..space import Domain, Space, resolve
from ..task.task import Task
from .config import Config

_STEPS = 3  # training steps that are timed, after one to warm up
# export, starting the measuring process and loading the runtime:
# the middle of what trials took here (1 to 10)
_FIXED_S = 4.0


def forecast(task: Task, config: Config) -> dict[str, Any]:
    """{"space", "size", "trial_s", "baseline_s", "total_s", "memory_bytes", "how"}; trains nothing
    to the end and writes nothing.

    trial_s: seconds of a trial whose holes have their middle values, nothing reused; memory_bytes:
    peak of this process after the timed steps, as a worker has it.
    """
    space = Space(Candidate(decode(config.recipe), decode(config.target.choice)))

    def middle(path: str, domain: Domain) -> Any:
        options = domain.options(3) or []
        return options[len(options) // 2]

    usual: Recipe = resolve(space.tree, middle).recipe
    step_s, forward_s = _time_steps(task, _net(usual), config.train_threads)
    n_train, n_valid = len(task.splits().train), len(task.splits().valid)
    first = Recipe.from_json(config.baseline) if config.baseline else task.baseline or Recipe()
    if _net(first) is not _net(usual):
        baseline_s = _training_s(first, n_train, *_time_steps(task, _net(first), config.train_threads))
    else:
        baseline_s = _training_s(first, n_train, step_s, forward_s)
    measure_s = _FIXED_S + config.measure_seconds + n_valid * forward_s
    trial_s = _training_s(usual, n_train, step_s, forward_s) + measure_s
    all_trials = (
        min(space.size, config.budget.trials or space.size) * trial_s / config.workers + baseline_s + 4 * measure_s
    )
    total_s = min(all_trials, (config.budget.minutes or float("inf")) * 60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "space": [{"path": h.path, "domain": str(h.domain), "when": [list(w) for w in h.when]} for h in space],
        "size": "inf" if space.size == float("inf") else space.size,
        "trial_s": trial_s,
        "baseline_s": baseline_s,
        "total_s": total_s,
        "memory_bytes": peak,
        "how": (
            f"{_STEPS} training steps of 64 samples were timed on {config.train_threads} threads; a trial is taken "
            "with the middle value of every hole and nothing reused, so a search whose candidates share "
            "beginnings takes less"
        ),
    }


def _net(recipe: Recipe) -> Any:
    """The description that the recipe builds, None if it begins with the task's own model."""
    return getattr(recipe.steps[0], "net", None) if recipe.steps and recipe.steps[0].starts else None


def _time_steps(task: Task, net: Any, threads: int) -> tuple[float, float]:
    """Median seconds a training sample and a forward sample take,
    of the task's model or of a described net."""
    import torch

    from ..train.loop import tensors

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        module = (task.build() if net is None else net.build(0)).train()
        split = task.splits().train
        x, y = tensors(split, np.arange(min(64, len(split))), "cpu")
        trained, forward = [], []
        for _ in range(_STEPS + 1):
            start = time.perf_counter()
            task.loss_fn(module(*x), y).backward()  # type: ignore[no-untyped-call]
            trained.append((time.perf_counter() - start) / len(y))
            with torch.inference_mode():
                start = time.perf_counter()
                module(*x)
                forward.append((time.perf_counter() - start) / len(y))
    finally:
        torch.set_num_threads(before)
    return statistics.median(trained[1:]), statistics.median(forward[1:])


def _training_s(recipe: Recipe, n: int, step_s: float, forward_s: float) -> float:
    """Seconds of a filled recipe's training: epochs * samples * seconds a sample, with the
    teacher's forward pass for Distill."""
    total = 0.0
    for step in recipe.steps:
        total += getattr(step, "epochs", 0) * n * step_s
        total += n * forward_s if step.teaches else 0.0
    return total
