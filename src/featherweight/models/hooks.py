"""Watching submodules while a model runs, by hooks that are gone afterwards.

A path is a submodule's dotted name; "" is the model itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import InputError

Hook = Callable[..., Any]
_NONE: Mapping[str, Hook] = MappingProxyType({})


@contextmanager
def slow_attention() -> Iterator[None]:
    """torch's fused transformer layers do not call the layers inside them, and hand on nested
    tensors, which have no shape; meanwhile they do not fuse."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def watched(
    module: nn.Module,
    after: Mapping[str, Hook] = _NONE,
    *,
    before: Mapping[str, Hook] = _NONE,
    with_kwargs: bool = False,
) -> Iterator[None]:
    """While it lasts, a pass through the submodule at `path` calls before[path](submodule, args),
    then after[path](submodule, args, output).

    with_kwargs: all hooks take the pass's keyword arguments too, after args. What a hook gives,
    unless None, takes the place of the arguments or the output, as in torch. Hooks of one submodule
    run in the order in which they were entered; transformer layers are not fused. At the end these
    are removed, whatever happened, and no others. InputError, before any hook is there, if a path
    leads nowhere.
    """
    found = submodules(module, [*before, *after])
    with slow_attention(), ExitStack() as hooks:
        for path, hook in before.items():
            hooks.enter_context(found[path].register_forward_pre_hook(hook, with_kwargs=with_kwargs))
        for path, hook in after.items():
            hooks.enter_context(found[path].register_forward_hook(hook, with_kwargs=with_kwargs))
        yield


def submodules(module: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """{path: the submodule there}. InputError that names every path which leads nowhere."""
    found: dict[str, nn.Module] = {}
    missing = []
    for path in paths:
        try:
            found[path] = module.get_submodule(path)
        except AttributeError:
            missing.append(path)
    if missing:
        allowed = [path for path, _ in module.named_modules() if path][:40]
        fix = "name submodules as the model's named_modules() does"
        raise InputError("the model has no such submodule", got=missing, allowed=allowed, fix=fix)
    return found


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in what a module or an operation takes or gives."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
