"""Does a model do the same around each of its blocks? Only then the model without a block is the
model that skips it: where a loop pairs the blocks with norms, with scales or with their numbers,
those that follow would be paired with what belonged to others.

Notation: calls C_0 .. C_n-1 of a row's children, in order; S_i all that is done just before C_i,
outside of the children, S_n what is done after the last. A loop has a body p C s, so that
S_1 = .. = S_n-1 = s p, S_0 ends with p and S_n begins with s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .hooks import Hook, watched

Step = tuple[Any, ...]
OWN = "what is done around its blocks is not the same for each: they belong to norms, scales or numbers"


class _Record(TorchFunctionMode):
    """What is done, step by step: each function with its arguments; parameters and buffers by name,
    other tensors by shape."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
        self.steps: list[Step] = []
        self.made: dict[int, tuple[int, Tensor]] = {}  # by id: at which step, and the tensor, lest ids are used again

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__qualname__", str(func))
        self.steps.append((name, *map(self.word, tree_leaves((args, kwargs or {})))))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                self.made.setdefault(id(t), (len(self.steps), t))
        return out

    def word(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.names.get(id(value)) or (tuple(value.shape), str(value.dtype))
        return (
            repr(value) if isinstance(value, int | float | bool | str | complex | type(None)) else type(value).__name__
        )


class _Row:
    """The calls of a row's children: where each began and ended among the steps, and what it was
    given besides its first tensor."""

    def __init__(self, record: _Record) -> None:
        self.record = record
        self.order: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.given: list[list[Any]] = []

    def enter(self, i: int, _: nn.Module, args: Any, kwargs: Any) -> None:
        before = self.spans[-1] if self.spans else (0, 0)
        leaves, words, first = tree_leaves((args, kwargs)), [], True
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and first:
                first = False
            elif isinstance(leaf, torch.Tensor) and id(leaf) not in self.record.names:
                # made in this round of the loop, in the child before, or before the loop
                at = self.record.made.get(id(leaf), (-1, leaf))[0] if self.spans else -1
                words.append("new" if at > before[1] else "passed on" if at > before[0] else id(leaf))
            else:
                words.append(self.record.word(leaf))
        self.order.append(i)
        self.given.append(words)
        self.spans.append((len(self.record.steps), -1))

    def leave(self, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.spans[-1] = (self.spans[-1][0], len(self.record.steps))

    def parts(self) -> list[list[Step]]:
        """S_0 .. S_n."""
        steps = self.record.steps
        ends = [0, *(end for _, end in self.spans)]
        starts = [*(start for start, _ in self.spans), len(steps)]
        return [steps[end:start] for end, start in zip(ends, starts, strict=True)]

    def fault(self, children: int) -> str | None:
        """Why a child cannot be left out; None if the loop does the same around each."""
        if self.order != list(range(children)):
            return "its blocks do not run one after the other, each once"
        first, body, *others, last = self.parts()
        if any(part != body for part in others) or not any(
            body[:k] == last[:k] and body[k:] == first[len(first) - len(body) + k :]
            for k in range(len(body) + 1)
            if len(body) - k <= len(first)
        ):
            return OWN
        same = self.given[1:]
        if any(words != same[0] for words in same) or any(
            isinstance(word, int) and word not in self.given[0] for word in same[0]
        ):
            return "its blocks are not given the same: each has arguments of its own"
        return None


def unlike(module: nn.Module, rows: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...]) -> dict[str, str]:
    """{path of a ModuleList or Sequential: why no child can be left out}, of rows {path: children
    that keep their input's shape} those around whose children the model does not do the same. A
    pass of `inputs`, and one for each row, without the first of these children."""
    found = _recorded(module, {path: module.get_submodule(path) for path in rows}, inputs)
    out = {}
    for path, able in rows.items():
        holder, row = module.get_submodule(path), found[path]
        why = row.fault(len(list(holder.children())))
        if why is None:
            why = _without(module, path, holder, able[0], row, inputs)
        if why is not None:
            out[path] = why
    return out


def _without(
    module: nn.Module, path: str, holder: nn.Module, child: int, row: _Row, inputs: tuple[Tensor, ...]
) -> str | None:
    """Why the model without this child is not the one that skips it; None if it is."""
    before = holder._modules
    kept = [m for i, m in enumerate(before.values()) if i != child]
    try:
        holder._modules = {str(i): m for i, m in enumerate(kept)}
        left = _recorded(module, {path: holder}, inputs)[path]
    except Exception as e:  # whatever the model raises
        return f"without one of its blocks the model fails: {type(e).__name__}: {e}"
    finally:
        holder._modules = before
    first, body, *_, last = row.parts()
    return None if left.parts() == [first, *[body] * (len(kept) - 1), last] else OWN


def _recorded(module: nn.Module, holders: Mapping[str, nn.Module], inputs: tuple[Tensor, ...]) -> dict[str, _Row]:
    """The calls of the children of each holder, by path, in one pass."""
    record = _Record(module)
    found: dict[str, _Row] = {path: _Row(record) for path in holders}
    before: dict[str, Hook] = {}
    after: dict[str, Hook] = {}
    for path, holder in holders.items():
        for i, name in enumerate(dict(holder.named_children())):
            child = f"{path}.{name}" if path else name
            before[child], after[child] = partial(found[path].enter, i), found[path].leave
    with torch.inference_mode(), watched(module, after, before=before, with_kwargs=True), record:
        module(*inputs)
    return found
