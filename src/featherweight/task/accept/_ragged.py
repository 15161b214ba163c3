"""Samples of different lengths, as token lists have them: made one length, where it is plain how.

A model that is exported reads inputs of one size, and samples are told apart by what is in them, so
no batch may be filled up to its own longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import TaskError
from ..data import IGNORED
from ._arrays import array_of, is_a, of_tensor

_TARGETS = "the targets"


def evened(data: Any, targets: Sequence[Any]) -> tuple[Any, tuple[str, ...]]:
    """(whole data, (inputs, targets) or arrays by name, with lists of different lengths filled up:
    inputs with 0, targets with -100, at the end; notes). targets: the names that theirs may have.
    Other data as they are. TaskError where samples of different lengths cannot be made one."""
    if isinstance(data, (tuple, list)) and len(data) == 2:
        first = dict(data[0]) if isinstance(data[0], Mapping) else {"": data[0]}
        made, notes = _evened(first, data[1])
        if notes:
            labels = made.pop(_TARGETS)
            return (made if isinstance(data[0], Mapping) else made[""], labels), notes
    elif isinstance(data, Mapping):
        key = next((k for k in targets if k in data), None)
        made, notes = _evened({k: v for k, v in data.items() if k != key}, None if key is None else data[key])
        if notes:
            return {**made, key: made.pop(_TARGETS)}, notes
    return data, ()


def _evened(inputs: dict[Any, Any], targets: Any) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """(the inputs by name, and the targets as `_TARGETS`, of one length; notes: none if they are
    so)."""
    rows = {name: found for name, value in inputs.items() if (found := ragged(value)) is not None}
    labels = ragged(targets)
    if not rows and labels is None:
        return {}, ()
    if rows and labels is None:
        one = next(iter(rows))
        raise TaskError(
            f"samples of {f'the input {one!r}' if one else 'the inputs'} have different lengths",
            got=f"{_span(rows[one])} numbers a sample",
            allowed="one length; lists of different lengths only with as many targets",
            fix="pad them to one length, as the model was trained (a tokenizer: padding='max_length')",
        )
    assert labels is not None
    lengths = [len(v) for v in labels]
    for name, found in rows.items():
        _check_beside(name, [len(v) for v in found], lengths)
    wide = max(lengths)
    notes = []
    if not rows:
        wide = _width(inputs, lengths)
    made = {name: _filled(rows[name], None, 0) if name in rows else value for name, value in inputs.items()}
    beside = f"inputs with 0 and targets with {IGNORED}" if rows else f"with {IGNORED}"
    notes.append(
        f"targets have {_span(labels)} labels a sample: they are filled up at the end, {beside}, which does not count"
    )
    names = any(isinstance(v, str) for v in labels[0])
    made[_TARGETS] = _filled(labels, wide, None if names else IGNORED)
    return made, tuple(notes)


def ragged(value: Any) -> list[list[Any]] | None:
    """The rows of a list of rows (of numbers or texts) that differ in length; None for anything
    else."""
    if is_a(value, "pandas", "Series") or isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = list(value)
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    rows = []
    for one in value:
        if is_a(one, "torch", "Tensor"):
            one = of_tensor(one)
        if isinstance(one, np.ndarray):
            if one.ndim != 1:
                return None
            one = one.tolist()
        if not isinstance(one, (list, tuple)) or any(isinstance(v, (list, tuple)) or np.ndim(v) for v in one):
            return None
        rows.append(list(one))
    return rows if len({len(row) for row in rows}) > 1 else None


def _check_beside(name: Any, inputs: list[int], targets: list[int]) -> None:
    """TaskError if lengths of inputs and targets look alike, and are not: tags would be of other
    tokens."""
    if len(inputs) != len(targets):
        raise TaskError(
            "inputs and targets have different lengths",
            got=f"{len(inputs)} and {len(targets)}",
            allowed="one row a sample",
        )
    odd = [i for i, (a, b) in enumerate(zip(inputs, targets, strict=True)) if a != b]
    if odd and max(inputs) == max(targets):
        raise TaskError(
            "a sample's targets are not as many as its inputs",
            got=f"row {odd[0]}: {inputs[odd[0]]} of {name!r}, {targets[odd[0]]} targets"
            if name
            else f"row {odd[0]}: {inputs[odd[0]]} inputs, {targets[odd[0]]} targets",
            allowed="as many, or labels that are read from frames (loss='ctc')",
            fix=f"pad inputs and targets yourself, targets with {IGNORED} where none counts",
        )


def _width(inputs: Mapping[Any, Any], lengths: list[int]) -> int:
    """To how many targets are filled up beside inputs of one length: as a mask of the inputs says,
    which has as many ones; else to the longest. TaskError if they are filled up at their
    beginning."""
    for value in inputs.values():
        mask = array_of(value)
        if mask is None or mask.ndim != 2 or mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all():
            continue
        if mask.sum(1).tolist() == lengths:
            if not (np.diff(mask.astype(np.int8), axis=1) <= 0).all():
                raise TaskError(
                    "these inputs are not filled up at their end, so it is not plain where targets stand",
                    got="a mask of the inputs that does not begin with its ones",
                    fix=f"give targets of the inputs' length, with {IGNORED} where none counts",
                )
            return int(mask.shape[1])
    return max(lengths)


def _filled(rows: list[list[Any]], wide: int | None, fill: Any) -> np.ndarray:
    """[n, longest] of rows, with `fill` behind their ends."""
    wide = max(len(row) for row in rows) if wide is None else wide
    kind = np.dtype(object) if fill is None else np.asarray(next(row for row in rows if row)).dtype
    if kind.kind not in "iufO":
        raise TaskError("lists of different lengths hold numbers or names", got=str(kind))
    out = np.full((len(rows), wide), fill, dtype=np.dtype(np.int64) if kind.kind in "iu" else kind)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _span(rows: Sequence[Sequence[Any]]) -> str:
    return f"{min(map(len, rows))} to {max(map(len, rows))}"
