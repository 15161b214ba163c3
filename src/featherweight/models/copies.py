"""Copies of modules, whatever they keep."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import InputError
from .entry import handed_on

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module) -> Module:
    """A copy that shares nothing with the module. Tensors that it keeps from a computation (the
    features of its last pass, say) become plain ones. InputError if it cannot be copied."""
    kept = {id(t): t.detach().clone() for t in _computed(module)}
    wanted = {name: p.requires_grad for name, p in module.named_parameters()}
    try:
        with torch.no_grad():  # else scripted modules give copies of their parameters that cannot learn
            copy_ = copy.deepcopy(module, dict(kept))
    except (RuntimeError, TypeError) as e:
        raise InputError(
            "the model cannot be copied",
            got=f"{_culprit(module) or type(module).__name__}: {type(e).__name__}: {str(e).splitlines()[0]}",
            fix="let its modules keep nothing but plain values, tensors and modules as attributes",
        ) from e
    for name, p in copy_.named_parameters():
        p.requires_grad_(wanted[name])
    if isinstance(module, torch.fx.GraphModule):  # torch makes copies of these from their graph alone
        handed_on(module, copy_)
    return copy_


def _computed(module: nn.Module) -> list[Tensor]:
    """Tensors among the attributes of its submodules that are parts of a graph."""
    leaves = [t for m in module.modules() for t in tree_leaves(_attributes(m))]
    return [t for t in leaves if isinstance(t, Tensor) and t.grad_fn is not None]


def _attributes(m: nn.Module) -> dict[str, object]:
    if isinstance(m, torch.jit.ScriptModule):
        return {}
    return {k: v for k, v in vars(m).items() if k not in ("_parameters", "_modules")}


def _culprit(module: nn.Module) -> str:
    """The first attribute that cannot be copied."""
    for path, m in module.named_modules():
        for name, value in _attributes(m).items():
            try:
                copy.deepcopy(value, {id(t): t for t in _computed(module)})
            except (RuntimeError, TypeError):
                return f"its attribute {path}.{name}".replace(" .", " ")
    return ""
