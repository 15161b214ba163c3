"""Batch norms that have no statistics of their own."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import FeatherweightError


def check_statistics(module: nn.Module, what: str, error: type[FeatherweightError]) -> None:
    """`error` if a batch norm has no running statistics (track_running_stats=False): in eval mode,
    too, it takes those of the batch, so that a row's output depends on the rows beside it. what:
    cannot be done then."""
    found = [
        path
        for path, m in module.named_modules()
        if isinstance(m, _BatchNorm) and (m.running_mean is None or m.running_var is None)
    ]
    if found:
        raise error(
            f"a model with batch norms without running statistics cannot be {what}",
            got=f"{', '.join(found[:10])}: their output depends on the whole batch",
            allowed="batch norms with track_running_stats=True, or norms of single samples (GroupNorm, LayerNorm)",
            fix="build the model with track_running_stats=True and train it",
        )
