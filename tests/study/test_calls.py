"""Where a call's study goes, and what a user is told of it."""

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.errors import InputError

X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
MORE = {"trials": 1, "measure_seconds": 0.1, "verbose": False, "baseline": 2, "polish": 0.0}


class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def ran(**more):
    torch.manual_seed(0)
    step = fw.Prune(ratio=fw.Choice(0.2, 0.4), criterion="magnitude")
    return fw.optimize(Tiny, (X, (X[:, 0] > 0).astype(int)), step, **{**MORE, "max_drop": "40pt", **more})


@pytest.mark.slow
@pytest.mark.usefixtures("one_baseline")
def test_each_study_has_a_folder_of_its_own_where_none_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = ran()
    assert str(first.out) == "runs/tiny" and len(first.trials()) == 1
    assert str(ran(max_drop="30pt").out) == "runs/tiny-2"  # another study
    again = ran(trials=2)  # the same, which goes on
    assert str(again.out) == "runs/tiny" and len(again.trials()) == 2
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        ran(out="file")
    assert (tmp_path / "file").read_text() == "mine"
