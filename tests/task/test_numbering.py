"""Does a net number its classes as the labels do?"""

import numpy as np
import pytest

from featherweight.task.kinds._numbering import CLASSES, EACH, numbering, some_of_each


def test_a_permutation_is_found():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 100)
    place = np.array([3, 0, 4, 1, 2])
    found = numbering(place[true], true, 5)
    assert found.right == 0 and found.other == 1 and found.misfits and found.n == 100
    assert found.places == {i: int(p) for i, p in enumerate(place)}


def test_what_is_right_stays_and_noise_is_no_numbering():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 200)
    noisy = np.where(rng.random(200) < 0.7, true, rng.integers(0, 5, 200))
    assert not numbering(noisy, true, 5).misfits
    for outputs in (2, 5, 1000):  # with many outputs each half fits itself by chance, never the other
        assert not numbering(rng.integers(0, outputs, 200), true % outputs, outputs).misfits


def test_rare_classes_count_as_much_as_common_ones():
    true = np.r_[np.zeros(900, int), np.repeat([1, 2, 3, 4], 25)]
    said = np.where(true == 0, 0, (true % 4) + 1)
    found = numbering(said, true, 5)
    assert (said == true).mean() == 0.9 and found.right == pytest.approx(0.2) and found.misfits


def test_one_sample_and_one_class():
    assert not numbering(np.array([1]), np.array([0]), 2).misfits
    assert numbering(np.array([1, 1, 1]), np.array([0, 0, 0]), 2).misfits


def test_some_of_each_class_are_looked_at():
    targets = np.arange(5000) % 100
    rows = some_of_each(targets, 0)
    assert len(rows) == CLASSES * EACH and (np.diff(rows) > 0).all()
    assert set(np.bincount(targets[rows], minlength=100)) == {0, EACH}
    assert some_of_each(np.array([7]), 0).tolist() == [0]
