"""Coupled channels: which slices of which layers must be cut together for a model to stay consistent.

The dependency graph is Torch-Pruning's (Fang et al., "DepGraph", CVPR 2023, arXiv:2301.12900). This file turns it into plain
data: a group has C channels; each member says which rows or columns of which layer belong to which channel.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Member:
    """One layer of a group. axis 0: its outputs are cut, axis 1: its inputs; channel [K]: the group's channel of position[K]."""

    path: str
    axis: int
    position: tuple[int, ...]
    channel: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """C channels that live and die together. `name`: the path of the layer that makes them; `raw`: Torch-Pruning's own group."""

    name: str
    channels: int
    members: tuple[Member, ...]
    raw: Any


@dataclass(frozen=True)
class Coupling:
    """The groups that can be cut, and {layer path: reason} for those left whole. Belongs to one module (in place edits)."""

    graph: Any
    groups: tuple[Group, ...]
    whole: dict[str, str]


def output_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[nn.Module]:
    """The leaf layers whose output is (a view of) the model's output: their width is the task's, not ours to cut."""
    import torch

    made: dict[int, nn.Module] = {}
    kept: list[torch.Tensor] = []  # outputs stay alive during the pass, so that no address is used twice

    def remember(m: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            kept.append(out)
            made[out.untyped_storage().data_ptr()] = m

    hooks = [m.register_forward_hook(remember) for m in module.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            out = module(*inputs)
    finally:
        for h in hooks:
            h.remove()
    found = made.get(out.untyped_storage().data_ptr()) if isinstance(out, torch.Tensor) else None
    return [] if found is None else [found]


def couple(module: nn.Module, inputs: tuple[Tensor, ...]) -> Coupling:
    """The coupled channels of `module`, traced with one batch of `inputs`. InputError if the model cannot be traced."""
    import torch
    import torch_pruning as tp
    from torch import nn

    paths = {m: name for name, m in module.named_modules()}
    try:
        outputs = output_layers(module, inputs)
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(module, example_inputs=inputs)
            roots = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear]
            raw_groups = list(graph.get_all_groups(ignored_layers=outputs, root_module_types=roots))
    except Exception as e:  # the tracer fails in as many ways as there are models; all mean the same to the user
        raise InputError(
            "the model's channels cannot be traced",
            got=f"{type(e).__name__}: {e}",
            fix="pruning channels needs a model that runs on its example inputs and is differentiable",
        ) from e
    groups, whole = [], {paths[m]: "it makes the model's output" for m in outputs}
    for raw in raw_groups:
        name = paths.get(raw[0].dep.target.module, raw[0].dep.target.name)
        reason = _untouchable(module, raw, paths, outputs)
        if reason is not None:
            whole[name] = reason
            continue
        members = tuple(m for item in raw if (m := _member(item, paths)) is not None)
        groups.append(Group(name, len(raw[0].idxs), members, raw))
    return Coupling(graph, tuple(groups), whole)


def _member(item: Any, paths: dict[nn.Module, str]) -> Member | None:
    layer = item.dep.target.module
    if layer not in paths:
        return None  # an operation (add, reshape) has no weights
    axis = 1 if "in_channels" in item.dep.handler.__name__ and getattr(layer, "weight", None) is not None and layer.weight.ndim > 1 else 0
    return Member(paths[layer], axis, tuple(item.idxs), tuple(item.root_idxs))


def _untouchable(module: nn.Module, raw: Any, paths: dict[nn.Module, str], outputs: list[nn.Module]) -> str | None:
    """Why a group is left whole; None if it can be cut."""
    from torch import nn

    for item in raw:
        layer = item.dep.target.module
        if layer in outputs and "out_channels" in item.dep.handler.__name__:
            return "it is coupled to the model's output"
        if isinstance(layer, nn.Embedding):
            return "it is the residual stream that starts at an embedding"
        if isinstance(layer, nn.Parameter):
            return "it is coupled to a free parameter"
        if isinstance(layer, nn.MultiheadAttention):
            return "attention heads are not cut channel by channel"
        if layer in paths:
            parent = module.get_submodule(paths[layer].rpartition(".")[0])
            if "out_channels" in item.dep.handler.__name__ and any(hasattr(parent, a) for a in ("num_attention_heads", "num_heads", "n_heads")):
                return "attention heads are not cut channel by channel"
            if getattr(layer, "groups", 1) > 1 and layer.groups != layer.in_channels:
                return "it is a grouped convolution"
    return None


def scores(module: nn.Module, group: Group, value: dict[str, Tensor]) -> torch.Tensor:
    """Sum over a group's members of `value` (one tensor per weight name, shaped as the weight), channel by channel: [C]."""
    import torch

    total = torch.zeros(group.channels)
    for m in group.members:
        v = value.get(f"{m.path}.weight")
        if v is None or v.ndim < 2:
            continue  # normalisation and biases follow the layers around them
        moved = v.transpose(0, 1) if m.axis == 1 and v.shape[1] > max(m.position) else v
        local = moved.flatten(1).sum(1)[torch.tensor(m.position)]  # [K]
        total.index_add_(0, torch.tensor(m.channel), local.float())
    return total


def cut(coupling: Coupling, group: Group, drop: list[int]) -> None:
    """Remove the channels `drop` of a group from all its members, physically and in place."""
    root = group.raw[0]
    graph_group = coupling.graph.get_pruning_group(root.dep.target.module, root.dep.handler, sorted(drop))
    graph_group.prune()
