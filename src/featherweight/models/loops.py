"""Does a model do the same around each of its blocks? Only then the model without a block is the
model that skips it: where a loop pairs the blocks with norms, with scales, with skips or with their
numbers, those that follow would be paired with what belonged to others.

Notation: calls C_0 .. C_n-1 of a row's children, in order; S_i all that is done just before C_i,
outside of the children, S_n what is done after the last. A loop has a body p C s, so that
S_1 = .. = S_n-1 = s p, S_0 ends with p and S_n begins with s. What a step of S_i takes was made
`here` (in S_i), by the `block` just before (C_i-1), in the round `before` (S_i-1), or ahead of the
loop (S_0); a loop that takes the same in each round carries on one state, and to leave out a block
is to leave out a round.
"""

from __future__ import annotations

import re
import weakref
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .hooks import Hook, watched

# a step: a function's name and its arguments, each as what is the same in every round (`said`) and,
# of a tensor, which step made it, as its how manieth output (`made`)
Step = tuple[str, tuple[tuple[Any, tuple[int, int] | None], ...]]
BLOCK = "a block"  # the step that stands for a child's return
OWN = "what is done around its blocks is not the same for each: they belong to norms, scales or numbers"
ORDER = "its blocks do not run one after the other, each once"
GIVEN = "its blocks are not given the same: each has arguments of its own"
READ = "the model reads weights of its blocks outside of them"


class _Record(TorchFunctionMode):
    """What is done, step by step. Parameters and buffers go by name, tensors by shape and by the
    step that made them, other objects by the order in which they were first seen."""

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.names = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
        self.steps: list[Step] = []
        self.made: dict[int, tuple[Any, tuple[int, int]]] = {}  # by id; with a weak reference, as ids are used again
        self.seen: dict[int, tuple[int, Any]] = {}  # objects by id, kept lest their ids are used again
        self.mine = False  # is it this module that looks at tensors just now?
        self.note("the inputs", (), inputs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.mine:
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__qualname__", str(func))
        words = self.words((args, kwargs or {}))
        out = func(*args, **(kwargs or {}))
        changed = args[:1] if re.search(r"__setitem__$|[^_]_$", name) else ()
        self.note(name, words, (out, changed))
        return out

    def note(self, name: str, words: tuple[Any, ...], out: Any) -> None:
        """One more step, and the tensors that it made."""
        for k, t in enumerate(tree_leaves(out)):
            if isinstance(t, torch.Tensor) and id(t) not in self.names:
                self.made[id(t)] = weakref.ref(t), (len(self.steps), k)
        self.steps.append((name, words))

    def words(self, values: Any) -> tuple[tuple[Any, tuple[int, int] | None], ...]:
        return tuple(map(self.word, tree_leaves(values)))

    def word(self, value: Any) -> tuple[Any, tuple[int, int] | None]:
        if isinstance(value, torch.Tensor):
            if (name := self.names.get(id(value))) is not None:
                return ("weight", name), None
            alive, at = self.made.get(id(value), (lambda: None, (0, 0)))
            if alive() is value:
                return ("tensor", tuple(value.shape), str(value.dtype)), at
        elif isinstance(value, slice):
            return ("slice", self.words((value.start, value.stop, value.step))), None
        elif isinstance(value, np.ndarray):
            return ("array", value.shape, str(value.dtype), value.tobytes()), None
        elif isinstance(value, int | float | bool | str | complex | type(None) | np.generic) or isinstance(
            value, torch.dtype | torch.device | torch.layout | torch.memory_format
        ):
            return (type(value).__name__, repr(value)), None
        number, _ = self.seen.setdefault(id(value), (len(self.seen), value))
        return ("object", type(value).__name__, number), None


class _Row:
    """The calls of a row's children: where each began and ended among the steps, and what it was
    given. path: of the row."""

    def __init__(self, record: _Record, path: str) -> None:
        self.record, self.path = record, path
        self.order: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.given: list[tuple[Any, ...]] = []

    def enter(self, i: int, _: nn.Module, args: Any, kwargs: Any) -> None:
        self.order.append(i)
        self.record.mine = True
        self.given.append(self.record.words((args, kwargs)))
        self.record.mine = False
        self.spans.append((len(self.record.steps), -1))

    def leave(self, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.record.note(BLOCK, (), out)
        self.spans[-1] = (self.spans[-1][0], len(self.record.steps))

    def parts(self) -> list[list[Any]]:
        """S_0 .. S_n, what tensors are told from the part that they stand in."""
        steps, n = self.record.steps, len(self.spans)
        ends = [0, *(end for _, end in self.spans)]
        starts = [*(start for start, _ in self.spans), len(steps)]
        return [[(name, self._told(words, j)) for name, words in steps[ends[j] : starts[j]]] for j in range(n + 1)]

    def arguments(self) -> list[Any]:
        """What C_0 .. C_n-1 were given; tensors of any shape, for one of them may change it."""
        told = [self._told(words, j) for j, words in enumerate(self.given)]
        return [tuple((said[:1] if said[0] == "tensor" else said, whence) for said, whence in one) for one in told]

    def _told(self, words: tuple[Any, ...], j: int) -> tuple[Any, ...]:
        return tuple((said, None if made is None else self._whence(made[0], made[1], j)) for said, made in words)

    def _whence(self, step: int, k: int, j: int) -> tuple[Any, ...]:
        """Where a tensor that stands in S_j was made."""
        edges = [edge for span in self.spans for edge in span]  # S_0, C_0, S_1, C_1, .. begin at 0 and these
        at = bisect_right(edges, step)
        part, inside = divmod(at, 2)
        if inside:  # of a block only what it returns, counted from its end, has a place
            return ("block" if part == j - 1 else "an earlier block", step - edges[at], k)
        offset = step - (edges[at - 1] if at else 0)
        if part == j:
            return ("here", offset, k)
        return ("ahead", offset, k) if part == 0 else ("before" if part == j - 1 else "earlier", offset, k)

    def _of_a_child(self, name: str) -> bool:
        """Is it a weight of one of the row's children? Those of the row itself, as what the model
        does to its inputs if the row is all of it, are none of a block's."""
        prefix = f"{self.path}." if self.path else ""
        return name.startswith(prefix) and "." in name.removeprefix(prefix)

    def fault(self, children: int) -> str | None:
        """Why a child cannot be left out; None if the loop does the same around each."""
        if self.order != list(range(children)):
            return ORDER
        parts, given = self.parts(), self.arguments()
        if any(
            said[0] == "weight" and self._of_a_child(said[1])
            for part in parts
            for _, words in part
            for said, _ in words
        ):
            return READ
        first, *bodies, last = parts
        if any(not _alike(a, b) for a, b in pairwise(bodies)) or _after(first, bodies, last) is None:
            return OWN
        if any(not _alike([("", a)], [("", b)]) for a, b in pairwise(given[1:])) or not _fits(given):
            return GIVEN
        return None


def _alike(a: list[Any], b: list[Any]) -> bool:
    """Are two parts, one a round after the other, the same? Where the later one takes what the
    round before made, the first round takes what was there ahead of the loop."""
    return len(a) == len(b) and all(
        name == other
        and len(words) == len(others)
        and all(
            said == same
            and (
                made == whence
                or (made is not None and made[0] == "ahead" and whence is not None and whence[0] == "before")
            )
            and (whence is None or whence[0] not in ("earlier", "an earlier block"))
            for (said, made), (same, whence) in zip(words, others, strict=True)
        )
        for (name, words), (other, others) in zip(a, b, strict=True)
    )


def _after(first: list[Any], bodies: list[list[Any]], last: list[Any]) -> int | None:
    """How many steps after the last block still belong to its round; None if what is done before
    the first block and after the last does not fit the rounds, or what follows the loop takes what
    an earlier round made."""
    body = bodies[-1] if bodies else []
    said = [[(name, tuple(word for word, _ in words)) for name, words in part] for part in (first, body, last)]
    for k in range(len(body), -1, -1):
        ahead = len(body) - k
        if ahead > len(first) or said[1][:k] != said[2][:k] or said[1][k:] != said[0][len(first) - ahead :]:
            continue
        rest = [whence for _, words in last[k:] for _, whence in words if whence is not None]
        if _alike(body[:k], last[:k]) and all(w[0] in ("here", "block", "ahead") for w in rest):
            return k
    return None


def _fits(given: list[Any]) -> bool:
    """Is the first child given what the others are, from ahead of the loop where they take it from
    the round before?"""
    if len(given) < 2:
        return True
    return len(given[0]) == len(given[1]) and all(
        said == same
        and (whence is None or whence[0] in ("here", "block", "ahead", "before"))
        and (
            made == whence or (made is not None and whence is not None and whence[0] != "ahead") or _same(made, whence)
        )
        for (said, made), (same, whence) in zip(given[0], given[1], strict=True)
    )


def _same(made: tuple[Any, ...] | None, whence: tuple[Any, ...] | None) -> bool:
    """Both from ahead of the loop: the one told from S_0 itself, the other from a later part."""
    return made is not None and whence is not None and made[0] == "here" and whence == ("ahead", *made[1:])


def unlike(module: nn.Module, rows: Mapping[str, Sequence[int]], inputs: tuple[Tensor, ...]) -> dict[str, str]:
    """{path of a ModuleList or Sequential: why no child can be left out}, of rows {path: children
    that keep their input's shape} those around whose children the model does not do the same. A
    pass of `inputs`, and two for each row, without the first and the last of these children."""
    found = _recorded(module, {path: module.get_submodule(path) for path in rows}, inputs)
    out = {}
    for path, able in rows.items():
        holder, row = module.get_submodule(path), found[path]
        why = row.fault(len(holder._modules))
        for child in dict.fromkeys((able[0], able[-1])):
            why = why or _without(module, path, holder, child, row, inputs)
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
    if left.order != list(range(len(kept))):
        return ORDER
    parts, given, whole, asked = left.parts(), left.arguments(), row.parts(), row.arguments()
    same = parts[:-1] == whole[: len(kept)] and given == asked[: len(kept)]
    # what follows a single block takes from ahead of the loop what it took from the round before
    after = parts[-1] == whole[-1] or (len(kept) == 1 and _alike(parts[-1], whole[-1]))
    return None if same and after else OWN


def _recorded(module: nn.Module, holders: Mapping[str, nn.Module], inputs: tuple[Tensor, ...]) -> dict[str, _Row]:
    """The calls of the children of each holder, by path, in one pass."""
    record = _Record(module, inputs)
    found: dict[str, _Row] = {path: _Row(record, path) for path in holders}
    before: dict[str, Hook] = {}
    after: dict[str, Hook] = {}
    for path, holder in holders.items():
        for i, name in enumerate(dict(holder.named_children())):
            child = f"{path}.{name}" if path else name
            before[child], after[child] = partial(found[path].enter, i), found[path].leave
    with torch.inference_mode(), watched(module, after, before=before, with_kwargs=True), record:
        module(*inputs)
    return found
