"""Submodules that take the place of others."""

from __future__ import annotations

from torch import nn


def swap(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """`new` in the place of `old`, wherever that stands in `module`: several may share one. In
    place."""
    for holder in list(module.modules()):
        for name, child in holder._modules.items():
            if child is old:
                holder._modules[name] = new


def plain_tensors(module: nn.Module) -> None:
    """Let no nn.TransformerEncoder make nested tensors of padded ones, for which its layers have to
    be torch's own, and which have no number of tokens. In place; the outputs stay."""
    for m in module.modules():
        if isinstance(m, nn.TransformerEncoder):
            m.use_nested_tensor = False
