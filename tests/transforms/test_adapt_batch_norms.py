"""Batch norms' statistics, estimated anew: what they become, and when they are kept."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import FeatherweightError, InputError
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.task.data import ArraySplit
from featherweight.train.batch_norms import reestimate
from featherweight.train.loop import mean_loss
from featherweight.transforms.adapt_batch_norms import AdaptBatchNorms
from featherweight.transforms.base import Context
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import toy


def context(task, seed=0):
    return Context(task, task.splits(), seed, lambda _: None, lambda _: None, lambda _: None)


def net():
    return nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5))


def images(n):
    x = np.random.default_rng(0).normal(2.0, 3.0, (n, 1, 4, 4)).astype(np.float32)
    return ArraySplit({"image": x}, np.zeros(n, dtype=np.int64))


def test_the_statistics_are_the_means_over_batches():
    torch.manual_seed(0)
    module, split = net(), images(20)
    reestimate(module, split, 8)
    with torch.no_grad():
        seen = [module[0](torch.from_numpy(split.batch(np.arange(i, min(i + 8, 20)))[0]["image"])) for i in (0, 8, 16)]
    for name, of in (("running_mean", torch.mean), ("running_var", torch.var)):
        wanted = torch.stack([of(x, (0, 2, 3)) for x in seen]).mean(0)  # torch.var: unbiased, as torch's own buffer
        torch.testing.assert_close(getattr(module[1], name), wanted)
    assert module[1].momentum == 0.1 and not module.training and not module[1].training


def test_a_last_batch_of_one_is_left_out_and_what_no_batch_reaches_stays():
    module = nn.ModuleDict({"used": net(), "unused": nn.BatchNorm1d(2)})
    module["unused"].running_mean.fill_(7.0)
    module.forward = module["used"].forward
    reestimate(module, images(17), 8)
    two = net()
    two.load_state_dict(module["used"].state_dict())
    reestimate(two, images(16), 8)
    torch.testing.assert_close(two[1].running_var, module["used"][1].running_var)
    assert module["unused"].running_mean.tolist() == [7.0, 7.0] and module["unused"].num_batches_tracked == 0


def test_statistics_that_were_spoilt_come_back():
    task = toy.task()
    module = Train(epochs=4, batch_size=16).apply(Package(task.build()), context(task)).module
    reestimate(module, task.splits().train, 32)
    good = mean_loss(module, task.splits().train, task.loss_fn)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.add_(3.0)
            m.running_var.mul_(9.0)
    spoilt = copy.deepcopy(module.state_dict())
    made = AdaptBatchNorms(samples=64).apply(Package(module), context(task))
    told = made.notes[-1]
    assert told["kept"] and told["loss_after"] < told["loss_before"]
    assert mean_loss(made.module, task.splits().train, task.loss_fn) == pytest.approx(good, rel=0.2)
    assert all(torch.equal(v, spoilt[k]) for k, v in module.state_dict().items())  # the given model is as it was


def test_what_does_not_help_is_not_kept(monkeypatch):
    task, losses = toy.task(), iter([0.5, 0.5])
    monkeypatch.setattr("featherweight.train.loop.mean_loss", lambda *_: next(losses))
    given = Package(task.build())
    made = AdaptBatchNorms(samples=64).apply(given, context(task))
    assert not made.notes[-1]["kept"] and made.module is given.module


def test_a_model_without_batch_norms_is_refused():
    task = toy.task()
    with pytest.raises(InputError, match="no batch norm"):
        AdaptBatchNorms().apply(Package(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), context(task))


def test_it_comes_before_the_scales_are_chosen():
    Recipe(AdaptBatchNorms(), Quantize()).check()
    with pytest.raises(FeatherweightError, match="cannot follow"):
        Recipe(Quantize(), AdaptBatchNorms()).check()
