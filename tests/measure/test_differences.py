"""Where two models differ: classes, mistakes and samples."""

import numpy as np

from featherweight.measure.accuracy import metric
from featherweight.measure.differences import SAMPLES, differences

Y = np.array([0, 0, 0, 1, 1, 2, 2])
BASE = np.eye(3)[[0, 0, 1, 1, 1, 2, 0]]
MINE = np.eye(3)[[0, 1, 1, 1, 2, 2, 2]]


def test_classes_mistakes_and_samples():
    found = differences(metric("accuracy"), BASE, MINE, Y, ("cat", "dog", "owl"))
    assert found["classes"] == [
        {"class": "cat", "n": 3, "baseline": 2, "candidate": 1},
        {"class": "dog", "n": 2, "baseline": 2, "candidate": 1},
        {"class": "owl", "n": 2, "baseline": 1, "candidate": 2},
    ]
    assert found["mistakes"] == [
        {"class": "cat", "as": "dog", "baseline": 1, "candidate": 2},
        {"class": "dog", "as": "owl", "baseline": 0, "candidate": 1},
    ]
    assert found["samples"] == [
        {"row": 1, "class": "cat", "baseline": "cat", "candidate": "dog"},
        {"row": 4, "class": "dog", "baseline": "dog", "candidate": "owl"},
    ]
    assert (found["lost"], found["won"]) == (2, 1)


def test_classes_without_names_and_outputs_that_are_not_numbers():
    found = differences(metric("macro_f1"), BASE, np.where(Y[:, None] == 1, np.nan, BASE), Y)
    assert found["classes"][0] == {"class": "1", "n": 2, "baseline": 2, "candidate": 0}
    assert found["mistakes"] == [{"class": "1", "as": "-1", "baseline": 0, "candidate": 2}] and found["won"] == 0


def test_of_a_regression_the_samples_that_became_worst():
    y, rng = np.arange(50.0)[:, None], np.random.default_rng(0)
    off = rng.permutation(50).astype(float)[:, None]
    found = differences(metric("mae"), y + 1, y + off, y)
    errors = [s["candidate"] for s in found["samples"]]
    assert len(errors) == SAMPLES and errors == sorted(errors, reverse=True) and errors[0] == 49.0
    assert [float(off[s["row"], 0]) for s in found["samples"]] == errors and "classes" not in found
    whole = differences(metric("mse"), y.astype(int), y.astype(int), y.astype(int))
    assert whole == {"samples": []}  # whole numbers are no classes there


def test_counts_are_no_classes():
    def off(outputs, targets):
        return np.abs(outputs[:, 0] - targets)

    counts = np.arange(20)
    found = differences(metric(off, higher_is_better=False), counts[:, None] * 1.0, counts[:, None] * 1.1, counts)
    assert "classes" not in found and found["samples"][0]["row"] == 19


def test_a_metric_without_values_of_samples_has_none():
    def spread(outputs, targets):
        return float(outputs.std())

    assert differences(metric(spread), BASE[:, :1] + 0.5, MINE[:, :1], Y + 0.5) is None
