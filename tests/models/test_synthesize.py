"""Inputs from batch-norm statistics."""

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.models.package import Package
from featherweight.models.synthesize import Statistics, synthesize, total_variation
from featherweight.transforms.train import Train
from tests import toy


@pytest.fixture(scope="module")
def teacher():
    t = toy.task()
    return Train(epochs=5, lr=3e-3, batch_size=16).apply(Package(t.build()), toy.context(t)).module


def feature(net, x):
    with torch.no_grad(), Statistics(net) as statistics:
        net(torch.as_tensor(x))
        return float(statistics.loss())


def test_the_statistics_term_is_the_published_formula():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    nn.init.uniform_(net[0].running_mean)
    nn.init.uniform_(net[2].running_var)
    x = torch.randn(5, 3, 2, 2)
    with torch.no_grad():
        total = 0.0
        for norm, z in ((net[0], x), (net[2], net[1](net[0](x)))):
            rows = z.transpose(0, 1).flatten(1)
            total += float(
                (rows.mean(1) - norm.running_mean).norm() + (rows.var(1, correction=0) - norm.running_var).norm()
            )
    assert feature(net, x) == pytest.approx(total, rel=1e-5)


def test_inputs_with_the_statistics_have_no_loss():
    net = nn.BatchNorm1d(4).eval()
    x = torch.randn(50, 4)
    net.running_mean.copy_(x.mean(0))
    net.running_var.copy_(x.var(0, correction=0))
    assert feature(net, x) == pytest.approx(0, abs=1e-5)


def test_total_variation_is_the_mean_squared_step():
    x = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    assert float(total_variation(x)) == pytest.approx((4 + 16) / 2 + (1 + 9) / 2)
    assert float(total_variation(torch.ones(2, 3, 4, 4))) == 0 and float(total_variation(torch.randn(2, 3))) == 0


def test_synthetic_inputs_are_what_the_teacher_takes_for_their_labels(teacher):
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    x, y = synthesize(teacher, (1, 8, 8), 96, seed=0, steps=100)
    assert x.shape == (96, 1, 8, 8) and x.dtype == np.float32 and y.shape == (96,) and set(y) == {0, 1, 2, 3}
    with torch.no_grad():
        assert (teacher(torch.from_numpy(x)).argmax(1).numpy() == y).mean() > 0.95
    assert feature(teacher, x) < 0.5 * feature(teacher, np.random.default_rng(0).normal(size=x.shape).astype("float32"))
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters()) and not any(
        m._forward_pre_hooks for m in teacher.modules()
    )


def test_the_same_seed_gives_the_same_inputs(teacher):
    (x, y), (x2, y2), (other, _) = (synthesize(teacher, (1, 8, 8), 3, seed=s, steps=3) for s in (0, 0, 1))
    assert np.array_equal(x, x2) and np.array_equal(y, y2) and not np.array_equal(x, other)


@pytest.mark.parametrize("n", [1, 64, 130])
def test_every_sample_is_made(teacher, n):
    x, y = synthesize(teacher, (1, 8, 8), n, seed=0, steps=1)
    assert len(x) == len(y) == n and np.isfinite(x).all() and (np.abs(x).reshape(n, -1).max(1) > 0).all()


def test_no_statistics_no_inputs(teacher):
    with pytest.raises(InputError, match="no batch-norm statistics"):
        synthesize(toy.plain().eval(), (1, 8, 8), 4, seed=0)
    with pytest.raises(InputError, match="no batch-norm statistics"):
        synthesize(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)).eval(), (3,), 4, seed=0)
    with pytest.raises(InputError, match="made for classes"):
        synthesize(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).eval(), (3,), 4, seed=0)
    with pytest.raises(InputError, match="nothing to synthesise"):
        synthesize(teacher, (1, 8, 8), 0, seed=0)
