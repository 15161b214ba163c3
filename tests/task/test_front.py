"""Arrays in units of their own: what stands inside a net that a search builds for them."""

import json
import sqlite3

import numpy as np
import pytest
import torch

import featherweight as fw
from featherweight.errors import InputError
from featherweight.nets.mlp import Mlp
from featherweight.nets.standardised import Standardised
from featherweight.recipes import fixed, search
from featherweight.report.words import summary
from featherweight.task.accept import task_of

RNG = np.random.default_rng(0)
N = 200
X = RNG.normal(size=(N, 4)) * [1, 1000, 1e-3, 0] + [0, 5000, 0, 7]
Y = 3e5 + 1e4 * RNG.normal(size=N)


def of(x, y, **more):
    task = task_of(None, (np.asarray(x, dtype=np.float32), y), **more)
    return task, task.front()


def test_columns_are_standardised_by_the_training_split():
    task, (kind, fields) = of(X, np.arange(N) % 3)
    train = task.splits().train.batch(np.arange(len(task.splits().train)))[0]["input"].astype(np.float64)
    assert kind == "standardised" and set(fields) == {"shape", "axis", "mean", "deviation"}
    np.testing.assert_allclose(fields["mean"], train.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fields["deviation"][:3], train[:, :3].std(0), rtol=1e-4)
    assert fields["deviation"][3] == 0.0, "a constant"


def test_targets_have_their_scale_back():
    task, (_, fields) = of(RNG.normal(size=(N, 4)), Y)
    y = task.splits().train.all_targets()
    assert fields["scale"] == pytest.approx(float(y.std()), rel=1e-4) and fields["power"] == 2
    assert fields["shift"] == pytest.approx(float(y.mean()), rel=1e-6) and "mean" not in fields
    assert of(X, Y, loss="mae")[1][1]["power"] == 1


@pytest.mark.parametrize("shape", [(N, 4), (N, 2, 9), (N, 3, 6, 6)])
def test_numbers_of_ordinary_size_stay(shape):
    assert of(RNG.normal(size=shape), np.arange(N) % 3)[1] is None


def test_of_series_each_channel_has_its_own():
    x = RNG.normal(size=(N, 30, 2)) * [1, 100]
    _, (_, fields) = of(x, np.arange(N) % 2)
    assert fields["axis"] == 1 and fields["deviation"][1] == pytest.approx(100, rel=0.05)
    turned = of(np.moveaxis(x, 1, 2), np.arange(N) % 2)[1][1]
    assert turned["axis"] == 0 and turned["deviation"][1] == pytest.approx(100, rel=0.05)


def test_the_built_net_computes_with_standardised_numbers():
    net = Standardised(
        net=Mlp(features=2, classes=1, hidden=(3,)),
        shape=(2,),
        mean=(5.0, 1.0),
        deviation=(2.0, 0.0),
        scale=100.0,
        power=2,
    )
    module, x = net.build(0), torch.tensor([[7.0, 1.0], [5.0, 9.0]])
    inside = module.net(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(module(x), 100 * inside)
    with pytest.raises(InputError, match="channels do not go together"):
        Standardised(shape=(2,), mean=(1.0,), deviation=(1.0,)).check()


def test_a_search_has_it_in_all_of_its_nets():
    task, _ = of(X, Y)
    for recipe in (search(task), fixed(task, search(task))):
        (build, *_) = recipe.to_json()["recipe"]
        assert list(build["build"]["net"]) == ["standardised"]
    assert "standardised" not in json.dumps(search(of(RNG.normal(size=(N, 4)), np.arange(N) % 3)[0]).to_json())


def test_what_needs_no_network_is_told(tmp_path):
    """And only once, though the study goes on."""
    x = RNG.normal(size=(N, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    recipe = fw.Recipe(fw.Build(Mlp(features=4, classes=2, hidden=(fw.Int(2, 4),))), fw.Train(epochs=1))
    asked = {"recipe": recipe, "measure_seconds": 0.1, "polish": 0.0, "out": tmp_path, "verbose": False}
    study = fw.search(data=(x, y), trials=1, **asked)
    told = study.front_json()["yardsticks"]
    assert [one["name"].partition(" (")[0] for one in told] == ["always the commonest class", "gradient boosting"]
    assert told[0]["metric"]["value"] < 0.7 < told[1]["metric"]["value"]
    assert any(
        line.startswith("Without a network") and "gradient boosting" in line for line in summary(study.front_json())
    )
    again = fw.search(data=(x, y), trials=2, **asked)
    assert again.front_json()["yardsticks"] == told
    with sqlite3.connect(tmp_path / "study.db") as db:
        assert str(db.execute("select * from events").fetchall()).count("'yardsticks'") == 1
