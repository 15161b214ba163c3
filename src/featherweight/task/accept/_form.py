"""Samples as splits of a task: inputs named as the model takes them, targets as its loss does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import ArraySplit, Batch, LazySplit, Split, Splits
from ._arrays import numbers_of
from ._batches import Samples
from ._module import evaluated
from ._samples import Arrays
from ._targets import Meaning

if TYPE_CHECKING:
    from torch import nn


class Read(Samples):
    """A Split, as it is."""

    def __init__(self, data: Split) -> None:
        self.data, self.classes = data, data.classes

    def __len__(self) -> int:
        return len(self.data)

    def read(self, index: np.ndarray) -> Batch:
        return self.data.batch(index)


class Converted(Split):
    """A Split with targets as they are meant."""

    def __init__(self, data: Split, means: Meaning) -> None:
        self.data, self.means, self.classes = data, means, data.classes or means.classes

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, index: np.ndarray) -> Batch:
        inputs, targets = self.data.batch(index)
        return inputs, self.means.convert(np.asarray(targets))


class Form:
    """Makes splits of samples: inputs named as the model's, targets as its loss takes them, or, of
    data without, what the model that `original` makes gives."""

    def __init__(
        self, rename: dict[str, str], kinds: Mapping[str, Any], means: Meaning, original: Callable[[], nn.Module] | None
    ) -> None:
        self.rename, self.kinds, self.means, self.original = rename, dict(kinds), means, original

    @property
    def converts(self) -> bool:
        """Do targets of a Split have to be converted? Those at places have: what does not count,
        and how yes is written, differs."""
        return self.original is None and self.means.axis is not None and self.means.loss != "ctc"

    def cut_before(self, found: Splits) -> Splits:
        """Splits that were cut before, with what they know of groups and copies."""
        if not self.converts:
            return found
        train, valid, test = (Converted(part, self.means) for part in (found.train, found.valid, found.test))
        seen = f"{found.fingerprint} {self.means.convert!r}".encode()
        mark = hashlib.sha256(seen).hexdigest() if found.fingerprint else ""
        return replace(found, train=train, valid=valid, test=test, fingerprint=mark)

    def split(self, found: Samples) -> Split:
        if isinstance(found, Read) and self.original is None:
            return Converted(found.data, self.means) if self.converts else found.data
        if self.original is not None:
            answers = self._answers(found)
            return _Beside(found, self, answers)
        classes = self.means.classes
        if isinstance(found, Arrays):
            targets = found.targets()
            inputs = {self.rename[k]: self._input(k, v) for k, v in found.inputs.items() if k in self.rename}
            return ArraySplit(
                {k: inputs[k] for k in self.rename.values()}, self.means.convert(np.asarray(targets)), classes
            )
        return LazySplit(len(found), _Reader(found, self), classes)

    def _input(self, name: str, array: np.ndarray) -> np.ndarray:
        if name in self.kinds:
            return array.astype(self.kinds[name])
        return numbers_of(array)

    def inputs(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {new: self._input(k, np.asarray(rows[k])) for k, new in self.rename.items()}

    def _answers(self, found: Samples) -> np.ndarray:
        """What the original gives for all samples, computed once."""
        import torch

        from ..tensors import as_tensor

        assert self.original is not None
        module = self.original()
        parts = []
        with evaluated(module), torch.random.fork_rng(devices=[]):
            for start in range(0, len(found), 64):
                rows, _ = found.read(np.arange(start, min(start + 64, len(found))))
                parts.append(module(*[as_tensor(v) for v in self.inputs(rows).values()]).float().numpy())
        return np.concatenate(parts)


class _Reader:
    """Reads a batch of samples in the form of the task."""

    def __init__(self, found: Samples, form: Form) -> None:
        self.found, self.form = found, form

    def __call__(self, index: np.ndarray) -> Batch:
        rows, targets = self.found.read(index)
        return self.form.inputs(rows), self.form.means.convert(np.asarray(targets))


class _Beside(Split):
    """Samples with the answers of the original as targets."""

    def __init__(self, found: Samples, form: Form, answers: np.ndarray) -> None:
        self._found, self._form, self._answers = found, form, answers

    def __len__(self) -> int:
        return len(self._found)

    def batch(self, index: np.ndarray) -> Batch:
        return self._form.inputs(self._found.read(index)[0]), self._answers[index]
