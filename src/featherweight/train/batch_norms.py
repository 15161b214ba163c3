"""The running statistics of batch norms, estimated anew."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..task.data import Split
from ..task.tensors import as_tensor


def with_statistics(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms that have running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def reestimate(module: nn.Module, split: Split, size: int, device: str = "cpu") -> None:
    """Replace, in place, the running statistics of all batch norms by their mean over the batches
    of `size` samples that the split has, in its order; a last one of one sample is left out. Those
    that no batch reaches keep what they had. All else runs as in eval mode, which the module is
    left in, on the CPU."""
    norms = with_statistics(module)
    had = [(m.momentum, {name: b.clone() for name, b in m.named_buffers(recurse=False)}) for m in norms]
    module.to(device).eval()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # torch: all batches count alike
        m.train()
    try:
        with torch.no_grad():
            for start in range(0, max(1, len(split) - 1), size):
                index = np.arange(start, min(start + size, len(split)))
                module(*[as_tensor(v, device) for v in split.batch(index)[0].values()])
    finally:
        module.to("cpu").eval()
        for m, (momentum, before) in zip(norms, had, strict=True):
            m.momentum = momentum
            reached = m.num_batches_tracked is not None and int(m.num_batches_tracked) > 0
            for name, buffer in m.named_buffers(recurse=False):
                if not reached or name == "num_batches_tracked":
                    buffer.copy_(before[name])
