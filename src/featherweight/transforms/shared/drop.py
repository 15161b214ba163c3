"""What transforms that judge their own results share: a module's drop in the task's metric on the
validation split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...measure.accuracy import metric_of
from ...measure.race import Verdict, race
from ...seeding import generator
from ..base import Context

if TYPE_CHECKING:
    from torch import nn

    from ...models.package import Package

_BATCH = 64


def runnable(package: Package, context: Context) -> nn.Module:
    """The module to judge: the package's own, or, if it has a plan, one that computes as its plan
    will (on the samples that calibrate it)."""
    if package.plan is None:
        return package.module
    from ...machine import saturates
    from ...models.quant.fake import simulate

    rows = {}
    # the very samples that the exported file is calibrated with
    if package.plan.scheme == "int8-static":
        samples, seed = package.plan.draw()
        rows = replace(context, seed=seed, device="cpu").calibration(samples)
    return simulate(package, rows, saturates())


def baseline_scores(module: nn.Module, context: Context) -> np.ndarray | float:
    """The task's metric of `module` on the validation split: one value a sample [N], or one number
    for a metric that is no mean."""
    from ...train.loop import predict

    valid = context.splits.valid
    return metric_of(context.task).scores(predict(module, valid, context.device), valid.all_targets())


def evaluate_drop(
    module: nn.Module, baseline: np.ndarray | float, context: Context, max_drop: float, alpha: float = 0.05
) -> Verdict:
    """Is `module` worse than the baseline by at most `max_drop` in the task's metric,
    on the validation split?

    baseline: from `baseline_scores`. Right-or-wrong metrics (accuracy, top5, a Metric with
    zero_one=True) are raced: samples are seen in a random order, drawn under `context.seed`, until
    the answer is clear (`measure.race`); give each question its own seed (`context.child`). Other
    metrics have no bounds, or are no means over samples (macro_f1): the whole split is seen.
    The module is left in eval mode on the CPU.
    """
    from ...train.loop import predict, tensors

    m, valid = metric_of(context.task), context.splits.valid
    if isinstance(baseline, float):
        drop = m.sign * (
            baseline - float(np.mean(m.scores(predict(module, valid, context.device), valid.all_targets())))
        )
        return Verdict(drop <= max_drop, False, drop, drop, drop, len(valid))
    order = generator(context.seed, "race").permutation(len(valid))

    def batches() -> Iterator[np.ndarray]:
        import torch

        if m.together:
            outputs = predict(module, valid, context.device)
            yield m.sign * np.asarray(m.scores(outputs, valid.all_targets()))[order]
            return
        for start in range(0, len(order), _BATCH):
            inputs, targets = tensors(valid, order[start : start + _BATCH], context.device)
            with torch.inference_mode():
                outputs = module(*inputs).float().cpu().numpy()
            yield m.sign * np.asarray(m.scores(outputs, targets.cpu().numpy()))

    module.to(context.device).eval()
    try:
        return race(m.sign * baseline[order], batches(), max_drop, alpha, (-1.0, 1.0) if m.zero_one else None)
    finally:
        module.to("cpu")
