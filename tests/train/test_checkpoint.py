"""Training that pauses and goes on gives the weights of training that never did, bit for bit."""

import json

import pytest
import torch
from torch import nn

from featherweight.errors import StoreError
from featherweight.train.checkpoint import Paused, Rungs
from featherweight.train.loop import Settings, fit, predict
from tests import toy


def net():
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def train(module, rungs=None, seed=0, sparse=(), extra=None, **settings):
    def objective(out, y, _):
        return nn.functional.cross_entropy(out if extra is None else extra(out), y)

    s = Settings(**{"epochs": 5, "lr": 0.05, "batch_size": 16, "warmup": 0.2, "weight_decay": 1e-3, **settings})
    return fit(module, toy.images(64), objective, s, seed=seed, sparse=sparse, extra=extra, rungs=rungs)


class Boss:
    """Answers at rungs, and remembers what it was told."""

    def __init__(self, path, epochs, go):
        self.path, self.epochs, self.go, self.told = path, epochs, go, []

    def rungs(self, reported=()):
        def ask(epoch, of, score):
            self.told.append((epoch, of, score))
            return self.go

        return Rungs(self.path, self.epochs, reported, lambda m: float(predict(m, toy.images(32, seed=3)).sum()), ask)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_paused_at_every_rung_and_resumed_in_a_new_module(tmp_path, optimizer):
    whole = net()
    loss = train(whole, optimizer=optimizer, lr=0.01)
    boss, reported = Boss(tmp_path / "c.pt", (1, 3), go=False), []
    for rung in (1, 3):
        with pytest.raises(Paused) as paused:
            train(net(), boss.rungs(reported), optimizer=optimizer, lr=0.01)
        assert paused.value.epoch == rung
        reported.append(rung)
    last = net()
    assert train(last, boss.rungs(reported), optimizer=optimizer, lr=0.01) == loss and same(last, whole)
    assert [(e, of) for e, of, _ in boss.told] == [(1, 5), (3, 5)]


# 64 samples: 4 batches; 7, because a last one of one sample is left out; 64
@pytest.mark.parametrize("size", [16, 9, 1])
def test_paused_within_epochs_and_resumed(tmp_path, size):
    """At a fraction of the data, and where two rungs fall on one batch,
    or on the end of an epoch."""
    whole, rungs = net().eval() if size == 1 else net(), (0.001, 0.25, 0.999, 1.3, 1.301)
    loss = train(whole, batch_size=size, epochs=2)
    boss, reported, places = Boss(tmp_path / "c.pt", rungs, go=False), [], []
    for rung in rungs:
        with pytest.raises(Paused) as paused:
            train(net(), boss.rungs(reported), batch_size=size, epochs=2)
        assert paused.value.epoch == rung
        reported.append(rung)
        saved = torch.load(boss.path, weights_only=True)
        places.append((saved["epoch"], saved["batch"]))
    last = net()
    assert train(last, boss.rungs(reported), batch_size=size, epochs=2) == loss and same(last, whole)
    per = {16: 4, 9: 7, 1: 64}[size]
    assert places == [(0, 1), (0, round(per / 4)), (1, 0), *[(1, round(0.3 * per))] * 2]


def test_being_asked_does_not_change_the_training(tmp_path):
    whole, asked = net(), net()
    state = torch.random.get_rng_state()
    train(whole)
    boss = Boss(tmp_path / "c.pt", (1, 2, 4), go=True)
    train(asked, boss.rungs())
    assert same(whole, asked) and len(boss.told) == 3 and torch.equal(state, torch.random.get_rng_state())


def test_a_run_that_was_killed_after_saving_tells_its_score_once_it_is_back(tmp_path):
    class Killed(Exception):
        pass

    def die(*_):
        raise Killed

    boss = Boss(tmp_path / "c.pt", (2,), go=True)
    quiet = boss.rungs()
    with pytest.raises(Killed):
        train(net(), Rungs(quiet.path, quiet.epochs, (), quiet.score, die))
    whole, back = net(), net()
    train(whole)
    train(back, boss.rungs())
    assert same(whole, back) and [e for e, _, _ in boss.told] == [2]
    train(net(), boss.rungs(reported=[2]))
    assert len(boss.told) == 1  # it was told before: nobody is asked


def test_zeros_stay_zero_and_what_is_trained_along_goes_on_too(tmp_path):
    def parts():
        module = net()
        with torch.no_grad():
            module[6].weight[:, ::2] = 0
        torch.manual_seed(9)
        return module, nn.Linear(4, 4)

    (a, extra_a), (b, extra_b), (c, extra_c) = parts(), parts(), parts()
    boss = Boss(tmp_path / "c.pt", (2,), go=False)
    train(a, sparse=["6.weight"], extra=extra_a)
    with pytest.raises(Paused):
        train(b, boss.rungs(), sparse=["6.weight"], extra=extra_b)
    train(c, boss.rungs(reported=[2]), sparse=["6.weight"], extra=extra_c)
    assert same(a, c) and same(extra_a, extra_c) and not same(extra_c, parts()[1]) and not c[6].weight[:, ::2].any()


def test_a_checkpoint_of_another_training_or_a_broken_one_is_refused(tmp_path):
    boss = Boss(tmp_path / "c.pt", (1,), go=False)
    with pytest.raises(Paused):
        train(net(), boss.rungs())
    with pytest.raises(StoreError, match="another training"):
        train(net(), boss.rungs(), seed=1)
    whole = boss.path.read_bytes()
    for broken in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        boss.path.write_bytes(broken)
        with pytest.raises(StoreError, match="cannot be read"):
            train(net(), boss.rungs())


def test_a_checkpoint_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (json.dumps, ("boo",))

    boss = Boss(tmp_path / "c.pt", (1,), go=True)
    torch.save({"seed": 0, "model": Evil()}, boss.path)
    with pytest.raises(StoreError, match="cannot be read"):
        train(net(), boss.rungs())
