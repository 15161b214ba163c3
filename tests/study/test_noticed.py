"""What is said before anything runs."""

import dataclasses

import numpy as np
import pytest

import featherweight as fw
from featherweight import recipes
from featherweight.errors import TaskError
from featherweight.recipes.pace import Pace
from featherweight.study.config import Settings
from featherweight.study.noticed import noticed
from featherweight.study.request import configure
from featherweight.task.data import Subset
from tests import toy


def told(task, **settings):
    settings = {"constraints": [fw.max_drop(0.05)], "budget": fw.Budget(trials=4), **settings}
    return noticed(task, configure(task, Settings.of("optimize", None, **settings)))


def with_splits(splits):
    return dataclasses.replace(toy.task(), data=lambda: splits)


def test_an_ordinary_task_has_nothing_to_say():
    assert told(toy.task()) == []


def test_samples_that_are_no_evidence_are_counted():
    whole = toy.images(120)
    rows = np.arange(120)
    test = Subset(whole, np.concatenate([rows[50:60], rows[80:110], rows[80:90]]))
    said = told(with_splits(fw.Splits(Subset(whole, rows[:60]), Subset(whole, rows[60:80]), test)))
    assert "10 of 50 samples of the test split are in a split before it" in said[0]
    assert "the test split has 30 samples of evidence among its 50" in said[1] and len(said) == 2


def test_classes_without_a_test_sample_are_named():
    whole = toy.images(160)
    y = whole.all_targets()
    rows = np.arange(160)
    test = Subset(whole, rows[120:][y[120:] == y[120]])
    said = told(with_splits(fw.Splits(Subset(whole, rows[:100]), Subset(whole, rows[100:120]), test)))
    assert len(said) == 1 and "has no sample of" in said[0] and "certificates say nothing of them" in said[0]


@pytest.mark.parametrize(("step_s", "left_out"), [(1.0, True), (1e-6, False)])
def test_training_that_is_left_out_for_lack_of_time_is_said(monkeypatch, step_s, left_out):
    monkeypatch.setattr(recipes, "pace", lambda *_: Pace(step_s, step_s / 3, 64))
    said = told(toy.task(), budget=fw.Budget(trials=4, minutes=1))
    assert bool(said) == left_out and all("no pruning or distillation is searched" in line for line in said)
    assert not told(toy.task(), budget=fw.Budget(trials=4))


@pytest.mark.parametrize(("valid", "test", "name"), [((0, 40), (80, 120), "valid"), ((80, 120), (0, 40), "test")])
def test_a_split_that_shows_nothing_new_is_refused_before_anything_runs(valid, test, name):
    whole = toy.images(120)
    parts = [Subset(whole, np.arange(*ends)) for ends in ((0, 80), valid, test)]
    with pytest.raises(TaskError, match=f"every sample of the {name} split is in a split before it"):
        told(with_splits(fw.Splits(*parts)))


@pytest.mark.parametrize(("most", "says"), [("10k", []), ("100", ["none of 200 random nets"])])
def test_a_space_in_which_hardly_a_net_holds_the_limits_says_so(most, says):
    net = fw.ConvNet(in_channels=1, classes=4, stem=8, depths=(fw.Int(1, 3),), widths=(fw.Int(8, 16),))
    recipe = fw.Recipe(fw.Build(net), fw.Train(epochs=1))
    asked = {"constraints": [fw.max_params(most)], "budget": fw.Budget(minutes=1)}
    task = toy.task()
    found = noticed(task, configure(task, Settings.of("search", recipe, **asked)))
    assert [line[: len(says[0])] for line in found] == says if says else found == []
    assert all("the smallest has" in line and "params" in line for line in found)
