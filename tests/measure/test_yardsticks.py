"""Gradient boosting is fitted on the training split, judged on the validation split, as if by
hand."""

import dataclasses
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

import featherweight as fw
from featherweight.errors import InputError
from featherweight.measure.yardsticks import BOOSTING, yardsticks
from featherweight.task.kinds import make_task
from tests import toy


def table(path, frame, **options):
    frame.to_csv(path, index=False)
    return make_task("tabular", data=path, **options)


def test_of_classes_it_is_what_scikit_learn_says(tmp_path):
    task = table(tmp_path / "t.csv", load_breast_cancer(as_frame=True).frame)
    (found,) = yardsticks(task)
    splits = task.splits()
    (x, y), (v, w) = (p.batch(np.arange(len(p))) for p in (splits.train, splits.valid))
    expected = HistGradientBoostingClassifier(random_state=0).fit(x["numbers"].astype(float), y)
    assert found.name == BOOSTING and found.metric.name == "accuracy"
    assert found.metric.value == pytest.approx(expected.score(v["numbers"].astype(float), w))
    assert found.metric.value > 0.9 and found.metric.n == len(w) and found.seconds > 0


def test_of_numbers_it_is_what_scikit_learn_says(tmp_path):
    task = table(tmp_path / "t.csv", load_diabetes(as_frame=True).frame)
    (found,) = yardsticks(task)
    (x, y), (v, w) = (p.batch(np.arange(len(p))) for p in (task.splits().train, task.splits().valid))
    expected = HistGradientBoostingRegressor(random_state=0).fit(x["numbers"].astype(float), y)
    assert found.metric.name == "r2"
    assert found.metric.value == pytest.approx(expected.score(v["numbers"].astype(float), w), abs=1e-5)


def test_missing_values_and_categories_are_given_as_such(tmp_path):
    rng = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame({"x": rng.normal(size=n), "c": rng.choice(list("abcdefgh"), n)})
    frame["y"] = np.where(frame["c"].isin(list("aceg")), "odd", "even")
    hidden = rng.random(n) < 0.5
    frame.loc[hidden, "x"] = np.nan
    frame.loc[rng.random(n) < 0.05, "c"] = np.nan
    assert yardsticks(table(tmp_path / "t.csv", frame))[0].metric.value > 0.9
    frame = pd.DataFrame({"x": frame["x"], "z": rng.normal(size=n), "y": np.where(hidden, "gone", "there")})
    assert yardsticks(table(tmp_path / "u.csv", frame))[0].metric.value == 1


def test_there_is_none_for_other_tasks():
    assert yardsticks(toy.task()) == []


def test_what_would_take_too_long_is_not_begun(tmp_path):
    wide = np.random.default_rng(0).normal(size=(60, 20_000)).astype(np.float32)
    task = toy.task()
    splits = fw.split(fw.ArraySplit({"x": wide}, np.arange(60) % 3), seed=0)
    task = dataclasses.replace(task, data=lambda: splits)
    begun = time.perf_counter()
    with pytest.raises(InputError, match="gradient boosting.* would take about"):
        yardsticks(task, within_s=0.5)
    assert time.perf_counter() - begun < 10


def test_there_is_none_of_sounds():
    """Their features are made inside the model; a row of 16,000 numbers is no row of a table."""
    wide = np.random.default_rng(0).normal(size=(60, 800)).astype(np.float32)
    splits = fw.split(fw.ArraySplit({"x": wide}, np.arange(60) % 3), seed=0)
    made = lambda: ("log_mel", {"rate": 16_000, "samples": 800})  # noqa: E731
    task = dataclasses.replace(toy.task(), data=lambda: splits, front=made)
    assert yardsticks(task) == []
