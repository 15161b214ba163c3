"""Parts of what people have as arrays: what is one, how many rows it has, and its numbers as models
take them. Other libraries are known by what their objects are, and never imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import TaskError


def is_a(value: Any, package: str, name: str | None) -> bool:
    """Is it an object of a package's class of that name, or of one that derives from it?"""
    for c in type(value).__mro__:
        if (c.__module__ == package or c.__module__.startswith(package + ".")) and name in (None, c.__name__):
            return True
    return False


def rows_of(value: Any) -> int | None:
    """How many rows an array-like of whole data has; None if it is none."""
    if isinstance(value, (str, bytes, int, float)) or value is None:
        return None
    if is_a(value, "pandas", None) or isinstance(value, Mapping):
        return len(value) if not isinstance(value, Mapping) else rows_of(next(iter(value.values()), None))
    found = array_of(value)
    if found is not None:
        return len(found) if found.ndim else None
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(v, str) for v in value):
            return len(value)
        counts = {rows_of(v) for v in value}
        return counts.pop() if len(counts) == 1 else None
    return None


def array_of(value: Any) -> np.ndarray | None:
    """An array, a tensor, or nested lists of numbers as an array; None for what is none of them.
    TaskError for a masked array."""
    if isinstance(value, np.ma.MaskedArray):
        raise TaskError("a masked array has values that are none", got=type(value).__name__, fix="array.filled(..)")
    if isinstance(value, np.ndarray):
        return value
    if is_a(value, "torch", "Tensor"):
        return of_tensor(value)
    if is_a(value, "pandas", "Series"):
        return np.asarray(value.to_numpy())
    if isinstance(value, (list, tuple)) and value and not any(is_a(v, "torch", "Tensor") for v in value):
        if all(isinstance(v, np.ndarray) for v in value):
            return None  # several inputs, or samples
        try:
            found = np.asarray(value)
        except ValueError:  # rows of different lengths
            return None
        return found if found.dtype.kind in "biufUS" and found.ndim else None
    return None


def of_tensor(value: Any) -> np.ndarray:
    import torch

    value = value.detach().cpu()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return np.asarray(value.numpy())


def whole(value: Any, name: str) -> np.ndarray:
    """An input of whole data. Numbers of 64 bits are kept as they lie (`numbers_of` converts what
    is read)."""
    found = value.to_numpy() if is_a(value, "pandas", None) else array_of(value)
    if found is None or found.dtype.kind not in "biuf" or not found.ndim:
        got = "no array" if found is None else f"an array of {found.dtype}"
        raise TaskError(f"{name} cannot be read", got=f"{type(value).__name__}: {got}", allowed="numbers [n, ...]")
    return found


def batched(value: Any, name: str, n: int, *, numbers: bool = True) -> np.ndarray:
    """A part of a batch as an array [n, ...]."""
    found = array_of(value)
    if found is None:
        found = np.asarray(value)
    if (numbers and found.dtype.kind not in "biuf") or not found.ndim or (n >= 0 and len(found) != n):
        kind = f"{type(value).__name__} of {found.dtype}{list(found.shape)}"
        raise TaskError(
            f"{name} cannot be read from the samples", got=kind, allowed="numbers, one row a sample, of one shape"
        )
    return numbers_of(found) if numbers else found


def numbers_of(array: np.ndarray) -> np.ndarray:
    """As models take them: float32, and int64 for whole numbers of 32 bits and more."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iu" and array.dtype.itemsize >= 4:
        return array.astype(np.int64, copy=False)
    return array
