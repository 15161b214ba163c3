"""Steps that no filling can make work are refused before the baselines are measured."""

import dataclasses

import numpy as np
import pytest
from torch import nn

import featherweight as fw
from featherweight.errors import InputError
from featherweight.study.beforehand import check_steps
from featherweight.study.config import Settings
from featherweight.study.request import configure
from tests import toy


class OneSize(nn.Module):
    """Takes 8 x 8 pixels and no others."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 4)

    def forward(self, image):
        return self.out(self.conv(image).flatten(1))


def resized(*scales):
    return fw.Resize(scale=fw.Choice(*scales))


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (fw.Recipe(resized(1.0, 0.5)), r"resize cannot work(.|\n)*the layer 'out' \(Linear\)"),
        (fw.Recipe(fw.Maybe(resized(0.75, 0.5)), fw.Distill(epochs=1)), "resize cannot work"),
        (fw.Recipe(fw.Choice(fw.Quantize(), resized(0.5))), "resize cannot work"),
        (fw.Recipe(fw.TrimVocabulary(min_count=fw.Choice(1, 2))), r"trim_vocabulary cannot work(.|\n)*no nn.Embedding"),
        (fw.Recipe(fw.Truncate(length=0.5)), "truncate cannot work"),
    ],
    ids=str,
)
def test_a_step_that_never_works_is_named_with_the_reason(recipe, says):
    task = toy.task(OneSize)
    with pytest.raises(InputError, match=says):
        configure(task, Settings.of("optimize", recipe, budget=fw.Budget(trials=1)))


def test_what_may_work_passes():
    check_steps(toy.task(), fw.Recipe(resized(1.0, 0.5), fw.Prune(ratio=fw.Float(0.0, 0.5))), 0)
    check_steps(toy.task(OneSize), fw.Recipe(resized(1.0)), 0)  # it does nothing
    check_steps(toy.task(OneSize), fw.Recipe(resized(1.0, 0.99)), 0)  # 8 pixels stay 8
    net = fw.ConvNet(in_channels=1, classes=4, stem=8, depths=(1,), widths=(8,))
    check_steps(toy.task(OneSize), fw.Recipe(fw.Build(net), resized(0.5)), 0)


def test_the_model_and_the_data_are_left_as_they_were():
    task = toy.task()
    before = task.splits().train.batch(np.arange(3))[0]["image"].copy()
    check_steps(dataclasses.replace(task), fw.Recipe(resized(0.5)), 0)
    assert np.array_equal(task.splits().train.batch(np.arange(3))[0]["image"], before)
