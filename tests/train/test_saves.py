"""A training that is killed goes on from its last save, to the same weights."""

import pytest
import torch

from featherweight.train.checkpoint import Saves
from featherweight.train.loop import Settings, fit
from tests import toy


def trained(path, stop_after=None):
    """The toy's weights after four epochs, saved after each; stop_after: killed after so many."""
    torch.manual_seed(0)
    module, seen = toy.residual(), []

    def report(progress):
        seen.append(progress["epoch"])
        if progress["epoch"] == stop_after:
            raise KeyboardInterrupt

    saves = Saves(path, every_s=0.0)
    settings = Settings(4, 1e-2, 16)
    fit(
        module,
        toy.images(64),
        lambda out, y, _: torch.nn.functional.cross_entropy(out, y),
        settings,
        seed=3,
        report=report,
        rungs=saves,
    )
    return module.state_dict(), seen


def test_it_goes_on_where_it_was_saved(tmp_path):
    whole, epochs = trained(tmp_path / "a.pt")
    assert epochs == [1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b.pt", stop_after=3)
    again, epochs = trained(tmp_path / "b.pt")
    assert epochs == [3, 4]  # the third was not yet saved when it was stopped
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_it_is_forgotten_when_it_has_ended(tmp_path):
    trained(tmp_path / "a.pt")
    assert (tmp_path / "a.pt").exists()
    Saves(tmp_path / "a.pt").forget()
    assert not (tmp_path / "a.pt").exists()
