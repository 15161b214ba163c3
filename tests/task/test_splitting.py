"""Fractions for a wanted floor. How the cut itself is made is in `test_data`."""

import numpy as np
import pytest

from featherweight.errors import TaskError
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import given, split


def data(n):
    return ArraySplit({"x": np.random.default_rng(0).normal(size=(n, 3)).astype("float32")}, np.arange(n) % 2)


def test_a_floor_chooses_the_fractions_and_says_what_was_weighed():
    many = split(data(6000), floor=0.02)
    said = many.report["floor"]
    assert len(many.test) == pytest.approx(max(said["test_wanted"], 600), rel=0.02)  # enough, and no more
    assert len(many.train) + len(many.valid) + len(many.test) == 6000 and len(many.train) > 2400
    few = split(data(500), floor=0.01)
    assert len(few.test) == pytest.approx(200, abs=3) and "better" in few.report["floor"]["said"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": 0.01, "fractions": (0.6, 0.2, 0.2)},
        {"floor": 1.5},
        {"floor": True},
        {"floor": 1},
        {"floor": "0pt"},
        {"floor": "x"},
    ],
)
def test_a_floor_that_is_none_is_refused(wrong):
    with pytest.raises(TaskError):
        split(data(100), **wrong)


# --- what counts as evidence --------------------------------------------------------------------


def numbered(rows):
    """A split of samples that are these numbers."""
    x = np.asarray(rows, dtype=np.float32)[:, None]
    return ArraySplit({"x": x}, (np.asarray(rows) % 2).astype(np.int64))


def test_copies_are_one_sample_of_evidence():
    cut = split(numbered(np.repeat(np.arange(40), 5)))
    for name in ("valid", "test"):
        part = getattr(cut, name)
        assert len(part) == 5 * cut.report["evidence"][name] == 5 * len(np.unique(cut.units[name]))


def test_a_group_is_one_sample_of_evidence():
    groups = np.repeat(np.arange(20), 10)
    cut = split(numbered(np.arange(200)), groups=groups, stratify=False)
    assert cut.report["sizes"]["test"] == 10 * cut.report["evidence"]["test"] == 40


def test_samples_of_splits_before_are_no_evidence():
    cut = given(numbered(range(40)), numbered([38, 39, 40, 41]), numbered([0, 41, 42, 43, 43]))
    assert (cut.units["valid"] >= 0).tolist() == [False, False, True, True]
    assert (cut.units["test"] >= 0).tolist() == [False, False, True, True, True]
    assert cut.report["evidence"] == {"valid": 2, "test": 2}


@pytest.mark.parametrize("said", ["2pt", "2%", "0.02"])
def test_a_floor_is_said_as_a_drop_is(said):
    assert split(data(6000), floor=said).report["floor"] == split(data(6000), floor=0.02).report["floor"]


def test_a_floor_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(TaskError, match="too few") as e:
        split(data(100), floor=0.01)
    assert "train would get 40" in e.value.got and "fractions" in e.value.fix
