"""Cutting coupled channels out of layers, silencing them for a while,
and summing a criterion's scores over them.

Notation: O outputs, I inputs of one convolution group, G convolution groups,
U units of a group of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from . import recurrent
from .computed import computed
from .groups import Group


def can_narrow(layer: nn.Module) -> str | None:
    """Why channels of this layer cannot be cut; None if they can."""
    if not any(True for _ in layer.parameters()) and not isinstance(layer, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
        return None  # it has nothing to cut
    if isinstance(layer, nn.RNNBase):
        return recurrent.whole(layer)
    if not isinstance(layer, (nn.Linear, _ConvNd, _NormBase, nn.LayerNorm, nn.GroupNorm)):
        return f"a {type(layer).__name__} is coupled to it"
    if computed(layer) or any(p is not None and n not in ("weight", "bias") for n, p in layer._parameters.items()):
        return f"a {type(layer).__name__} whose weights are computed from other parameters is coupled to it"
    if isinstance(layer, _ConvNd) and layer.groups > 1 and layer.transposed:
        return "it is a grouped transposed convolution"
    return None


def depthwise(layer: nn.Module) -> bool:
    """Is it a convolution that makes outputs of one input each?"""
    return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1


def channel_axis(layer: nn.Module, ndim: int) -> int:
    """Where the channels are in what a layer is given (or, counted from the end, gives), a tensor
    of `ndim` dimensions."""
    if isinstance(layer, (nn.Linear, nn.RNNBase)):
        return ndim - 1
    if isinstance(layer, _ConvNd):
        return ndim - 1 - len(layer.kernel_size)
    return 0 if isinstance(layer, _InstanceNorm) and ndim == layer._get_no_batch_dim() else 1  # type: ignore[no-untyped-call]


def cut(module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]]) -> None:
    """Remove the units drops[g] of each group from all its members, physically and in place.

    All groups in one call: one layer can be a member of several (a concatenation), and positions
    are those of the module as coupled.
    """
    gone = removed(groups, drops)
    # as they are now: a convolution of groups that loses all but one input of each is none
    single = {path for path, _ in gone if depthwise(module.get_submodule(path))}
    for (path, axis), positions in gone.items():
        narrow = _narrow_depthwise if path in single else _narrow
        narrow(module.get_submodule(path), axis, positions)
    for group, drop in zip(groups, drops, strict=True):
        kept = len(group.units) - len(set(drop))
        for name, count in group.counts:
            setattr(module.get_submodule(group.name), name, count * kept // len(group.units))
    held: dict[tuple[str, int], set[int]] = {}
    for group, drop in zip(groups, drops, strict=True):
        for m in group.held:
            held.setdefault((m.path, m.axis), set()).update(m.at(group.of(drop)))
    for (path, axis), positions in held.items():
        parent, _, name = path.rpartition(".")
        layer: Any = module.get_submodule(parent)
        _index(layer, (name,), axis, _left(getattr(layer, name).shape[axis], positions))
        if isinstance(layer, nn.PReLU):
            layer.num_parameters = len(layer.weight)


def removed(groups: Sequence[Group], drops: Sequence[Sequence[int]]) -> dict[tuple[str, int], set[int]]:
    """{(layer path, axis): the positions that go} with the units drops[g] of each group."""
    gone: dict[tuple[str, int], set[int]] = {}
    for group, drop in zip(groups, drops, strict=True):
        for m in group.members if len(drop) else ():
            gone.setdefault((m.path, m.axis), set()).update(m.at(group.of(drop)))
    return {where: positions for where, positions in gone.items() if positions}


@contextmanager
def without(module: nn.Module, groups: Sequence[Group], drops: Sequence[Sequence[int]]) -> Iterator[None]:
    """Within the block the units are cut; afterwards the module is as before, with the very
    parameters that it had. What is cut is copied meanwhile, nothing else."""
    paths = {m.path for g in groups for m in g.members} | {m.path.rpartition(".")[0] for g in groups for m in g.held}
    paths |= {g.name for g in groups if g.counts}
    saved = [
        (m, dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in (module.get_submodule(p) for p in paths)
    ]
    try:
        cut(module, groups, drops)
        yield
    finally:
        for m, attributes, parameters, buffers in saved:
            vars(m).update(attributes)
            m._parameters.clear()
            m._parameters.update(parameters)
            m._buffers.clear()
            m._buffers.update(buffers)


def _narrow(layer: Any, axis: int, gone: set[int]) -> None:
    """Remove the positions `gone` of a layer's outputs (axis 0) or inputs (axis 1). In place."""
    if isinstance(layer, nn.Linear):
        name = "out_features" if axis == 0 else "in_features"
        kept = _left(getattr(layer, name), gone)
        setattr(layer, name, len(kept))
        _index(layer, ("weight", "bias") if axis == 0 else ("weight",), axis, kept)
    elif isinstance(layer, _ConvNd):
        _narrow_conv(layer, axis, gone)
    elif isinstance(layer, _NormBase):
        kept = _left(layer.num_features, gone)
        layer.num_features = len(kept)
        _index(layer, ("weight", "bias", "running_mean", "running_var"), 0, kept)
    elif isinstance(layer, nn.GroupNorm):
        kept = _left(layer.num_channels, gone)
        layer.num_groups = layer.num_groups * len(kept) // layer.num_channels
        layer.num_channels = len(kept)
        _index(layer, ("weight", "bias"), 0, kept)
    elif isinstance(layer, nn.RNNBase):
        _narrow_recurrent(layer, axis, gone)


def _narrow_recurrent(layer: Any, axis: int, gone: set[int]) -> None:
    changes = list(recurrent.cuts(layer, axis, gone))
    layer._flat_weights = list(layer._flat_weights)  # `without` puts the list back that it had
    for name, along, kept in changes:
        _index(layer, (name,), along, kept)
    if axis == 0:
        layer.hidden_size -= len(recurrent.units(layer, gone))
    else:
        layer.input_size -= len(gone)
    layer._init_flat_weights()


def _narrow_depthwise(layer: Any, axis: int, gone: set[int]) -> None:
    """An input goes with all that is made of it."""
    kept, each = _left(layer.out_channels, gone), layer.out_channels // layer.in_channels
    layer.out_channels = len(kept)
    layer.groups = layer.in_channels = len(kept) // each
    _index(layer, ("weight", "bias"), 0, kept)


def _narrow_conv(layer: Any, axis: int, gone: set[int]) -> None:
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


def silence(module: nn.Module, group: Group, drop: Sequence[int]) -> Callable[[], None]:
    """Let nobody read the units `drop`: their columns in the group's readers become zero, and of a
    recurrent layer those by which its units read each other. The function that is given back undoes
    it; only what changes is kept aside."""
    undo: list[Callable[[], None]] = []
    for m in group.members:
        gone = torch.tensor(m.at(group.of(drop)), dtype=torch.long)
        layer: Any = module.get_submodule(m.path)
        if isinstance(layer, nn.RNNBase):
            for name, columns in recurrent.reads(layer, m.axis, gone.tolist()):
                undo.append(partial(_write_columns, layer, name, columns, getattr(layer, name).data[:, columns]))
                _write_columns(layer, name, columns, 0)
        if m.axis == 0 or len(gone) == 0 or isinstance(layer, nn.RNNBase):
            continue
        where: tuple[Any, ...] = (gone,)
        if not getattr(layer, "transposed", False):
            inner = layer.weight.shape[1]
            where = (gone // inner, slice(None), gone % inner)
        undo.append(partial(_write, layer, where, _reading(layer)[where].clone()))
        _write(layer, where, 0)

    def back() -> None:
        for u in reversed(undo):
            u()

    return back


@contextmanager
def silenced(module: nn.Module, group: Group, drop: Sequence[int]) -> Iterator[None]:
    """Within the block nobody reads the units `drop` (`silence`): the model computes what it would
    without them, and is as before afterwards."""
    undo = silence(module, group, drop)
    try:
        yield
    finally:
        undo()


def _reading(layer: Any) -> Tensor:
    """A view of the weight, by what it reads: [G, O / G, I, *k];
    of a transposed convolution [I, O, *k]."""
    w: Tensor = layer.weight.data
    return w if getattr(layer, "transposed", False) else w.view(getattr(layer, "groups", 1), -1, *w.shape[1:])


def _write(layer: Any, where: tuple[Any, ...], value: Any) -> None:
    _reading(layer)[where] = value  # looked up again: a visit to another device has moved the weight


def _write_columns(layer: Any, name: str, columns: Tensor, value: Any) -> None:
    getattr(layer, name).data[:, columns] = value


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
