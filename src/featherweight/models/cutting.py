"""Cutting coupled channels out of layers, silencing them for a while,
and summing a criterion's scores over them.

Notation: O outputs, I inputs of one convolution group, G convolution groups,
U units of a group of channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from .groups import Group


def can_narrow(layer: nn.Module) -> str | None:
    """Why channels of this layer cannot be cut; None if they can."""
    if isinstance(layer, nn.GroupNorm):
        return "a GroupNorm is coupled to it, whose groups would be other channels"
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
        return "a LayerNorm over several axes is coupled to it"
    if not any(True for _ in layer.parameters()) and not isinstance(layer, (_NormBase, nn.LayerNorm)):
        return None  # it has nothing to cut
    if not isinstance(layer, (nn.Linear, _ConvNd, _NormBase, nn.LayerNorm, nn.PReLU)):
        return f"a {type(layer).__name__} is coupled to it"
    if any(p is not None and n not in ("weight", "bias") for n, p in layer._parameters.items()) or hasattr(
        layer, "parametrizations"
    ):
        return f"a {type(layer).__name__} whose weights are computed from other parameters is coupled to it"
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        if layer.transposed:
            return "it is a grouped transposed convolution"
        if (layer.groups in (layer.in_channels, layer.out_channels)) and layer.in_channels != layer.out_channels:
            return "it is a depthwise convolution with several channels to one"
    return None


def cut(module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]]) -> None:
    """Remove the units drops[g] of each group from all its members, physically and in place.

    All groups in one call: one layer can be a member of several (a concatenation), and positions
    are those of the module as coupled.
    """
    gone: dict[tuple[str, int], set[int]] = {}
    for group, drop in zip(groups, drops, strict=True):
        channels = {c for u in drop for c in group.units[u]}
        for m in group.members:
            gone.setdefault((m.path, m.axis), set()).update(
                p for p, c in zip(m.position, m.channel, strict=True) if c in channels
            )
        kept = len(group.units) - len(set(drop))
        for name, count in group.counts:
            setattr(module.get_submodule(group.name), name, count * kept // len(group.units))
    for (path, axis), positions in gone.items():
        if positions:
            _narrow(module.get_submodule(path), axis, positions)


def _narrow(layer: Any, axis: int, gone: set[int]) -> None:
    """Remove the positions `gone` of a layer's outputs (axis 0) or inputs (axis 1). In place."""
    if isinstance(layer, nn.Linear):
        name = "out_features" if axis == 0 else "in_features"
        kept = _left(getattr(layer, name), gone)
        setattr(layer, name, len(kept))
        _index(layer, ("weight", "bias") if axis == 0 else ("weight",), axis, kept)
    elif isinstance(layer, _ConvNd):
        _narrow_conv(layer, axis, gone)
    elif isinstance(layer, nn.LayerNorm):
        kept = _left(layer.normalized_shape[0], gone)
        layer.normalized_shape = (len(kept),)
        _index(layer, ("weight", "bias"), 0, kept)
    elif isinstance(layer, _NormBase):
        kept = _left(layer.num_features, gone)
        layer.num_features = len(kept)
        _index(layer, ("weight", "bias", "running_mean", "running_var"), 0, kept)
    elif isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        kept = _left(layer.num_parameters, gone)
        layer.num_parameters = len(kept)
        _index(layer, ("weight",), 0, kept)


def _narrow_conv(layer: Any, axis: int, gone: set[int]) -> None:
    # depthwise: one channel a group, in and out
    if layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels:
        kept = _left(layer.out_channels, gone)
        layer.groups = layer.in_channels = layer.out_channels = len(kept)
        _index(layer, ("weight", "bias"), 0, kept)
        return
    name = "out_channels" if axis == 0 else "in_channels"
    width = getattr(layer, name)
    setattr(layer, name, width - len(gone))
    where = 1 - axis if layer.transposed else axis  # transposed weights are [I, O, *k]
    # units keep the same inputs of every convolution group, and the weight has one group's only
    if axis == 1:
        width, gone = width // layer.groups, {p % (width // layer.groups) for p in gone}
    _index(layer, ("weight",), where, _left(width, gone))
    if axis == 0:
        _index(layer, ("bias",), 0, _left(width, gone))


def _left(width: int, gone: set[int]) -> list[int]:
    return [i for i in range(width) if i not in gone]


def _index(layer: nn.Module, names: tuple[str, ...], axis: int, kept: list[int]) -> None:
    """Keep `kept` of the named parameters and buffers (those that are there) along `axis`."""
    for name in names:
        old = getattr(layer, name, None)
        if old is None:
            continue
        new = old.detach().index_select(axis, torch.tensor(kept, dtype=torch.long, device=old.device))
        setattr(
            layer, name, nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        )


@contextmanager
def silenced(module: nn.Module, group: Group, drop: Sequence[int]) -> Iterator[None]:
    """Within the block nobody reads the units `drop`: the model computes what it would without
    them, and is as before afterwards.

    Their columns in the group's readers are zero meanwhile. A LayerNorm between maker and reader
    still counts them in its statistics.
    """
    channels = {c for u in drop for c in group.units[u]}
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        for m in group.members:
            layer: Any = module.get_submodule(m.path)
            gone = [p for p, c in zip(m.position, m.channel, strict=True) if c in channels]
            if m.axis == 0 or not gone:
                continue
            w = layer.weight.data
            saved.append((w, w.clone()))
            if getattr(layer, "transposed", False):
                w[gone] = 0
                continue
            per = w.shape[1]  # [I]
            rows = w.unflatten(0, (-1, w.shape[0] // getattr(layer, "groups", 1)))  # [G, O / G, I, *k]
            at = torch.tensor(gone)
            rows[at // per, :, at % per] = 0
        yield
    finally:
        for w, old in reversed(saved):
            w.copy_(old)


def add_scores(total: Tensor, group: Group, path: str, groups: int, score: Tensor) -> None:
    """Add to total [U] what one layer's scores (shaped as its weight,
    or [O]) say of each unit of a group. In place.

    Its rows count where the layer makes the group's channels, its columns where it reads them (only
    a score for each weight has columns).
    groups: of the layer, if it is a convolution.
    """
    unit = torch.empty(group.channels, dtype=torch.long)
    for u, channels in enumerate(group.units):
        unit[list(channels)] = u
    for m in group.members:
        if m.path != path or (m.axis == 1 and score.ndim < 2):
            continue
        sums = _rows(score) if m.axis == 0 else _columns(score, groups)
        total.index_add_(0, unit[torch.tensor(m.channel)], sums[torch.tensor(m.position)].to(total))


def _rows(score: Tensor) -> Tensor:
    return score if score.ndim == 1 else score.flatten(1).sum(1)  # [O]


def _columns(score: Tensor, groups: int) -> Tensor:
    """[O, I, *k] -> [G I]: over the outputs of the input's own convolution group."""
    return score.reshape(groups, score.shape[0] // groups, score.shape[1], -1).sum((1, 3)).flatten()
