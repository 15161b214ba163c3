"""Data of a task, its splits, and how they are made. numpy only; no torch here.

Everything streams: a split is read batch by batch, and of each sample only two sha256 digests
(64 bytes) are kept.

Notation: a *unit* is a set of rows that must stay on one side: exact copies of one sample, or
one group of `groups`; a *digest* is a sha256 as numpy `S32` (sortable, and exact: all are
32 bytes long).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import TaskError
from ..seeding import generator

Inputs = dict[str, np.ndarray]  # by input name, the first axis is the batch
Batch = tuple[Inputs, np.ndarray]
PARTS = ("train", "valid", "test")
IGNORED = -100  # the target of a place (a pixel, a token) that does not count, as torch has it
_CHUNK = 256  # samples read at a time while hashing


class Split(ABC):
    """Abstract: samples that can be read by row number. `classes`:
    names of the integer targets 0, 1, ..., if known."""

    classes: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def batch(self, index: np.ndarray) -> Batch:
        """Inputs by name, each [len(index), ...], and targets [len(index), ...],
        for these row numbers in this order."""

    def batches(self, size: int = _CHUNK) -> Iterator[Batch]:
        """All samples in order of row, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))

    def all_targets(self) -> np.ndarray:
        """The targets [n, ...] of all samples, read batch by batch."""
        return np.concatenate([targets for _, targets in self.batches()])


class ArraySplit(Split):
    """Arrays in memory or memory-mapped (`np.load(file, mmap_mode="r")`):
    inputs by name [n, ...], targets [n, ...]."""

    def __init__(self, inputs: Inputs, targets: np.ndarray, classes: Sequence[str] | None = None) -> None:
        if not isinstance(inputs, dict) or not inputs:
            raise TaskError(
                "inputs have to be named",
                got=f"{type(inputs).__name__}",
                allowed='{"image": array}, one entry an input of the model',
            )
        self.inputs = {str(name): v if isinstance(v, np.ndarray) else np.asarray(v) for name, v in inputs.items()}
        self.targets = targets if isinstance(targets, np.ndarray) else np.asarray(targets)
        self.classes = None if classes is None else tuple(map(str, classes))
        parts = {**{name or "inputs": v for name, v in self.inputs.items()}, "targets": self.targets}
        lengths = {name: (len(v) if v.ndim else None) for name, v in parts.items()}
        if len(set(lengths.values())) != 1 or None in lengths.values():
            raise TaskError(
                "inputs and targets have different lengths", got=lengths, allowed="one row a sample in every array"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: np.ndarray) -> Batch:
        return {name: np.asarray(v[index]) for name, v in self.inputs.items()}, np.asarray(self.targets[index])


class LazySplit(Split):
    """`n` samples that `read(index)` fetches (decodes, tokenizes) when they are wanted,
    as `Split.batch` says."""

    def __init__(self, n: int, read: Callable[[np.ndarray], Batch], classes: Sequence[str] | None = None) -> None:
        self._n, self._read = int(n), read
        self.classes = None if classes is None else tuple(map(str, classes))

    def __len__(self) -> int:
        return self._n

    def batch(self, index: np.ndarray) -> Batch:
        inputs, targets = self._read(index)
        inputs, targets = {name: np.asarray(v) for name, v in inputs.items()}, np.asarray(targets)
        lengths = {name: v.shape[0] if v.ndim else None for name, v in {**inputs, "targets": targets}.items()}
        if set(lengths.values()) != {len(index)}:
            raise TaskError(
                "the reader gave batches of the wrong length", got=lengths, allowed=f"{len(index)} rows in every array"
            )
        return inputs, targets


class Subset(Split):
    """The rows `index` of another split, in that order."""

    def __init__(self, parent: Split, index: np.ndarray) -> None:
        self.parent, self.index, self.classes = parent, np.asarray(index, dtype=np.int64), parent.classes

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, index: np.ndarray) -> Batch:
        return self.parent.batch(self.index[index])


def calibration_rows(split: Split, n: int, seed: int) -> np.ndarray:
    """The row numbers, rising, of the `n` random samples (all, if there are fewer) that
    calibrate under `seed`.

    Drawn here only: a plan is made, judged and exported on the same samples."""
    return np.sort(generator(seed, "calibration").permutation(len(split))[:n])


@dataclass(frozen=True)
class Splits:
    """train: for transforms; valid: for the search; test: opened once, for the winners.

    report: JSON data on how the splits came about (sizes, classes, duplicates, label conflicts,
    seed, fractions); fingerprint: sha256 of the contents of the three splits; units: of "valid" and
    "test", [n], a number for each row: rows with one number, copies or one group, count as one
    sample, those below 0, which are in a split before, do not count at all (none: all rows count).
    """

    train: Split
    valid: Split
    test: Split
    report: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    units: dict[str, np.ndarray] = field(default_factory=dict)
