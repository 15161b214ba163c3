"""A plan is made, judged and exported on the same samples: all who draw them draw the same rows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.engine.export import MANIFEST, write_artifact
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.seeding import derive
from featherweight.task.data import ArraySplit, calibration_rows
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.task.tensors import as_tensor
from featherweight.transforms.mixed_precision import MixedPrecision
from featherweight.transforms.mixed_precision.layers import Layers
from featherweight.transforms.shared import drop
from tests import toy

ROWS = np.arange(200)


def numbered():
    """A task whose samples tell which they are: sample i is (i, 2 i), its target i mod 4."""
    data = ArraySplit({"number": np.stack([ROWS, 2 * ROWS], 1).astype("float32")}, ROWS % 4)
    return Task(name="numbered", model=lambda: nn.Linear(2, 4), data=lambda: split(data))


def drawn(n, seed, train):
    """The draw as it has been since the first stored plan: a change would leave artifacts that are
    not what their keys say."""
    rows = np.sort(np.random.default_rng(derive(seed, "calibration")).permutation(len(train))[:n])
    return train.batch(rows)[0]["number"][:, 0].tolist()


class Keeps:
    """A target and its runtime, which keeps what it is told to calibrate with."""

    def load_runtime(self):
        return self

    def export(self, package, example, calibration, target, folder):
        self.calibration = calibration
        (folder / "model").write_text("")
        return {}


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (24, 5), (24, 6), (10_000, 7)])
def test_transforms_judges_and_exports_calibrate_on_the_same_samples(n, seed, tmp_path, monkeypatch):
    task = numbered()
    train, context, module = task.splits().train, toy.context(task, seed=seed), task.build()
    want = drawn(n, seed, train)
    assert len(set(want)) == len(want) == min(n, len(train))

    plan = MixedPrecision(scheme="int8-static", samples=n).plan(seed)
    layers = Layers(module, context, plan, (8, 32))
    # what ranges and measured sensitivities see
    assert [float(x[0]) for (batch,) in layers.inputs for x in batch] == want
    labelled = layers._labelled()  # what gradients see
    assert [float(x[0, 0]) for (x,), _ in labelled] == want and [int(y) for _, y in labelled] == [
        int(v) % 4 for v in want
    ]

    package, kept, seen = Package(module).edited(plan=replace(plan, layers={})), Keeps(), {}
    write_artifact(task, package, kept, Recipe(), tmp_path)
    assert (
        kept.calibration["number"][:, 0].tolist() == want
        and json.loads((tmp_path / MANIFEST).read_text())["params"] == 12
    )

    (floating := tmp_path / "float").mkdir()  # nothing is calibrated, but parity is checked on samples
    write_artifact(task, Package(module), kept, Recipe(), floating)
    assert kept.calibration["number"][:, 0].tolist() == drawn(64, 0, train)

    monkeypatch.setattr("featherweight.models.quant.fake.simulate", lambda package, samples, _: seen.update(samples))
    # under the plan's seed, not the step's
    drop.runnable(package, toy.context(task, seed=seed + 1))
    assert seen["number"][:, 0].tolist() == want


def test_arrays_become_tensors_as_they_are():
    whole = np.arange(12, dtype="int64").reshape(3, 4)
    shared, turned = as_tensor(whole), as_tensor(whole.T)
    whole[0, 1] = 7
    assert shared[0, 1] == 7 and shared.dtype == torch.int64 and shared.device.type == "cpu"
    assert turned.shape == (4, 3) and turned.is_contiguous() and turned[1].tolist() == [1, 5, 9]
    assert as_tensor(whole, "meta").device.type == "meta"


def test_the_rows_of_a_draw():
    train = numbered().splits().train
    rows = calibration_rows(train, 20, seed=3)
    assert rows.shape == (20,) and (np.diff(rows) > 0).all() and 0 <= rows[0] and rows[-1] < len(train)
    assert not np.array_equal(rows, calibration_rows(train, 20, seed=4))
    assert set(rows) <= set(calibration_rows(train, 21, seed=3))  # more samples are others besides
    assert (
        np.array_equal(calibration_rows(train, 10**6, seed=3), np.arange(len(train)))
        and len(calibration_rows(train, 0, seed=3)) == 0
    )
