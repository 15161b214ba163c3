"""What the inputs of layers look like over calibration samples: means, ranges, second moments.

Notation: a Linear or convolution with I inputs in G groups sees vectors x of n = I / G * k features
(k kernel positions), one for each sample and position; a Linear has G = 1 and n = I.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..hooks import watched
from .layers import is_convolution

# one pass over the calibration samples: the module's inputs, batch by batch
Batches = Callable[[], Iterable[tuple[Tensor, ...]]]
_CHUNK = 2**23  # numbers of an unfolded convolution input at once


@dataclass(frozen=True)
class Inputs:
    """Of one layer, float32; what was not asked for is empty."""

    mean: Tensor  # [G, n]
    hessian: Tensor  # [G, n, n] mean of x x^T
    absmean: Tensor  # [I] mean |x|
    absmax: Tensor  # [I] max |x|


class _Enough(Exception):
    """All that was asked for was seen: the rest of the forward pass is not needed."""


def collect(
    module: nn.Module, paths: Sequence[str], needs: Collection[str], batches: Batches, *, once: bool = False
) -> dict[str, Inputs]:
    """The inputs of the layers `paths`, in one pass over the batches; needs: the fields of `Inputs`
    to fill (second moments of all of `paths` are held at once: ask for few layers). once:
    the layers are called once a forward pass, so it may end after the last one. InputError for a
    layer that never ran.
    """
    sums = {path: _Sums(module.get_submodule(path), needs) for path in paths}
    waiting: set[str] = set()

    def see(path: str, _: nn.Module, args: Any) -> None:
        sums[path].add(args[0])
        waiting.discard(path)
        if once and not waiting:
            raise _Enough

    with torch.no_grad(), watched(module, before={path: partial(see, path) for path in sums}):
        for inputs in batches():
            waiting.update(sums)
            with contextlib.suppress(_Enough):
                module(*inputs)
    for path, seen in sums.items():
        if seen.positions == 0:
            raise InputError("a layer never ran on the calibration inputs", got=path, fix=f"skip=({path!r},)")
    return {path: seen.result() for path, seen in sums.items()}


class _Sums:
    """Running sums of one layer's inputs."""

    def __init__(self, layer: nn.Module, needs: Collection[str]) -> None:
        self.layer, self.needs, self.count, self.positions = layer, needs, 0, 0
        self.mean = self.hessian = self.absmean = self.absmax = torch.zeros(0)

    def add(self, x: Tensor) -> None:
        last = x.detach().float().movedim(1 if is_convolution(self.layer) else -1, -1)
        channels = last.reshape(-1, last.shape[-1])  # [R, I]
        self.positions += len(channels)
        if "absmax" in self.needs:
            self.absmax = torch.maximum(
                channels.abs().amax(0), self.absmax if len(self.absmax) else torch.zeros_like(channels[0])
            )
        if "absmean" in self.needs:
            self.absmean = _plus(self.absmean, channels.abs().sum(0))
        if not {"mean", "hessian"} & set(self.needs):
            return
        for rows in features(self.layer, x.detach().float()):  # [G, R, n]
            self.count += rows.shape[1]
            if "mean" in self.needs:
                self.mean = _plus(self.mean, rows.sum(1))
            if "hessian" in self.needs:
                self.hessian = _plus(self.hessian, rows.transpose(1, 2) @ rows)

    def result(self) -> Inputs:
        count = max(self.count, 1)
        return Inputs(self.mean / count, self.hessian.div_(count), self.absmean / self.positions, self.absmax)


def _plus(total: Tensor, more: Tensor) -> Tensor:
    return total.add_(more) if total.numel() else more


def features(layer: Any, x: Tensor) -> Iterator[Tensor]:
    """The vectors that the layer multiplies its rows with, [G, R, n], some samples at a time;
    features in the order of weight[0].flatten()."""
    if not is_convolution(layer):
        yield x.reshape(1, -1, x.shape[-1])
        return
    per_sample = math.prod(x.shape[1:]) * math.prod(layer.kernel_size)
    for part in torch.split(x, max(1, _CHUNK // per_sample)):
        yield _unfold(layer, part)


def _unfold(layer: Any, x: Tensor) -> Tensor:  # [N, I, *size] -> [G, N * positions, I / G * k]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = torch.nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    dims = len(layer.kernel_size)
    for d, (k, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + d, (k - 1) * dilation + 1, stride)[..., ::dilation]
    x = x.movedim(1, 1 + dims)  # [N, *positions, I, *k]
    x = x.reshape(-1, layer.groups, layer.in_channels // layer.groups * math.prod(layer.kernel_size))
    return x.transpose(0, 1)


def batched(inputs: Sequence[Tensor], size: int = 32) -> Batches:
    """Passes over tensors [n, ...], `size` samples at a time."""
    return lambda: zip(*(torch.split(t, size) for t in inputs), strict=True)
