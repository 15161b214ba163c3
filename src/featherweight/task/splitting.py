"""How train, valid and test are cut: exact copies on one side, groups whole, labels in proportion.

Everything streams: of each sample only two sha256 digests (64 bytes) are kept.

Notation: a *unit* is a set of rows that must stay on one side: exact copies of one sample, or
one group of `groups`; a *digest* is a sha256 as numpy `S32` (sortable, and exact: all are
32 bytes long)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InputError, TaskError
from ..limits import max_drop
from ..plain import check_unicode
from ..proof.chance import ASSUMED, needed, provable
from .data import PARTS, Split, Splits, Subset

LEAST_TRAINED = 50  # samples that a cut by floor has to leave for training


def split(
    data: Split,
    *,
    fractions: Sequence[float] | None = None,
    floor: str | float | None = None,
    seed: int = 0,
    stratify: bool = True,
    groups: Sequence[Any] | np.ndarray | None = None,
    duplicates: Literal["together", "drop"] = "together",
) -> Splits:
    """Cut `data` into train, valid and test.

    The result depends on contents and seed, never on the order of rows: units are ordered by sha256
    of (seed, sample). fractions: of train, valid and test [default: 0.6, 0.2, 0.2]. floor: instead
    of fractions, the drop of accuracy that certificates are to exclude (0.01, "1pt" and "1%" are
    one point): test gets what certifies half of it (`floor_fractions`), if two fifths of the data
    are enough, valid half as much as test, train the rest; the report says what was weighed.
    stratify: integer targets [n] are classes; every class with 3 distinct samples or more is in
    every split.
    groups: one label a row; rows of one group stay together. Fractions then count groups, not rows.
    duplicates: rows with equal inputs stay together, or all but one are dropped (the commonest
    target is kept). TaskError for empty data, NaN or infinite values, fewer than 2 classes, or
    fractions that are not three positive numbers with sum 1.
    """
    if not isinstance(data, Split):
        raise TaskError(
            "there is nothing to split", got=type(data).__name__, allowed="a Split: ArraySplit, LazySplit, ..."
        )
    if floor is not None and fractions is not None:
        raise TaskError("split takes fractions or a floor", got=f"fractions={fractions}, floor={floor}")
    weighed: dict[str, Any] = {} if floor is None else {"floor": floor_fractions(_floor(floor), len(data))}
    fractions = weighed["floor"]["fractions"] if floor is not None else fractions or (0.6, 0.2, 0.2)
    wanted = np.asarray(fractions, dtype=float)
    if wanted.shape != (3,) or not (wanted > 0).all() or abs(wanted.sum() - 1) > 1e-6:
        raise TaskError(
            "these fractions do not cut the data into three",
            got=list(fractions),
            fix="fractions=(0.6, 0.2, 0.2)",
            allowed="three positive numbers (train, valid, test) with sum 1",
        )
    if duplicates not in ("together", "drop"):
        raise TaskError("no such handling of duplicates", got=duplicates, allowed="together, drop")
    if groups is not None and len(groups) != len(data):
        raise TaskError(
            "groups and data have different lengths",
            got=f"{len(groups)}, {len(data)}",
            allowed="one group label a sample",
        )
    scan = _scan(data)
    strata = _strata(scan, stratify)
    rows = np.arange(scan.n) if duplicates == "together" else _commonest(scan.copies, scan.codes)
    parts = _cut(scan, rows, wanted, seed, strata, groups)
    kept, targets = (
        ("kept together in one split", "kept as they are")
        if duplicates == "together"
        else ("dropped: one of each is kept", "the commonest target is kept")
    )
    report = {
        "how": _how(strata, groups),
        "seed": seed,
        "fractions": wanted.tolist(),
        **weighed,
        "samples": scan.n,
        "duplicates": {**scan.duplicates, "handling": kept},
        "label_conflicts": {"sets": scan.conflicts, "handling": targets},
    }
    unit = (
        scan.copies if groups is None else _joined(scan.copies, np.unique(np.asarray(groups), return_inverse=True)[1])
    )
    return _finish(
        [Subset(data, p) for p in parts],
        [scan.wholes[p] for p in parts],
        [_labels(scan, p) for p in parts],
        [unit[p] for p in parts],
        report,
    )


def _floor(given: str | float) -> float:
    """The drop that `max_drop` makes of it. TaskError if it is none of accuracy."""
    try:
        floor = max_drop(given)
    except InputError as e:
        raise TaskError("this floor is none", got=e.got, allowed="a drop of accuracy: 0.01, '1pt' or '1%'") from e
    if not 0 < floor.bound < 1:
        fix = floor.misfit(0, 1)
        fix = fix.replace("max_drop", "floor") if fix else None
        raise TaskError(
            "this floor is none", got=repr(given), allowed="above 0 and below 1: 0.01 is one point", fix=fix
        )
    return floor.bound


def floor_fractions(floor: float, samples: int) -> dict[str, Any]:
    """{"fractions", "floor", "test_wanted", "test", "provable", "said"}: how so many samples are
    best cut if a drop of `floor` is to be excluded. test_wanted: samples that certify half of it,
    one time in two, for a candidate that decides 1 % of them (or half the floor) otherwise;
    provable: what the test split that there is certifies so."""
    differing = max(ASSUMED, floor / 2)
    wanted = needed(floor / 2, differing, floor) or samples
    test = min(max(wanted / samples, 0.1), 0.4)
    fractions = (1 - 1.5 * test, 0.5 * test, test)
    n = round(test * samples)
    if samples * fractions[0] < LEAST_TRAINED:
        raise TaskError(
            "a floor leaves too few of these samples to train on",
            got=f"{samples} samples, of which train would get {round(samples * fractions[0])}",
            allowed=f"at least {LEAST_TRAINED} for train; a floor of {floor:g} wants {wanted:,} for test alone",
            fix="give more data or a larger floor, or say the parts yourself: fractions=(0.6, 0.2, 0.2)",
        )
    most = provable(differing, n, floor)
    can = f"certifies a drop under about {most:.2g}" if most > 0 else "certifies only what is better than the baseline"
    said = (
        f"{wanted:,} test samples would certify a drop of {floor / 2:g} where {floor:g} is allowed; test has {n:,} of "
        f"{samples:,} and {can}; train keeps {round(fractions[0] * samples):,}"
    )
    return {"fractions": fractions, "floor": floor, "test_wanted": wanted, "test": n, "provable": most, "said": said}


def presplit(
    train: Split,
    test: Split,
    valid_fraction: float = 0.1,
    seed: int = 0,
    *,
    stratify: bool = True,
    valid_from: Literal["train", "test"] = "train",
) -> Splits:
    """Splits of data that come with an official test set: valid is cut out of train, and test stays
    whole; or, with valid_from="test", out of test, and train stays whole. That is for a model that
    was trained on train already: what it makes of samples that it learned by heart says nothing.

    Training samples whose inputs are also in the test set are removed from train,
    and counted in the report.
    """
    if not 0 < valid_fraction < 1:
        raise TaskError(
            f"valid_fraction does not cut the {valid_from} data in two",
            got=valid_fraction,
            allowed="a number between 0 and 1, as 0.1",
        )
    if valid_from not in ("train", "test"):
        raise TaskError("valid is cut from train or from test", got=valid_from, allowed="train, test")
    scan, held = _scan(train), _scan(test)
    strata = _strata(scan, stratify)
    spans = np.isin(scan.digests, held.digests)
    rows = np.flatnonzero(~spans)
    kept = "official test set kept" if valid_from == "train" else "valid cut from the official test set"
    report = {
        "how": _how(strata, None) + f"; {kept}",
        "seed": seed,
        "fractions": [1 - valid_fraction, valid_fraction],
        "samples": scan.n + held.n,
        "duplicates": {
            **scan.duplicates,
            "handling": "kept together in one split",
            "in_test": held.duplicates["copies"],
            "train_and_test": int(spans.sum()),
            "train_and_test_handling": "removed from train",
        },
        "label_conflicts": {"sets": scan.conflicts, "handling": "kept as they are"},
    }
    if valid_from == "test":
        if not len(rows):
            _cut(scan, rows, np.array([1.0]), seed, None, None)  # says that nothing is left
        cut = _cut(
            held,
            np.arange(held.n),
            np.array([valid_fraction, 1 - valid_fraction]),
            seed,
            _strata(held, stratify and strata is not None),
            None,
        )
        return _finish(
            [Subset(train, rows), *(Subset(test, p) for p in cut)],
            [scan.wholes[rows], *(held.wholes[p] for p in cut)],
            [_labels(scan, rows), *(_labels(held, p) for p in cut)],
            [scan.copies[rows], *(held.copies[p] for p in cut)],
            report,
        )
    cut = _cut(scan, rows, np.array([1 - valid_fraction, valid_fraction]), seed, strata, None)
    return _finish(
        [*(Subset(train, p) for p in cut), test],
        [*(scan.wholes[p] for p in cut), held.wholes],
        [*(_labels(scan, p) for p in cut), held.labels],
        [*(scan.copies[p] for p in cut), held.copies],
        report,
    )


def given(train: Split, valid: Split, test: Split) -> Splits:
    """Splits that the caller made. They stay as they are; copies within and across them are
    counted in the report. Samples that are in a split before, too, are no evidence."""
    scans = [_scan(part) for part in (train, valid, test)]
    across = {
        f"{PARTS[i]}_and_{PARTS[j]}": int(np.isin(scans[i].digests, scans[j].digests).sum())
        for i, j in ((0, 1), (0, 2), (1, 2))
    }
    report = {
        "how": "given",
        "seed": None,
        "fractions": None,
        "samples": sum(s.n for s in scans),
        "duplicates": {
            "copies": sum(s.duplicates["copies"] for s in scans),
            "sets": sum(s.duplicates["sets"] for s in scans),
            **across,
            "handling": "kept as they are",
        },
        "label_conflicts": {"sets": sum(s.conflicts for s in scans), "handling": "kept as they are"},
    }
    seen, units = scans[0].digests, [scans[0].copies]
    for scan in scans[1:]:
        units.append(np.where(np.isin(scan.digests, seen), -1, scan.copies))
        seen = np.concatenate([seen, scan.digests])
    return _finish([train, valid, test], [s.wholes for s in scans], [s.labels for s in scans], units, report)


@dataclass(frozen=True)
class _Scan:
    """digests, wholes: `S32` [n], of inputs and of inputs with target; labels: [n] integer
    classes, or None;
    copies: [n] number of the set of equal inputs; codes: [n] number of the target."""

    digests: np.ndarray
    wholes: np.ndarray
    labels: np.ndarray | None
    copies: np.ndarray
    codes: np.ndarray

    @property
    def n(self) -> int:
        return len(self.digests)

    @property
    def duplicates(self) -> dict[str, int]:
        sizes = np.bincount(self.copies)
        return {"copies": int((sizes - 1).sum()), "sets": int((sizes > 1).sum())}

    @property
    def conflicts(self) -> int:
        """Sets of equal inputs whose targets differ."""
        _, first = np.unique(self.wholes, return_index=True)
        return int((np.bincount(self.copies[first]) > 1).sum())


def _scan(data: Split) -> _Scan:
    """Read everything once, check it, and keep digests and labels."""
    if len(data) == 0:
        raise TaskError(
            "the data are empty", got="0 samples", fix="check the path and the filter that the data come from"
        )
    digests = np.empty(len(data), dtype="S32")
    wholes = np.empty(len(data), dtype="S32")
    labels: list[np.ndarray] = []
    form: dict[str, Any] | None = None
    start = 0
    for inputs, targets in data.batches():
        arrays = {name: _little(inputs[name], name, start) for name in sorted(inputs)}
        goal = _little(targets, "targets", start)
        now = {name: [v.dtype.str, *v.shape[1:]] for name, v in {**arrays, "targets": goal}.items()}
        if form is not None and now != form:
            raise TaskError("samples differ in shape or type", got=f"{now} from row {start}", allowed=form)
        form = now
        head = hashlib.sha256(json.dumps(form).encode())
        for i in range(len(goal)):
            h = head.copy()
            for v in arrays.values():
                h.update(v[i].tobytes())
            digests[start + i] = h.digest()
            h.update(goal[i].tobytes())
            wholes[start + i] = h.digest()
        if goal.ndim == 1 and goal.dtype.kind in "iu":
            labels.append(goal.astype(np.int64))
        start += len(goal)
    classes = np.concatenate(labels) if labels else None
    codes = np.unique(wholes if classes is None else classes, return_inverse=True)[1]
    return _Scan(digests, wholes, classes, np.unique(digests, return_inverse=True)[1], codes)


def _little(array: np.ndarray, name: str, start: int) -> np.ndarray:
    """The array in little-endian order, so that digests are the same on every machine.
    TaskError if it cannot be used."""
    if array.dtype.kind not in "biuf":
        raise TaskError(
            f"{name} is not an array of numbers", got=f"dtype {array.dtype}", allowed="bool, int, uint or float"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = start + int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise TaskError(
            f"{name} holds NaN or infinite values",
            got=f"first in row {bad}",
            allowed="finite numbers",
            fix="remove or fill these samples",
        )
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _strata(scan: _Scan, stratify: bool) -> np.ndarray | None:
    """The class of each row, or None if the split is not by class."""
    if not stratify or scan.labels is None:
        return None
    found = np.unique(scan.labels)
    if len(found) < 2:
        raise TaskError(
            "a classification needs at least 2 classes",
            got=f"{len(found)}: {found.tolist()}",
            allowed="2 or more different labels",
            fix="check the labels, or give stratify=False if the targets are counts",
        )
    return scan.labels


def _commonest(unit: np.ndarray, code: np.ndarray) -> np.ndarray:
    """For each unit a row with its commonest code (the smallest of equally common ones)."""
    pair = unit.astype(np.int64) * (int(code.max()) + 1) + code
    _, place, count = np.unique(pair, return_inverse=True, return_counts=True)
    order = np.lexsort((code, -count[place], unit))
    return order[np.flatnonzero(np.diff(unit[order], prepend=-1))]


def _cut(
    scan: _Scan, rows: np.ndarray, fractions: np.ndarray, seed: int, strata: np.ndarray | None, groups: Any
) -> list[np.ndarray]:
    """Row numbers of each part, ordered by sha256 of (seed, sample).
    Units and classes are kept as `split` says."""
    if len(rows) == 0:
        raise TaskError(
            "no samples are left to split",
            got=f"0 of {scan.n}",
            fix="every training sample is also in the test set: check the files",
        )
    unit = (
        scan.copies[rows]
        if groups is None
        else _joined(scan.copies[rows], np.unique(np.asarray(groups), return_inverse=True)[1][rows])
    )
    unit = np.unique(unit, return_inverse=True)[1]
    rank = _ranks(scan.digests[rows], unit, seed)  # [units]: place of each unit in the hashed order
    stratum = (
        np.zeros(len(rank), dtype=np.int64) if strata is None else strata[rows][_commonest(unit, scan.codes[rows])]
    )
    part = np.empty(len(rank), dtype=np.int64)
    order = np.lexsort((rank, stratum))
    for members in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        part[members] = np.repeat(np.arange(len(fractions)), _apportion(len(members), fractions))
    ordered = np.lexsort((scan.wholes[rows], rank[unit]))
    out = [rows[ordered[part[unit[ordered]] == k]] for k in range(len(fractions))]
    if min(map(len, out)) == 0:
        raise TaskError(
            "there are too few distinct samples (or groups) for every split to have one",
            fix="give more data",
            got=f"{len(rank)} distinct: {[len(o) for o in out]} rows a split",
            allowed=f"at least {len(fractions)}, and better hundreds",
        )
    return out


def _ranks(digests: np.ndarray, unit: np.ndarray, seed: int) -> np.ndarray:
    """[units]: the place of each unit when units are ordered by sha256 of
    (seed, smallest digest)."""
    order = np.lexsort((digests, unit))
    smallest = digests[order[np.flatnonzero(np.diff(unit[order], prepend=-1))]]
    keys = np.array(
        [hashlib.sha256(f"{seed}\x1f".encode() + d.ljust(32, b"\0")).digest() for d in smallest.tolist()], dtype="S32"
    )
    return np.argsort(np.argsort(keys))


def _joined(copies: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """[n] unit numbers: rows are together if they are copies or share a group,
    directly or through others (union-find)."""
    offset = int(copies.max()) + 1
    parent = list(range(offset + int(groups.max()) + 1))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in zip(copies.tolist(), (groups + offset).tolist(), strict=True):
        parent[root(a)] = root(b)
    return np.array([root(i) for i in copies.tolist()], dtype=np.int64)


def _apportion(n: int, fractions: np.ndarray) -> np.ndarray:
    """`n` cut by largest remainder (Hamilton's method); with n >= number of parts,
    no part is left without one."""
    share = n * fractions
    counts = np.floor(share + 1e-9).astype(np.int64)
    for k in np.argsort(counts - share, kind="stable")[: n - int(counts.sum())]:
        counts[k] += 1
    while n >= len(fractions) and counts.min() == 0:
        counts[counts.argmin()] += 1
        counts[counts.argmax()] -= 1
    return counts


def _how(strata: np.ndarray | None, groups: Any) -> str:
    by = "not stratified" if strata is None else "stratified by class"
    return f"{by}, ordered by sha256 of (seed, sample)" + ("" if groups is None else "; rows of a group kept together")


def _labels(scan: _Scan, rows: np.ndarray) -> np.ndarray | None:
    return None if scan.labels is None else scan.labels[rows]


def _finish(
    parts: list[Split],
    wholes: list[np.ndarray],
    labels: list[np.ndarray | None],
    units: list[np.ndarray],
    report: dict[str, Any],
) -> Splits:
    """The splits with sizes, classes and the samples that count as evidence added to the report,
    and the fingerprint of their contents."""
    h = hashlib.sha256()
    for name, digests in zip(PARTS, wholes, strict=True):
        h.update(f"{name}:{len(digests)}:".encode() + digests.tobytes())
    report["sizes"] = {name: len(p) for name, p in zip(PARTS, parts, strict=True)}
    counts: dict[str, dict[str, int]] = {}
    for name, found in zip(PARTS, labels, strict=True):
        values, n = np.unique(np.empty(0, np.int64) if found is None else found, return_counts=True)
        for value, many in zip(values.tolist(), n.tolist(), strict=True):
            counts.setdefault(str(value), dict.fromkeys(PARTS, 0))[name] = many
    report["classes"] = {k: counts[k] for k in sorted(counts, key=int)} or None
    check_unicode("the name of a class", *(parts[0].classes or ()))
    report["class_names"] = None if parts[0].classes is None else list(parts[0].classes)
    counted = dict(zip(PARTS[1:], units[1:], strict=True))
    report["evidence"] = {name: len(np.unique(u[u >= 0])) for name, u in counted.items()}
    return Splits(parts[0], parts[1], parts[2], report=report, fingerprint=h.hexdigest(), units=counted)
