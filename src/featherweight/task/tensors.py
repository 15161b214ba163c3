"""Arrays of a split as tensors. Taken where torch is loaded anyway."""

from __future__ import annotations

import numpy as np
import torch


def as_tensor(array: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """The array's values on the device; on the CPU its very memory, where that is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
