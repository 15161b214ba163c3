"""Splits: deterministic, stratified, no copy on two sides, and clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.errors import TaskError
from featherweight.task.data import ArraySplit, LazySplit, Split, Splits, Subset
from featherweight.task.splitting import _apportion, presplit, split


def toy(n: int = 300, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)).astype(np.float32), rng.integers(classes, size=n)


def rows(part: Split) -> list[bytes]:
    inputs, targets = part.batch(np.arange(len(part)))
    return [x.tobytes() + y.tobytes() for x, y in zip(inputs["x"], targets, strict=True)]


def parts(s: Splits) -> list[list[bytes]]:
    return [rows(s.train), rows(s.valid), rows(s.test)]


def test_every_sample_is_in_exactly_one_split() -> None:
    x, y = toy()
    s = split(ArraySplit({"x": x}, y))
    everything = sum(parts(s), [])
    assert sorted(everything) == sorted(rows(ArraySplit({"x": x}, y)))
    assert s.report["sizes"] == {"train": len(s.train), "valid": len(s.valid), "test": len(s.test)}
    assert sum(s.report["sizes"].values()) == s.report["samples"] == 300


def test_classes_have_the_same_share_in_every_split() -> None:
    x, _ = toy(1000)
    y = np.repeat([0, 1, 2], [900, 90, 10])
    counts = split(ArraySplit({"x": x}, y)).report["classes"]
    assert counts == {
        "0": {"train": 540, "valid": 180, "test": 180},
        "1": {"train": 54, "valid": 18, "test": 18},
        "2": {"train": 6, "valid": 2, "test": 2},
    }


def test_the_order_of_rows_and_of_inputs_does_not_matter() -> None:
    x, y = toy()
    z = np.arange(300, dtype=np.int32)
    shuffle = np.random.default_rng(1).permutation(300)
    a = split(ArraySplit({"x": x, "z": z}, y), seed=3)
    b = split(ArraySplit({"z": z[shuffle], "x": x[shuffle]}, y[shuffle]), seed=3)
    assert parts(a) == parts(b)
    assert a.fingerprint == b.fingerprint
    assert a.report == b.report


def test_seed_and_contents_change_the_fingerprint_and_the_split() -> None:
    x, y = toy()
    a = split(ArraySplit({"x": x}, y), seed=0)
    assert split(ArraySplit({"x": x}, y), seed=0).fingerprint == a.fingerprint
    other = split(ArraySplit({"x": x}, y), seed=1)
    assert other.fingerprint != a.fingerprint and rows(other.test) != rows(a.test)
    changed = x.copy()
    changed[17, 2] += 1
    assert split(ArraySplit({"x": changed}, y)).fingerprint != a.fingerprint
    relabelled = y.copy()
    relabelled[17] = (y[17] + 1) % 3
    assert split(ArraySplit({"x": x}, relabelled)).fingerprint != a.fingerprint


def test_a_split_grows_without_reshuffling() -> None:
    """The order is by hash, so a few new samples move few of the old ones."""
    x, y = toy(1000)
    before = set(rows(split(ArraySplit({"x": x[:990]}, y[:990])).test))
    after = set(rows(split(ArraySplit({"x": x}, y)).test))
    assert len(before & after) > 0.9 * len(before)


def test_copies_stay_on_one_side_and_are_counted() -> None:
    x, y = toy(200)
    x, y = np.concatenate([x, x[:50], x[:10]]), np.concatenate([y, y[:50], y[:10]])
    s = split(ArraySplit({"x": x}, y))
    a, b, c = (set(p) for p in parts(s))
    assert not a & b and not a & c and not b & c
    assert s.report["duplicates"] == {"copies": 60, "sets": 50, "handling": "kept together in one split"}
    assert s.report["label_conflicts"]["sets"] == 0
    assert sum(s.report["sizes"].values()) == 260


def test_copies_can_be_dropped_and_the_commonest_label_is_kept() -> None:
    x, y = toy(60, classes=2)
    y[5] = 0
    x, y = np.concatenate([x, x[5:6], x[5:6], x[6:7]]), np.concatenate([y, [1, 1], y[6:7]])
    s = split(ArraySplit({"x": x}, y), duplicates="drop")
    assert sum(s.report["sizes"].values()) == 60
    assert s.report["duplicates"]["copies"] == 3 and s.report["label_conflicts"]["sets"] == 1
    kept = sum(parts(s), [])
    assert len(set(kept)) == 60
    assert x[5].tobytes() + np.int64(1).tobytes() in kept


def test_copies_with_other_labels_stay_together_too() -> None:
    x, y = toy(100, classes=2)
    s = split(ArraySplit({"x": np.concatenate([x, x])}, np.concatenate([y, 1 - y])))
    inputs = [{r[:16] for r in p} for p in parts(s)]
    assert not inputs[0] & inputs[1] and not inputs[0] & inputs[2] and not inputs[1] & inputs[2]
    assert s.report["label_conflicts"]["sets"] == 100


def test_groups_stay_together() -> None:
    x, _ = toy(400)
    patient = np.arange(400) // 8
    x[1] = x[9]  # a copy joins patients 0 and 1
    s = split(ArraySplit({"x": x}, patient), groups=[f"patient {p}" for p in patient], stratify=False)
    sides = [set(p.batch(np.arange(len(p)))[1].tolist()) for p in (s.train, s.valid, s.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert any({0, 1} <= side for side in sides)
    assert sum(map(len, sides)) == 50


@given(st.lists(st.integers(0, 4), min_size=3, max_size=60), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_classes_with_three_samples_are_everywhere(labels: list[int], seed: int) -> None:
    y = np.array(labels + [0, 0, 0, 1, 1, 1])
    x = np.arange(len(y), dtype=np.float32)[:, None]
    s = split(ArraySplit({"x": x}, y), seed=seed)
    for value, counts in s.report["classes"].items():
        if (y == int(value)).sum() >= 3:
            assert min(counts.values()) >= 1, value


@given(st.integers(0, 500), st.lists(st.floats(0.01, 1), min_size=2, max_size=4))
@settings(deadline=None)
def test_apportion_is_within_one_of_the_share(n: int, weights: list[float]) -> None:
    fractions = np.array(weights) / sum(weights)
    counts = _apportion(n, fractions)
    assert counts.sum() == n and counts.min() >= 0
    if n * fractions.min() >= 1:  # quota rule of the largest remainder method
        assert (np.abs(counts - n * fractions) < 1 + 1e-6).all()


def test_memory_mapped_and_lazy_data_give_the_same_splits(tmp_path: Path) -> None:
    x, y = toy(600)
    np.save(tmp_path / "x.npy", x)
    mapped = ArraySplit({"x": np.load(tmp_path / "x.npy", mmap_mode="r")}, y)
    lazy = LazySplit(600, lambda index: ({"x": x[index]}, y[index]))
    whole = split(ArraySplit({"x": x}, y))
    assert split(mapped).fingerprint == split(lazy).fingerprint == whole.fingerprint
    batch = split(mapped).train.batch(np.array([3, 1]))[0]["x"]
    assert type(batch) is np.ndarray and np.array_equal(batch, whole.train.batch(np.array([3, 1]))[0]["x"])


def test_lazy_data_are_read_in_small_pieces() -> None:
    sizes: list[int] = []

    def read(index: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        sizes.append(len(index))
        return {"x": index.astype(np.float32)[:, None]}, index % 2

    split(LazySplit(2000, read))
    assert sum(sizes) == 2000 and max(sizes) <= 256


def test_all_targets_in_order_of_row() -> None:
    for shape in ((600,), (600, 3)):  # more than one batch
        y = np.arange(np.prod(shape)).reshape(shape)
        data = ArraySplit({"x": np.zeros((600, 1))}, y)
        index = np.array([599, 3, 3, 0])
        lazy = LazySplit(600, data.batch)
        for part, want in ((data, y), (lazy, y), (Subset(lazy, index), y[index])):
            got = part.all_targets()
            assert np.array_equal(got, want) and got.dtype == y.dtype


def test_regression_targets_are_not_stratified() -> None:
    x, _ = toy()
    s = split(ArraySplit({"x": x}, x[:, 0] * 2))
    assert s.report["classes"] is None and s.report["how"].startswith("not stratified")
    assert [len(s.train), len(s.valid), len(s.test)] == [180, 60, 60]


def test_class_names_are_carried_along() -> None:
    x, y = toy()
    s = split(ArraySplit({"x": x}, y, classes=["a", "b", "c"]))
    assert s.report["class_names"] == ["a", "b", "c"] and s.test.classes == ("a", "b", "c")


def test_presplit_keeps_the_test_set_and_removes_its_copies_from_train() -> None:
    x, y = toy(500)
    train, test = (
        ArraySplit({"x": np.concatenate([x[:400], x[400:405]])}, np.concatenate([y[:400], y[400:405]])),
        ArraySplit({"x": x[400:]}, y[400:]),
    )
    s = presplit(train, test, 0.25, seed=1)
    assert rows(s.test) == rows(test)
    assert sorted(rows(s.train) + rows(s.valid)) == sorted(rows(Subset(train, np.arange(400))))
    assert s.report["duplicates"]["train_and_test"] == 5
    assert abs(len(s.valid) - 100) <= 3
    assert sum(c["test"] for c in s.report["classes"].values()) == 100
    assert (
        presplit(train, test, 0.25, seed=1).fingerprint
        == s.fingerprint
        != presplit(train, test, 0.25, seed=2).fingerprint
    )


def test_presplit_of_a_training_set_that_is_the_test_set() -> None:
    x, y = toy(50)
    both = ArraySplit({"x": x}, y)
    with pytest.raises(TaskError, match="no samples are left"):
        presplit(both, both, 0.1, seed=0)


def _nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[7, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x, y: split(ArraySplit({"x": x[:0]}, y[:0])), "empty"),
        (lambda x, y: split(ArraySplit({"x": _nan(x)}, y)), "row 7"),
        (lambda x, y: split(ArraySplit({"x": x}, np.where(y == 0, np.nan, y))), "targets holds NaN"),
        (lambda x, y: ArraySplit({"x": x}, y[:-1]), "different lengths"),
        (lambda x, y: ArraySplit({}, y), "have to be named"),
        (lambda x, y: ArraySplit({"x": np.float32(1)}, y), "different lengths"),
        (lambda x, y: split(ArraySplit({"x": x}, y * 0)), "at least 2 classes"),
        (lambda x, y: split(ArraySplit({"x": x}, y), fractions=(0.6, 0.2, 0.3)), "sum 1"),
        (lambda x, y: split(ArraySplit({"x": x}, y), fractions=(0.8, 0.2)), "sum 1"),
        (lambda x, y: split(ArraySplit({"x": x}, y), fractions=(0.8, 0.2, 0.0)), "positive"),
        (lambda x, y: split(ArraySplit({"x": x[:2]}, np.array([0, 1]))), "too few"),
        (lambda x, y: split(ArraySplit({"x": x[:1]}, np.array([1.5]))), "too few"),
        (lambda x, y: split(ArraySplit({"x": x}, y), groups=[1, 2]), "different lengths"),
        (lambda x, y: split(ArraySplit({"x": x.astype(str)}, y)), "not an array of numbers"),
        (lambda x, y: presplit(ArraySplit({"x": x}, y), ArraySplit({"x": x}, y), 1.0, 0), "between 0 and 1"),
        (lambda x, y: split(LazySplit(10, lambda i: ({"x": x[:2]}, y[:2]))), "wrong length"),
        (
            lambda x, y: split(LazySplit(600, lambda i: ({"x": np.zeros((len(i), 1 if i[0] == 0 else 2))}, i))),
            "differ in shape",
        ),
    ],
)
def test_errors_say_what_is_wrong(make: Any, says: str) -> None:
    x, y = toy()
    with pytest.raises(TaskError, match=says):
        make(x, y)
