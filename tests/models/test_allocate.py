"""The allocation is the exact optimum: brute force agrees."""

import itertools

import numpy as np
import pytest

from featherweight.errors import InputError
from featherweight.models.allocate import choose


def brute(loss, saving, need):
    options = itertools.product(*[range(len(row)) for row in loss])
    fit = [o for o in options if sum(s[i] for s, i in zip(saving, o, strict=True)) >= need]
    return min(sum(v[i] for v, i in zip(loss, o, strict=True)) for o in fit)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_as_good_as_trying_everything(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=5)
    loss = [rng.normal(0, 1, n).tolist() for n in sizes]  # losses may be negative: a cut can help
    saving = [np.sort(rng.uniform(0, 1e9, n)).tolist() for n in sizes]  # of the size of MACs
    need = 0.6 * sum(s[-1] for s in saving)
    levels = choose(loss, saving, need)
    assert sum(s[i] for s, i in zip(saving, levels, strict=True)) >= need * (1 - 1e-6)
    assert sum(v[i] for v, i in zip(loss, levels, strict=True)) <= brute(loss, saving, need) + 1e-6


def test_nothing_is_asked_for():
    assert choose([[0.0, 1.0], [0.0, 2.0]], [[0.0, 5.0], [0.0, 5.0]], 0.0) == [0, 0]
    assert choose([], [], 1.0) == []


def test_one_group_takes_the_cheapest_level_that_saves_enough():
    assert choose([[0.0, 3.0, 2.0, 9.0]], [[0.0, 1.0, 2.0, 3.0]], 1.0) == [2]
    assert choose([[0.0, 3.0, 2.0, 9.0]], [[0.0, 1.0, 2.0, 3.0]], 3.0) == [3]


def test_more_than_there_is_gives_the_largest_saving_at_the_least_loss():
    assert choose([[0.0, 5.0, 4.0], [0.0, 1.0, 2.0]], [[0.0, 3.0, 3.0], [0.0, 1.0, 2.0]], 100.0) == [2, 2]


def test_a_level_that_saves_a_negative_amount_is_not_taken_for_more():
    assert choose([[0.0, -1.0]], [[0.0, -5.0]], 0.0) == [0]  # "saves" -5 ms: slower than uncut


@pytest.mark.parametrize(
    ("loss", "saving", "need"),
    [
        ([[1.0, 2.0]], [[1.0]], 0.0),
        ([[]], [[]], 0.0),
        ([[float("nan")]], [[1.0]], 0.0),
        ([[0.0]], [[1.0]], float("inf")),
    ],
)
def test_tables_that_do_not_fit_are_refused(loss, saving, need):
    with pytest.raises(InputError):
        choose(loss, saving, need)
