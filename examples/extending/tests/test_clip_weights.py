"""ClipWeights: the suite, the formula by hand, edges, and what it is for."""

import numpy as np
import pytest
import torch
from featherweight_extras.clip_weights import ClipWeights, clipped
from torch import nn

import featherweight as fw
from featherweight.testing import check_transform


def task():
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    return fw.Task(
        name="small",
        model=lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
        data=lambda: fw.split(fw.ArraySplit({"x": x}, (x[:, 0] > 0).astype(int))),
    )


@pytest.mark.parametrize("multiple", [0.5, 4.0])
def test_it_passes_the_suite(multiple):
    check_transform(ClipWeights(multiple), task())


def test_the_formula():
    w = torch.tensor([[3.0, -4.0], [0.0, 0.0]])  # root mean square 2.5
    assert clipped(w, 1.2).tolist() == [[3.0, -3.0], [0.0, 0.0]]
    assert torch.equal(clipped(w, 1.6), w)


def test_edges():
    assert clipped(torch.zeros(2, 2), 4.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert clipped(torch.tensor([[7.0]]), 1.0).tolist() == [[7.0]]
    with pytest.raises(fw.FeatherweightError, match="out of its range"):
        ClipWeights(0.0)


def test_it_cannot_follow_quantization():
    with pytest.raises(fw.FeatherweightError, match="clip_weights cannot follow quantize") as e:
        fw.Recipe(fw.Quantize(), ClipWeights()).check()
    assert e.value.allowed == "clip_weights -> quantize"


def test_a_grid_of_sixteen_values_fits_better_without_the_outlier():
    w = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    w[0, 0] = 50.0

    def error(v):
        step = v.abs().max() / 7
        return float(((v / step).round() * step - w).square()[1:].mean())

    assert error(clipped(w, 4.0)) < 0.1 * error(w)
