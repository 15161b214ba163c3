"""Activity: the suite, the formula by hand, edges, and which channel goes."""

import numpy as np
import torch
from featherweight_extras.activity import Activity
from torch import nn

import featherweight as fw
from featherweight.models.criteria.base import Seen
from featherweight.models.package import Package
from featherweight.testing import check_criterion, check_transform
from featherweight.transforms.base import Context


def net():
    """Eight hidden channels; of each pair the first answers, the second is silent."""
    first = nn.Linear(6, 8)
    with torch.no_grad():
        first.bias.copy_(torch.tensor([9.0, -9.0] * 4))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 2))


def task():
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    return fw.Task(name="small", model=net, data=lambda: fw.split(fw.ArraySplit({"x": x}, y)))


def score(outputs):
    return Activity().score(Seen(torch.zeros(2, 3), outputs=outputs), torch.Generator())


def test_it_passes_the_suite():
    check_criterion(Activity())


def test_the_formula():
    assert score(torch.tensor([[1.0, 0.0], [-3.0, 0.5]])).tolist() == [2.0, 0.25]


def test_a_layer_that_was_never_seen():
    assert score(torch.zeros(0, 2)).tolist() == [0.0, 0.0]


def test_silent_channels_go():
    prune = fw.Prune(ratio=0.5, criterion="activity", round_to=1)
    check_transform(prune, task())
    t = task()
    context = Context(t, t.splits(), 0, lambda _: None, lambda _: None, lambda _: None)
    cut = prune.apply(Package(t.build()), context)
    assert torch.equal(cut.module[0].bias, torch.full((4,), 9.0))
