"""What a package claims as sparse, held to its weights: `Package.sparse` names parameters that have
zeros which stay zero."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor, nn

from .matching import origin
from .package import Package


def holding(module: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that are parameters of the module and have a zero."""
    return tuple(
        name for name in names if (weight := _parameter(module, name)) is not None and bool((weight == 0).any())
    )


class Zeros:
    """Where the parameters that a package claims as sparse are zero: one bit a weight, so that a
    step that changes its input is found, too."""

    def __init__(self, package: Package | None) -> None:
        self.edits: tuple[dict[str, Any], ...] = () if package is None else package.edits
        self._known: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}  # shape, bits
        for name in () if package is None else package.sparse:
            weight = _parameter(package.module, name)  # type: ignore[union-attr]
            if weight is not None:
                self._known[name] = tuple(weight.shape), np.packbits(_zero(weight))

    def wrong(self, after: Package) -> dict[str, str]:
        """{a parameter that the package claims as sparse after a step: what is wrong with that}.

        A claim that was there before has to keep its zeros, where it has its shape every single
        one; of one that lost rows or columns no more may be missing than weights are. A new claim
        needs a zero."""
        out = {}
        renumbered = after.edits[len(self.edits) :] if after.edits[: len(self.edits)] == self.edits else ()
        for name in after.sparse:
            weight = _parameter(after.module, name)
            known = self._known.get(origin(name, renumbered))
            if weight is None:
                out[name] = "the model has no such parameter"
            elif known is not None:
                if (problem := _lost(*known, weight)) is not None:
                    out[name] = problem
            elif not bool((weight == 0).any()):
                out[name] = f"none of its {weight.numel()} weights is zero"
        return out


def _lost(shape: tuple[int, ...], bits: np.ndarray, weight: Tensor) -> str | None:
    """What became of zeros that were there before (`bits` in a weight of `shape`);
    None if they stayed."""
    before, now = np.unpackbits(bits, count=math.prod(shape)).astype(bool), _zero(weight)
    count = int(before.sum())
    if tuple(weight.shape) == shape:
        filled = int((before & ~now).sum())
        return f"{filled} of its {count} zeros are zero no more" if filled else None
    least = max(1, count - max(0, len(before) - len(now)))
    return (
        f"{int(now.sum())} of its {len(now)} weights are zero, of {count} in {len(before)} before"
        if count and now.sum() < least
        else None
    )


def _zero(weight: Tensor) -> np.ndarray:
    """Where it is zero, flat."""
    return (weight == 0).cpu().numpy().reshape(-1)


def _parameter(module: nn.Module, name: str) -> Tensor | None:
    try:
        return module.get_parameter(name).detach()
    except AttributeError:  # no such submodule, no such attribute, or no parameter
        return None
