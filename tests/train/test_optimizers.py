"""Optimizers of plain parameters: against torch, against formulas, and down known valleys."""

import math

import numpy as np
import pytest
import torch

from featherweight.errors import InputError
from featherweight.train.optimizers import Adam, GradientDescent, Sgd, State, minimize

PAIRS = {
    "gradient descent": (GradientDescent(0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
    "sgd without momentum": (Sgd(0.05, momentum=0.0), lambda p: torch.optim.SGD(p, lr=0.05)),
    "momentum": (Sgd(0.02, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9)),
    "nesterov": (
        Sgd(0.02, momentum=0.8, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.1),
    ),
    "adam": (
        Adam(0.1, beta1=0.8, beta2=0.95, eps=1e-6),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-6),
    ),
    "adamw": (Adam(0.1, weight_decay=0.2), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_fifty_steps_equal_those_of_torch(name):
    ours, make = PAIRS[name]
    rng = np.random.default_rng(0)
    theta = {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2), "s": 0.7}
    params = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in theta.items()}
    optimizer, state = make(list(params.values())), None
    for _ in range(50):
        grads = {k: np.sin(3 * np.asarray(v)) + rng.normal(size=np.shape(v)) for k, v in theta.items()}
        theta, state = ours.step(theta, grads, state)
        for k, p in params.items():
            p.grad = torch.tensor(grads[k])
        optimizer.step()
    for k, p in params.items():
        np.testing.assert_allclose(theta[k], p.detach().numpy(), rtol=0, atol=1e-12)
    assert state.step == 50


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate():
    """Without the bias correction it would be lr (1 - beta1) / sqrt(1 - beta2) = 3.16 lr."""
    for g in (1e-3, 1.0, -500.0):
        theta, _ = Adam(lr=0.01, eps=1e-16).step(2.0, g)
        assert theta == pytest.approx(2.0 - 0.01 * math.copysign(1, g), abs=1e-12)


def test_a_step_changes_nothing_that_it_was_given():
    theta, g = {"x": np.ones(3)}, {"x": np.full(3, 2.0)}
    for optimizer in (GradientDescent(), Sgd(), Adam()):
        _, state = optimizer.step(theta, g)
        kept = {k: v["x"].copy() for k, v in state.slots.items()}
        optimizer.step(theta, g, state)
        assert (theta["x"] == 1).all() and (g["x"] == 2).all() and state.step == 1
        assert all((state.slots[k]["x"] == v).all() for k, v in kept.items())


def bowl(x):
    scale = np.array([1.0, 10.0])
    return float(0.5 * (scale * (x - 3) ** 2).sum()), scale * (x - 3)


def rosenbrock(x):
    a, b = x
    return (1 - a) ** 2 + 100 * (b - a * a) ** 2, np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])


@pytest.mark.parametrize(
    "optimizer, steps",
    [(GradientDescent(0.1), 300), (Sgd(0.02), 400), (Sgd(0.02, nesterov=True), 400), (Adam(0.1), 1000)],
    ids=str,
)
def test_the_bottom_of_a_bowl(optimizer, steps):
    found = minimize(bowl, np.zeros(2), optimizer, steps)
    np.testing.assert_allclose(found.x, [3, 3], atol=1e-4)
    assert found.value == min(found.trace) and len(found.trace) == steps + 1


@pytest.mark.parametrize("optimizer", [Sgd(5e-4), Sgd(5e-4, nesterov=True), Adam(0.02)], ids=str)
def test_the_valley_of_rosenbrock(optimizer):
    found = minimize(rosenbrock, np.array([-1.2, 1.0]), optimizer, 8000)
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-2)


def test_bounds_hold_and_the_best_is_on_the_edge():
    seen = []

    def f(x):
        seen.append(x)
        return bowl(x)

    found = minimize(f, np.array([9.0, -9.0]), Adam(0.1), 200, bounds=(-1.0, np.array([2.0, 5.0])))
    np.testing.assert_allclose(found.x, [2, 3], atol=1e-3)
    assert all((x >= -1).all() and (x <= [2, 5]).all() for x in seen)
    assert minimize(
        lambda x: (x["a"] ** 2, {"a": 2 * x["a"]}), {"a": 4.0}, GradientDescent(0.1), 50, bounds=(1.0, 9.0)
    ).x == {"a": 1.0}


def test_edges():
    assert minimize(bowl, np.zeros(2), Adam(), 0).trace == (bowl(np.zeros(2))[0],)
    empty, state = Adam().step({}, {})
    assert empty == {} and state == State(1, {"m": {}, "v": {}})
    assert GradientDescent(0.5).step(np.zeros(0), np.zeros(0))[0].shape == (0,)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: GradientDescent(0.0),
        lambda: Sgd(-1.0),
        lambda: Sgd(momentum=1.0),
        lambda: Sgd(momentum=0.0, nesterov=True),
        lambda: Adam(beta2=1.0),
        lambda: Adam(lr=math.nan),
        lambda: Adam().step({"a": 1.0}, {"b": 1.0}),
        lambda: Adam().step(np.zeros(2), np.zeros(3)),
        lambda: Adam().step(1.0, {"a": 1.0}),
        lambda: Sgd().step(np.zeros(2), np.array([0.0, math.nan])),
        lambda: minimize(bowl, np.zeros(2), Sgd(), -1),
        lambda: minimize(lambda x: (math.inf if x != 1 else 0.0, 1.0), 1.0, Sgd(), 3),
    ],
)
def test_refusals(wrong):
    with pytest.raises(InputError):
        wrong()
