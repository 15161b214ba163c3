"""Samples that are read when they are wanted, by row number: of Datasets and DataLoaders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import FeatherweightError, TaskError
from ...seeding import derive
from ._batches import Samples, Wanted, decoded

_LOOKED_AT = 32  # samples that are read three times, to see whether they are drawn at random


class Fetched(Samples):
    """What `fetch(rows)` gives for a list of row numbers: a batch as a DataLoader gives it.

    Where a collate function fills each batch up to its longest sample, all are filled up to the
    longest of all: each batch is read with `longest` behind it, samples as the dataset gives them
    (then fetch is one of `fetching`)."""

    def __init__(self, n: int, fetch: Callable[..., Any], wanted: Wanted, label: str | None) -> None:
        self._n, self._fetch, self._wanted, self._label = n, fetch, wanted, label
        self._seeded = False
        self.longest: list[Any] = []
        if n and isinstance(fetch, _Fetching) and fetch.collate is not None and self._differ():
            self.notes = self._even(fetch)
        if n and self._drawn():
            self._seeded = True
            self.notes += (
                "a sample of these data is another one each time that it is read (augmentation?): each is drawn once, "
                "by its row number, and stays so",
            )

    def __len__(self) -> int:
        return self._n

    def read(self, index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        rows = [int(i) for i in index]
        if self._seeded:
            return decoded(self._each(rows), self._wanted, self._label, len(rows))
        return self._rows(rows)

    def _rows(self, rows: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The rows, as long as the longest of all."""
        n, more = len(rows), len(self.longest)
        batch = self._fetch(rows, self.longest) if more else self._fetch(rows)
        inputs, targets = decoded(batch, self._wanted, self._label, n + more)
        return {k: v[:n] for k, v in inputs.items()}, None if targets is None else targets[:n]

    def lengthen(self, longest: Sequence[Any]) -> None:
        """Reads each batch with these samples behind it."""
        if isinstance(self._fetch, _Fetching) and self._fetch.collate is not None:
            self.longest = list(longest)

    def _differ(self) -> bool:
        """Do samples differ in shape, one by one?"""
        rows = np.unique(np.linspace(0, self._n - 1, _LOOKED_AT).astype(int)).tolist()
        return len({tuple(self._shape(row)) for row in rows}) > 1

    def _shape(self, row: int) -> list[int]:
        """The lengths of a sample's inputs and targets along all their axes."""
        with seeds(derive(0, "look", "shape")):
            inputs, targets = decoded(self._fetch([row]), self._wanted, self._label, 1)
        return _lengths(inputs, targets)

    def _even(self, fetch: _Fetching) -> tuple[str, ...]:
        """Finds the samples that are the longest along some axis; what is to be said. TaskError if
        batches with them are not all of one shape."""
        shapes = [self._shape(row) for row in range(self._n)]
        if len({len(shape) for shape in shapes}) > 1:
            raise TaskError("samples differ in their number of axes", got=f"rows 0 to {self._n - 1}")
        sizes = np.array(shapes)
        uneven = np.flatnonzero(sizes.min(0) < sizes.max(0)).tolist()
        said = ", ".join(dict.fromkeys(f"{sizes[:, k].min()} to {sizes[:, k].max()}" for k in uneven))
        self.longest = fetch.raw(sorted({int(sizes[:, k].argmax()) for k in uneven}))
        for rows in ([0], list(range(min(3, self._n)))):
            inputs, targets = self._rows(rows)
            if _lengths(inputs, targets) != sizes.max(0).tolist():
                raise TaskError(
                    "samples of these data differ in length, and their collate function makes no batches of one",
                    got=f"lengths of {said}",
                    allowed="samples of one size, or a collate_fn that fills each batch up to its longest",
                    fix="pad all samples to one length in the dataset (targets with -100)",
                )
        return (f"samples have lengths of {said}: all are filled up to the longest, as collate_fn does with a batch's",)

    def _each(self, rows: list[int]) -> Any:
        """The batch, each sample drawn under a seed of its own."""
        parts = []
        for row in rows:
            with seeds(derive(0, "sample", str(row))):
                parts.append(self._rows([row]))
        targets = [t for _, t in parts if t is not None]
        inputs = {name: np.concatenate([p[name] for p, _ in parts]) for name in parts[0][0]}
        return (inputs, np.concatenate(targets)) if targets else inputs

    def _drawn(self) -> bool:
        """Are some samples other ones when they are read again?"""
        rows = np.unique(np.linspace(0, self._n - 1, _LOOKED_AT).astype(int)).tolist()
        other = next((r for r in rows if len({self._drawn_under(f"{r} {k}", r) for k in range(3)}) > 1), None)
        if other is not None and len({self._drawn_under("0", other) for _ in range(4)}) > 1:
            raise TaskError(
                "samples of these data are drawn at random, by a generator of the dataset's own",
                got=f"row {other} is another one each time",
                fix="draw from torch's, NumPy's or Python's global generator, or give the data as they are",
            )
        return other is not None

    def _drawn_under(self, name: str, row: int) -> bytes:
        """A sample with its target, as bytes, drawn under a seed of this name."""
        with seeds(derive(0, "look", name)):
            inputs, targets = self._rows([row])
        return b"".join(v.tobytes() for v in inputs.values()) + repr(targets).encode()


def _lengths(inputs: Mapping[str, np.ndarray], targets: np.ndarray | None) -> list[int]:
    """Of a batch: the number of axes of each part, and its lengths along all but the first."""
    parts = [*inputs.values(), *([] if targets is None else [targets])]
    return [size for part in parts for size in (part.ndim, *part.shape[1:])]


def as_long(parts: Iterable[Samples]) -> None:
    """Fills the samples of all splits up to the longest of them all."""
    found = [part for part in parts if isinstance(part, Fetched)]
    longest = [one for part in found for one in part.longest]
    for part in found:
        part.lengthen(longest)


class seeds:
    """The global generators of random, NumPy and torch under a seed, put back afterwards: what
    augments samples draws from them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        import torch

        self._before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self._seed)
        np.random.seed(self._seed % 2**32)
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        import torch

        random.setstate(self._before[0])
        np.random.set_state(self._before[1])
        torch.set_rng_state(self._before[2])


def fetching(dataset: Any, collate: Callable[[list[Any]], Any] | None, rows: Sequence[int] | None = None) -> Any:
    """fetch(row numbers, other samples) -> a batch of a map-style dataset, with these behind it;
    fetch.raw(row numbers): its samples."""
    return _Fetching(dataset, collate, rows)


class _Fetching:
    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] | None, rows: Sequence[int] | None) -> None:
        self.dataset, self.collate, self.rows = dataset, collate, rows

    def raw(self, index: Sequence[int]) -> list[Any]:
        places = list(index) if self.rows is None else [self.rows[i] for i in index]
        many = getattr(self.dataset, "__getitems__", None)
        try:
            return list(many(places) if callable(many) else [self.dataset[i] for i in places])
        except FeatherweightError:
            raise
        except Exception as e:  # whatever the user's dataset raises
            raise TaskError(
                "the dataset does not give its samples", got=f"rows {places[:3]}: {type(e).__name__}: {e}"
            ) from e

    def __call__(self, index: Sequence[int], beside: Sequence[Any] = ()) -> Any:
        from torch.utils.data import default_collate

        got = self.raw(index)
        try:
            return (self.collate or default_collate)([*got, *beside])
        except (TypeError, RuntimeError) as e:  # what collating raises for what has no common form
            raise TaskError(
                "samples of the dataset make no batch",
                got=f"rows {list(index)[:3]}: {str(e)[:300]}",
                allowed="tensors or arrays of one shape and type each",
                fix="convert images to tensors of one size, and pad texts to one length",
            ) from e
