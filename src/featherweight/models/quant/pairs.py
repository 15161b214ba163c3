"""Scaling the channels between a producer and its consumers, in place,
without changing the function.

Notation: s [C] > 0; producer channel i is divided by s_i, the weights that read it are multiplied
by s_i. Weights [O, I / G, *k].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError

TOLERANCE = 1e-4  # of the output's largest magnitude


@dataclass(frozen=True)
class Consumer:
    """A layer that reads a producer: channel [I]: the producer's channel that each input
    feature comes from."""

    path: str
    channel: Tensor


@dataclass(frozen=True)
class Pair:
    """A producer of C channels and all that reads it. batch_norm: the path of the one between, or
    "". is_norm: it is a normalisation."""

    producer: str
    channels: int
    consumers: tuple[Consumer, ...]
    batch_norm: str = ""
    is_norm: bool = False


def by_channel(v: Tensor, channel: Tensor, channels: int) -> Tensor:
    """[C]: the largest of the values v [I] of the features that come from each channel;
    0 where none does. v >= 0."""
    return torch.zeros(channels, dtype=v.dtype, device=v.device).scatter_reduce_(0, channel, v, "amax")


def row_range(module: nn.Module, pair: Pair) -> Tensor:
    """[C]: max |W_i| of the producing layer's rows."""
    return module.get_parameter(f"{pair.producer}.weight").detach().float().flatten(1).abs().amax(1)


def column_range(module: nn.Module, pair: Pair) -> Tensor:
    """[C]: max |W| of the columns that read each channel, over all consumers."""
    ranges = [by_channel(_columns(module.get_submodule(c.path)), c.channel, pair.channels) for c in pair.consumers]
    return torch.stack(ranges).amax(0)


def _columns(m: Any) -> Tensor:
    """[I]: max |W| of each input feature; a convolution's group reads its own I / G."""
    groups, w = getattr(m, "groups", 1), m.weight.detach().float().abs()
    ranges: Tensor = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).amax((1, 3))  # [G, I / G]
    return ranges.reshape(-1)


def rescale(module: nn.Module, pair: Pair, s: Tensor) -> None:
    """Divide the producer by s and multiply its consumers by it. A batch norm between has no scale
    or mean of its own (`fold`)."""
    with torch.no_grad():
        producer = module.get_submodule(pair.producer)
        _divide(producer.weight, s)
        for bias in (
            getattr(producer, "bias", None),
            getattr(module.get_submodule(pair.batch_norm), "bias", None) if pair.batch_norm else None,
        ):
            if bias is not None:
                _divide(bias, s)
        for c in pair.consumers:
            m = module.get_submodule(c.path)
            w: Any = m.weight
            groups = getattr(m, "groups", 1)
            columns = s[c.channel].reshape(groups, 1, w.shape[1], 1)  # feature j of group g
            w.copy_((w.reshape(groups, w.shape[0] // groups, w.shape[1], -1) * columns).reshape(w.shape))


def _divide(v: Any, s: Tensor) -> None:
    v.copy_(v / s.reshape(-1, *(1,) * (v.ndim - 1)))


def check_unchanged(before: Tensor, after: Tensor, what: str) -> None:
    """what: was done. InputError if the outputs of a function that must not change differ by more
    than 1e-4 of their largest magnitude."""
    scale = float(before.abs().max())
    error = float((after - before).abs().max())
    if not error <= TOLERANCE * max(scale, 1e-12):
        raise InputError(
            f"{what} changed what this model computes",
            got=f"an output error of {error:.3g} on outputs up to {scale:.3g}",
            allowed=f"{TOLERANCE} of the largest output",
            fix="quantize this model with equalize='none' and nearest rounding on min-max ranges",
        )
