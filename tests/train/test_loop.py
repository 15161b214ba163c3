import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError
from featherweight.task.data import ArraySplit
from featherweight.train.loop import Settings, fit, learning_rate, make_optimizer, predict
from tests import toy


def objective(out, y, _):
    return nn.functional.cross_entropy(out, y)


def trained(seed=0, **settings):
    torch.manual_seed(5)
    net = toy.residual(8)
    s = Settings(**{"epochs": 6, "lr": 3e-3, "batch_size": 8, **settings})
    return net, fit(net, toy.images(96), objective, s, seed=seed)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.05), ("adam", 3e-3), ("adamw", 3e-3)])
def test_every_optimizer_learns(optimizer, lr):
    net, loss = trained(optimizer=optimizer, lr=lr)
    assert loss < 0.6 and not net.training
    test = toy.images(64, seed=9)
    assert (predict(net, test).argmax(1) == test.targets).mean() > 0.9


def test_same_seed_same_weights_and_no_trace_in_the_global_generator():
    (a, _), (b, _), (c, _) = trained(1), trained(1), trained(2)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), c.state_dict().values(), strict=True))
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))
    state = torch.random.get_rng_state()
    fit(net, toy.images(32), objective, Settings(1, 0.1, 8), seed=0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_schedules_have_their_published_shapes():
    cosine = Settings(1, 1.0, 1, schedule="cosine", warmup=0.1)
    assert [learning_rate(i, 100, cosine) for i in (0, 9, 10, 55)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    assert learning_rate(99, 100, Settings(1, 1.0, 1, schedule="linear")) == pytest.approx(0.01)
    assert {learning_rate(i, 10, Settings(1, 2.0, 1, schedule="constant")) for i in range(10)} == {2.0}


def test_weight_decay_spares_biases_and_norms():
    groups = make_optimizer(toy.residual(8), Settings(1, 0.1, 1, weight_decay=0.5)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"]) and all(p.ndim <= 1 for p in groups[1]["params"])


def test_divergence_is_an_error_that_names_the_learning_rate():
    data = toy.images(32)
    data.inputs["image"][:] = 1e30
    with pytest.raises(InputError, match="diverged"):
        fit(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 4)),
            data,
            lambda out, y, _: (out**2).mean(),
            Settings(1, 1e3, 8),
            seed=0,
        )


def test_edges_no_epochs_one_sample_a_last_batch_of_one():
    net = toy.residual(8)
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    fit(net, toy.images(8), objective, Settings(0, 0.1, 4), seed=0)
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
    # 4 + 4 + 1: batch norm would refuse one sample... if it saw it
    fit(net, toy.images(9), objective, Settings(1, 1e-3, 4), seed=0)
    one = ArraySplit({"x": np.ones((1, 64), "float32")}, np.array([1]))
    linear = nn.Linear(64, 4)
    assert np.isfinite(fit(linear, one, objective, Settings(1, 1e-3, 4), seed=0)) and predict(linear, one).shape == (
        1,
        4,
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_cuda_ends_on_the_cpu():
    torch.manual_seed(5)
    net = toy.residual(8)
    loss = fit(net, toy.images(96), objective, Settings(6, 3e-3, 8), seed=0, device="cuda")
    assert loss < 0.6 and next(net.parameters()).device.type == "cpu"
