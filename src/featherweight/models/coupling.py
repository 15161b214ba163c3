"""Coupled channels: which slices of which layers must be cut together for a model to
stay consistent.

The dependency graph of channels is Torch-Pruning's (Fang et al., "DepGraph", CVPR 2023,
arXiv:2301.12900); attention heads are found in `heads`. Both become plain data, which belongs to no
module object: a group has C channels in units that can only go together; each member says which
rows or columns of which layer belong to which channel. `cutting` removes them.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from ..errors import InputError
from .cutting import can_narrow
from .groups import HEADS, Coupling, Group, Member, owners
from .heads import find_heads, packs_heads, projections
from .hooks import watched


def trace(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[nn.Module], dict[nn.Module, int]]:
    """(the leaf layers whose output is, or is a view of, the model's output; every leaf layer's
    place in the forward order)."""
    made: dict[int, nn.Module] = {}
    order: dict[nn.Module, int] = {}
    # outputs stay alive during the pass, so that no address is used twice
    kept: list[torch.Tensor] = []

    def remember(m: nn.Module, _: Any, out: Any) -> None:
        order.setdefault(m, len(order))
        if isinstance(out, torch.Tensor):
            kept.append(out)
            made[out.untyped_storage().data_ptr()] = m

    leaves = [path for path, m in module.named_modules() if not list(m.children())]
    with torch.no_grad(), watched(module, dict.fromkeys(leaves, remember)):
        out = module(*inputs)
    found = made.get(out.untyped_storage().data_ptr()) if isinstance(out, torch.Tensor) else None
    return [] if found is None else [found], order


def output_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[nn.Module]:
    """The leaf layers whose output is (a view of) the model's output:
    their width is the task's, not ours to cut."""
    return trace(module, inputs)[0]


def couple(module: nn.Module, inputs: tuple[Tensor, ...], granularity: str = "channel") -> Coupling:
    """The coupled channels of `module`, traced with one batch of `inputs`.
    InputError if the model cannot be traced.

    granularity: "channel" (all but attention heads), "head",
    "mlp" (inner widths of feed-forward blocks only) or "all".
    """
    try:
        outputs, order = trace(module, inputs)
        groups, whole = _channels(module, inputs, outputs) if granularity != "head" else ([], {})
    except Exception as e:
        # the tracer fails in as many ways as there are models; all mean the same to the user
        raise InputError(
            "the model's channels cannot be traced",
            got=f"{type(e).__name__}: {e}",
            fix="pruning channels needs a model that runs on its example inputs and is differentiable",
        ) from e
    if granularity == "mlp":
        groups, whole = [g for g in groups if g.kind == "mlp"], {}
    if granularity in ("head", "all"):
        heads, odd = find_heads(module, inputs)
        cut = {m.path for g in heads for m in g.members}
        whole = {k: v for k, v in whole.items() if not (k in cut and v == HEADS)} | odd
        groups += heads
    place = {name: order.get(m, len(order)) for name, m in module.named_modules()}
    return Coupling(tuple(sorted(groups, key=lambda g: min(place[m.path] for m in g.members if m.axis == 0))), whole)


def _channels(
    module: nn.Module, inputs: tuple[Tensor, ...], outputs: list[nn.Module]
) -> tuple[list[Group], dict[str, str]]:
    """The groups of Torch-Pruning's graph as data, and why others are left whole."""
    paths = {m: name for name, m in module.named_modules()}
    # not walked from: rotary embeddings between them can keep the tracer busy without end
    heads = projections(module)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=inputs)
        roots = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear]
        found = list(graph.get_all_groups(ignored_layers=outputs + heads, root_module_types=roots))
    groups, whole = [], {paths[m]: "it makes the model's output" for m in outputs} | {paths[m]: HEADS for m in heads}
    held = owners(module)
    for raw in found:
        name = paths.get(raw[0].dep.target.module, raw[0].dep.target.name)
        reason = next((r for item in raw if (r := _untouchable(module, item, paths, outputs, held)) is not None), None)
        if reason is None:
            members = tuple(m for item in raw if (m := _member(item, paths)) is not None)
            group = _unite(module, Group(name, "channel", len(raw[0].idxs), (), members))
            if isinstance(group, Group):
                groups.append(replace(group, kind="mlp") if _feed_forward(module, group) else group)
                continue
            reason = group
        whole[name] = reason
    return groups, whole


def _member(item: Any, paths: dict[nn.Module, str]) -> Member | None:
    layer = item.dep.target.module
    if layer not in paths:
        return None  # an operation (add, reshape) has no weights
    axis = (
        1
        if "in_channels" in item.dep.handler.__name__
        and getattr(layer, "weight", None) is not None
        and layer.weight.ndim > 1
        else 0
    )
    return Member(paths[layer], axis, tuple(item.idxs), tuple(item.root_idxs))


def _untouchable(
    module: nn.Module, item: Any, paths: dict[nn.Module, str], outputs: list[nn.Module], held: dict[int, set[str]]
) -> str | None:
    """Why the group that this item belongs to is left whole;
    None if the item does not forbid the cut."""
    layer, makes = item.dep.target.module, "out_channels" in item.dep.handler.__name__
    if layer in outputs and makes:
        return "it is coupled to the model's output"
    if isinstance(layer, nn.Embedding):
        return "it is the residual stream that starts at an embedding"
    if isinstance(layer, nn.Parameter):
        return "it is coupled to a free parameter"
    if isinstance(layer, nn.MultiheadAttention):
        return HEADS
    if layer not in paths:
        return None
    parent = module.get_submodule(paths[layer].rpartition(".")[0])
    if makes and packs_heads(parent):
        return HEADS
    reason = can_narrow(layer)
    if reason is not None:
        return reason
    shared = sorted({o for p in layer.parameters(recurse=False) for o in held[id(p)]} - {paths[layer]})
    return f"it shares its weights with {shared[0]}" if shared else None


def _unite(module: nn.Module, group: Group) -> Group | str:
    """The group with its units, or why it has none that can be cut.

    A convolution of G groups and C channels keeps equal widths if channels
    {j, j + C/G, j + 2C/G, ...} go together; units are the connected components of all such ties.
    """
    root = list(range(group.channels))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for m in group.members:
        layer: Any = module.get_submodule(m.path)
        n = getattr(layer, "groups", 1)
        if n == 1 or layer.groups == layer.in_channels == layer.out_channels:
            continue
        width = layer.out_channels if m.axis == 0 else layer.in_channels
        if sorted(m.position) != list(range(width)):
            return "only a part of a grouped convolution's channels is coupled"
        first: dict[int, int] = {}
        for p, c in zip(m.position, m.channel, strict=True):
            root[find(c)] = find(first.setdefault(p % (width // n), c))
    units: dict[int, list[int]] = {}
    for c in range(group.channels):
        units.setdefault(find(c), []).append(c)
    if len({len(u) for u in units.values()}) != 1:
        return "its grouped convolutions tie its channels in unequal numbers"
    return replace(group, units=tuple(map(tuple, units.values())))


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
