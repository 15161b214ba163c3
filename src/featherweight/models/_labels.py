"""Which channel every number of a model belongs to, kept beside the memory that holds it.

Notation: a *label* is a whole number, the name of a channel: 0 where a number belongs to none (a
constant that fits whatever width there is). Two labels are *tied* where their channels can only be
cut together, and *fixed*, for a reason, where they cannot be cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_SWEEP = 256  # tensors after which the labels of memory that is gone are forgotten
WAYS = ("equal parts", "whole parts", "last part")  # in which what is taken apart may shrink


class Memory:
    """The labels of every storage that has some. A view of a tensor reads and writes the labels of
    the tensor, whatever its shape and strides are: they are strided alike."""

    def __init__(self) -> None:
        self._at: dict[tuple[int, int], tuple[StorageWeakRef, Tensor]] = {}
        self._puts = 0

    def get(self, t: Tensor) -> Tensor | None:
        """The labels of `t`, shaped as it is, as a view; None if its storage has none."""
        found = self._at.get(key(t)) if t.layout == torch.strided else None
        return None if found is None else found[1].as_strided(t.size(), t.stride(), t.storage_offset())

    def put(self, t: Tensor, labels: Tensor) -> None:
        """Give the storage of `t` labels: these where `t` is, 0 elsewhere.
        labels: of its shape, or what expands to that."""
        if t.layout != torch.strided:
            return
        self._puts += 1
        if self._puts % _SWEEP == 0:
            self._at = {k: v for k, v in self._at.items() if not v[0].expired()}  # type: ignore[no-untyped-call]
        storage = t.untyped_storage()
        flat = torch.zeros(storage.nbytes() // t.element_size(), dtype=torch.long)
        flat.as_strided(t.size(), t.stride(), t.storage_offset()).copy_(labels)
        # the weak reference keeps the address from being used again
        self._at[key(t)] = StorageWeakRef(storage), flat  # type: ignore[no-untyped-call]


def key(t: Tensor) -> tuple[int, int]:
    """What its memory is known by."""
    return t.untyped_storage()._cdata, t.element_size()


def _unique(labels: Tensor) -> Tensor:
    """Each number once. labels: flat; runs of one number first, of which there are many."""
    return torch.unique(torch.unique_consecutive(labels))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Part:
    """Somewhere a run of channels is taken apart: labels [C]; block: the size of the parts, or what
    all their sizes are multiples of; start: where the last part starts."""

    labels: Tensor
    block: int
    start: int


class Ties:
    """Labels, which of them are tied, which are fixed and why, and where runs of them are taken
    apart."""

    def __init__(self) -> None:
        self.count = 1
        self.pairs: list[tuple[Tensor, Tensor, str]] = []
        self.fixed: list[tuple[Tensor, str]] = []
        self.parts: list[Part] = []

    def new(self, n: int, reason: str = "") -> Tensor:
        """n labels that no one has; fixed if there is a reason."""
        labels = torch.arange(self.count, self.count + n)
        self.count += n
        if reason:
            self.fix(labels, reason)
        return labels

    def tie(self, a: Tensor, b: Tensor, reason: str = "") -> None:
        """Tie the labels of two tensors, number by number. reason: what is said of a layer whose
        channels are all tied."""
        a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
        both = (a != 0) & (b != 0) & (a != b)
        if bool(both.any()):
            pairs = _unique(a[both] * self.count + b[both])  # as one number each
            self.pairs.append((pairs // self.count, pairs % self.count, reason))

    def tie_along(self, labels: Tensor, dims: Iterable[int], reason: str = "") -> Tensor:
        """Tie all labels that differ along `dims` alone; one of each run,
        with the dimensions kept."""
        dims = list(dims)
        if not dims or labels.numel() == 0:
            return labels
        one = labels.amax(dims, keepdim=True)
        self.tie(labels, one, reason)
        return one

    def fix(self, labels: Tensor, reason: str) -> None:
        found = _unique(labels.flatten())
        found = found[found != 0]
        if len(found):
            self.fixed.append((found, reason))

    def apart(self, labels: Tensor, points: Iterable[int]) -> None:
        """A run of labels [C] is taken apart at these points."""
        inside = [p for p in points if 0 < p < len(labels)]
        if inside and bool((labels != labels[0]).any()):
            self.parts.append(Part(labels.clone(), gcd(len(labels), *inside), max(inside)))

    def components(self, ways: dict[int, str]) -> tuple[np.ndarray, dict[int, str], dict[int, str]]:
        """([labels] the component that each is in; {component: why it is fixed}; {component: what
        tied it}). ways: {index of a part: which of `WAYS` it shrinks in}.

        Of several reasons the last counts: what becomes of channels at the end of the model says
        most about them.
        """
        pairs, fixed = list(self.pairs), list(self.fixed)
        for i, way in ways.items():
            part = self.parts[i]
            at = torch.arange(len(part.labels))
            if way == "last part":
                fixed.insert(0, (part.labels[: part.start], "the model's code takes them by their number"))
            else:
                first = at % part.block if way == "equal parts" else at // part.block * part.block
                pairs.append((part.labels, part.labels[first], ""))
        ends = [torch.zeros(2, 0, dtype=torch.long), *(torch.stack(p[:2]) for p in pairs)]
        a, b = torch.cat(ends, 1).numpy()
        graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(self.count, self.count))
        of = connected_components(graph, directed=False)[1]
        why = {int(c): reason for labels, reason in fixed for c in np.unique(of[labels.numpy()])}
        tied = {int(c): reason for x, _, reason in pairs if reason for c in np.unique(of[x.numpy()])}
        return of, why, tied
