"""What an artifact gives against what the module gives."""

import numpy as np
import pytest

from featherweight.errors import TargetError
from featherweight.graphs.parity import compare

Y = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def test_what_rounding_makes_is_told_in_decibels():
    told = compare(Y, np.round(Y, 1))
    assert 20 < told["sqnr_db"] < 40 and told["rows"] == 8
    assert compare(Y, Y)["sqnr_db"] is None
    assert compare(Y, 5 * Y)["sqnr_db"] < -11  # coarse, and still of the same thing


@pytest.mark.parametrize("z", [Y * 1e8, Y + 1e3, np.zeros_like(Y), np.tile(Y[:1], (8, 1))])
def test_what_no_rounding_makes_is_refused(z):
    """As a runtime's kernel gave 1e8 for every input, or zeros for all rows."""
    with pytest.raises(TargetError, match="computes something else than the model"):
        compare(Y, z)


def test_a_model_that_gives_all_rows_the_same_may_be_exported():
    same = np.tile(Y[:1], (8, 1))
    assert compare(same, same * 1.01)["sqnr_db"] > 30
    assert compare(np.zeros_like(Y), np.full_like(Y, 1e-9))["sqnr_db"] is None
    assert compare(Y[:1], np.zeros_like(Y[:1]))["rows"] == 1  # one row shows nothing of others
