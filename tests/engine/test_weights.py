"""Weights that were saved, loaded into what a user gives as their architecture."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from featherweight.engine.weights import load_model
from featherweight.errors import InputError, StoreError
from featherweight.models.package import Package
from featherweight.task.kinds import make_task
from featherweight.transforms.prune import Prune
from tests import toy


class Net(nn.Module):
    def __init__(self, classes=4, width=16):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(1, classes))
        self.out = nn.Linear(width, classes)

    def forward(self, image):
        return self.out(self.a(image).mean((2, 3))) * self.scale


def saved(folder, old=False):
    task = toy.task(Net)
    package = Prune(ratio=0.5, round_to=1, allocation="uniform").apply(Package(task.build()), toy.context(task))
    package.save(folder, task.build)
    if old:
        spec = json.loads((folder / "spec.json").read_text())
        del spec["cut"]
        (folder / "spec.json").write_text(json.dumps(spec))
    return package.module.eval()


@pytest.mark.parametrize("old", [False, True], ids=["now", "saved before"])
def test_other_sizes_than_the_original_s_are_refused(tmp_path, old):
    module, x = saved(tmp_path, old), torch.randn(3, 1, 8, 8)
    assert module.a[0].out_channels < 16
    assert torch.equal(load_model(tmp_path, Net)(x), module(x))
    with pytest.raises(StoreError, match=r"another architecture(.|\n)*out.bias: \[4\], and \[3\]"):
        load_model(tmp_path, lambda: Net(3))
    if not old:  # a layer's width before it was cut was not kept then
        with pytest.raises(StoreError, match=r"a.0.weight: \[16, 1, 3, 3\], and \[32, 1, 3, 3\]"):
            load_model(tmp_path, lambda: Net(width=32))


def test_our_own_net_for_tables_needs_no_class(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=90), "c": rng.choice(list("abc"), 90), "y": rng.normal(size=90)})
    frame.loc[::9, "x"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    task = make_task("tabular", data=tmp_path / "t.csv", label_column="y")
    (tmp_path / "model").mkdir()
    package = Prune(ratio=0.5, round_to=8, allocation="uniform").apply(Package(task.build()), toy.context(task))
    package.save(tmp_path / "model", task.build)
    with pytest.raises(InputError, match="its own code makes"):
        load_model(tmp_path / "model")
    (tmp_path / "deployment.json").write_text(json.dumps({"prepare": task.deploy(tmp_path)}))
    inputs = [torch.from_numpy(v) for v in task.splits().valid.batch(np.arange(5))[0].values()]
    package.module.eval()
    for folder in (tmp_path, tmp_path / "model"):
        assert torch.equal(load_model(folder)(*inputs), package.module(*inputs))
