"""Coupled channels: which slices of which layers must be cut together for a model to
stay consistent.

What belongs together is found by following every number through a run of the model (`_trace`, in
the spirit of the dependency graph of Fang et al., "DepGraph", CVPR 2023, arXiv:2301.12900, but from
what flows, not from rules for shapes); attention heads are found in `heads`. Both become plain
data, which belongs to no module object: a group has C channels in units that can only go together;
each member says which rows or columns of which layer belong to which channel. Every group is then
cut on trial (`exact`): what does not compute exactly what the model computes with these channels
silenced is left whole, and named. `cutting` removes them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ._labels import WAYS
from ._trace import Trace
from .cutting import depthwise
from .exact import inexact
from .groups import HEADS, Coupling, Group, Member
from .heads import find_heads

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)


def output_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[nn.Module]:
    """The leaf layers that make the model's output, with nothing but operations on each channel or
    across them (a softmax, a scale, a mean) in between: their width is the task's, not ours
    to cut. InputError if they cannot be found."""
    try:
        trace = Trace(module, inputs)
    except Exception as e:  # as in `couple`
        _must_run(module, inputs)
        raise InputError(
            "the layers that make the model's output were not found",
            got=f"its channels could not be followed ({type(e).__name__}: {e})",
            fix="take forward hooks and the like out of the model's code",
        ) from e
    return [module.get_submodule(path) for path in _last(trace, trace.ties.components({})[0])]


def couple(module: nn.Module, inputs: tuple[Tensor, ...], granularity: str = "channel") -> Coupling:
    """The coupled channels of `module`, traced with one batch of `inputs` and proven on it and on
    random ones. InputError if the model does not run; one whose channels cannot be followed is left
    whole.

    granularity: "channel" (all but attention heads), "head",
    "mlp" (inner widths of feed-forward blocks only) or "all".
    """
    try:
        trace = Trace(module, inputs)
    except Exception as e:  # whatever the model's own code raises, or does to what follows it
        _must_run(module, inputs)
        reason = f"its channels could not be followed ({type(e).__name__}: {e})"
        return Coupling((), {path: reason for path, m in module.named_modules() if isinstance(m, KINDS)})
    groups, whole = _reached(module, trace, *_channels(module, inputs, trace)) if granularity != "head" else ([], {})
    if granularity == "mlp":
        groups, whole = [g for g in groups if g.kind == "mlp"], {}
    if granularity in ("head", "all"):
        heads, odd = find_heads(module, inputs)
        for g, reason in inexact(module, heads, inputs, given=groups).items():
            heads, odd = [h for h in heads if h.name != g], odd | {g: reason}
        cut = {m.path for g in heads for m in g.members}
        whole = {k: v for k, v in whole.items() if not (k in cut and v == HEADS)} | odd
        groups += heads
    places = trace.places
    return Coupling(tuple(sorted(groups, key=lambda g: min(places[m.path] for m in g.members if m.axis == 0))), whole)


def _reached(
    module: nn.Module, trace: Trace, groups: list[Group], whole: dict[str, str]
) -> tuple[list[Group], dict[str, str]]:
    """The groups without those that a layer which no example row reaches could read or make: what
    it is coupled to in the rows that do reach it was not seen."""
    whole |= dict.fromkeys(trace.unreached, "no example row reaches it")
    found = []
    for g in groups:
        wide = {g.channels, *(len(m.position) for m in g.members)}
        for m in g.members:
            layer, side = module.get_submodule(m.path), ("out", "in")[m.axis]
            names = (f"{side}_features", f"{side}_channels", ("hidden_size", "input_size")[m.axis])
            wide |= {getattr(layer, n) for n in names if hasattr(layer, n)}
        near = [path for path, widths in trace.unreached.items() if any(w % c == 0 for w in widths for c in wide)]
        if near:
            whole[g.name] = f"it could be coupled to {near[0]}, which no example row reaches"
        else:
            found.append(g)
    return found, whole


def _must_run(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    try:
        with torch.no_grad():
            module(*inputs)
    except Exception as e:
        raise InputError(
            "the model's channels cannot be traced",
            got=f"{type(e).__name__}: {e}",
            fix="pruning channels needs a model that runs on its example inputs",
        ) from e


def _channels(module: nn.Module, inputs: tuple[Tensor, ...], trace: Trace) -> tuple[list[Group], dict[str, str]]:
    """The groups that are exact, and why others are left whole.

    Where the model's code takes channels apart (a view, a slice), how the parts shrink shows only
    when it runs with fewer: groups that fail are tried in each of the ways in turn.
    """
    ways: dict[int, str] = {}
    groups, whole = _groups(module, trace, ways)
    failed = inexact(module, groups, inputs)
    exact = [g for g in groups if g.name not in failed]
    for way in WAYS if failed else ():
        parts = _parts_of(trace, ways, [g for g in groups if g.name in failed])
        tried, odd = _groups(module, trace, ways | dict.fromkeys(parts, way))
        new = [g for g in tried if g not in exact]
        if not parts or len(new) + len(exact) != len(tried):
            continue  # there is nothing to try, or it would tie what is exact already
        again = inexact(module, new, inputs, given=exact)
        if len(again) < len(new):
            ways |= dict.fromkeys(parts, way)
            exact += [g for g in new if g.name not in again]
            groups, whole, failed = tried, odd, again
    return exact, whole | failed


def _parts_of(trace: Trace, ways: dict[int, str], groups: list[Group]) -> list[int]:
    """Which parts, of those without a way, have channels of these groups."""
    of = trace.ties.components(ways)[0]
    mine = {
        c
        for g in groups
        for m in g.members
        if m.axis == 0 and m.path in trace.rows
        for c in of[trace.rows[m.path][list(m.position)].numpy()]
    }
    return [
        i for i, part in enumerate(trace.ties.parts) if i not in ways and not mine.isdisjoint(of[part.labels.numpy()])
    ]


def _groups(module: nn.Module, trace: Trace, ways: dict[int, str]) -> tuple[list[Group], dict[str, str]]:
    """The groups that the ties of channels make, and why other layers are left whole. Units that
    the same layers make and read, at as many places, are one group."""
    of, why, tied = trace.ties.components(ways)
    units: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(trace.places, key=trace.places.__getitem__):
        layer = module.get_submodule(path)
        sides = [trace.rows.get(path), trace.norms.get(path)], [None if depthwise(layer) else trace.columns.get(path)]
        for axis, side in enumerate(sides):
            for labels in side:
                for position, c in enumerate([] if labels is None else of[labels.numpy()].tolist()):
                    units[c][path, axis].append(position)
    makers = {c for path in trace.rows for c in of[trace.rows[path].numpy()].tolist()}
    held = _held(trace, of, makers, why)
    read = _read(trace, of)
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for c in units:
        if c in makers and c not in why:
            where = units[c] | held[c]
            alike[tuple((at, len(positions)) for at, positions in where.items())].append(c)
    groups: list[Group] = []
    for same in alike.values():
        if len(same) > 1 and same[0] in read:
            group = _group(trace, [(units[c], held[c]) for c in same], {g.name for g in groups})
            groups.append(replace(group, kind="mlp") if _feed_forward(module, group) else group)
    cut = {m.path for g in groups for m in g.members if m.axis == 0}
    last = _last(trace, of)
    whole = {}
    for path in (p for p in trace.places if p in trace.rows and p not in cut):
        mine = of[trace.rows[path].numpy()].tolist()
        reasons = [trace.whole.get(path), "it makes the model's output" if path in last else None]
        reasons += [r.get(c) for r in (why, tied) for c in mine] + [
            "its channels can only go together" if read.intersection(mine) else "no layer reads it"
        ]
        whole[path] = next(r for r in reasons if r is not None)
    return groups, whole


def _group(
    trace: Trace,
    units: list[tuple[dict[tuple[str, int], list[int]], dict[tuple[str, int], list[int]]]],
    taken: set[str],
) -> Group:
    """One group of units, each {(path, axis): positions} in layers and in other tensors."""
    maker = next(at for at in units[0][0] if at[1] == 0 and at[0] in trace.rows)
    units = sorted(units, key=lambda u: u[0][maker])
    rank = {p: i for i, p in enumerate(sorted(p for layers, _ in units for p in layers[maker]))}
    channels = [tuple(rank[p] for p in layers[maker]) for layers, _ in units]

    def members(side: int) -> tuple[Member, ...]:
        found = []
        for path, axis in units[0][side]:
            at = sorted(
                (p, own[k % len(own)])
                for unit, own in zip(units, channels, strict=True)
                for k, p in enumerate(unit[side][path, axis])
            )
            found.append(Member(path, axis, tuple(p for p, _ in at), tuple(c for _, c in at)))
        return tuple(found)

    name, i = maker[0], 1
    while name in taken:  # some of this layer's channels are another group
        i += 1
        name = f"{maker[0]} ({i})"
    return Group(name, "channel", len(rank), tuple(channels), members(0), held=members(1))


def _held(
    trace: Trace, of: np.ndarray, makers: set[int], why: dict[int, str]
) -> dict[int, dict[tuple[str, int], list[int]]]:
    """{component: {(path of a parameter or buffer of no layer, the axis along which it is cut): the
    positions that go with the component}}. Components that have no such axis are added to `why`."""
    out: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for path, labels in trace.held.items():
        mine = of[labels.numpy()]
        mine[~np.isin(mine, list(makers))] = -1  # a number that meets no channel
        here = set(mine.flatten().tolist()) - {-1}
        for axis in range(mine.ndim):
            rows = np.moveaxis(mine, axis, 0).reshape(mine.shape[axis], -1)  # [slices, numbers of each]
            one = rows.max(1)
            if here and bool(((rows == one[:, None]) | (rows == -1)).all()):
                for position, c in enumerate(one.tolist()):
                    if c != -1:
                        out[c].setdefault((path, axis), []).append(position)
                break
        else:
            why |= {c: f"it is coupled to {path}, which cannot be cut along one axis" for c in here if c not in why}
    return out


def _last(trace: Trace, of: np.ndarray) -> list[str]:
    """Paths of the layers that make the model's output: those whose channels are in it, and those
    that are joined with them and that no other layer reads."""
    out, direct = set(of[trace.outputs.numpy()].tolist()), set(trace.outputs.tolist())
    read = _read(trace, of)
    return [
        path
        for path, labels in trace.rows.items()
        if not direct.isdisjoint(labels.tolist()) or not (out - read).isdisjoint(of[labels.numpy()].tolist())
    ]


def _read(trace: Trace, of: np.ndarray) -> set[int]:
    """The components that a layer reads."""
    return {c for labels in trace.columns.values() for c in of[labels.numpy()].tolist()}


def _feed_forward(module: nn.Module, group: Group) -> bool:
    """Linear layers alone, of which one reads the group, and gives back the width that those which
    make it read: [D] -> [C] -> [D]."""
    layers = [(module.get_submodule(m.path), m.axis) for m in group.members]
    if len({holder := m.path.rpartition(".")[0] for m in group.members}) == 1 and holder:
        inside = list(module.get_submodule(holder).children())
        if len(inside) == len(layers) and all(isinstance(m, nn.Linear) for m in inside):
            return False  # the rank of a factorized layer, with nothing between its factors
    made = {m.in_features for m, axis in layers if isinstance(m, nn.Linear) and axis == 0}
    read = [m.out_features for m, axis in layers if isinstance(m, nn.Linear) and axis == 1]
    return all(isinstance(m, nn.Linear) for m, _ in layers) and len(read) == 1 and made == set(read)
