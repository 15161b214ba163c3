import math

import pytest

from featherweight.report import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.42, "420 us"),
        (0.0791, "79.1 us"),
        (0.9999, "1.00 ms"),
        (1.239, "1.24 ms"),
        (12.34, "12.3 ms"),
        (999.4, "999 ms"),
        (1200.0, "1.20 s"),
        (0.0, "0 us"),
    ],
)
def test_milliseconds(value, text):
    assert units.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.00 KB"),
        (56_249, "56.2 KB"),
        (999_900, "1.00 MB"),
        (1.2e9, "1.20 GB"),
    ],
)
def test_size_is_decimal_as_the_limits_are(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (7, "7"), (22_700_000, "22.7 M"), (155_000, "155 k"), (4e9, "4.00 G")]
)
def test_count(value, text):
    assert units.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.353, "0.35 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (171.4, "2 min 51 s"),
        (11_100, "3 h 05 min"),
    ],
)
def test_seconds(value, text):
    assert units.seconds(value) == text


def test_metric_and_difference():
    assert units.metric(0.9815, "accuracy") == "98.2 %"
    assert units.metric(0.9815, "mse") == "0.9815"
    assert units.difference(0.0072, "accuracy") == "0.72 points"
    assert units.difference(0.01, "accuracy") == "1 point"
    assert units.difference(-0.000001, "accuracy") == "0 points"
    assert units.difference(-0.0123, "mse") == "-0.0123"


@pytest.mark.parametrize(
    "function", [units.milliseconds, units.size, units.count, units.seconds, units.ratio, units.percent]
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_was_not_measured_is_said_so(function, value):
    assert function(value) == "n/a"


def test_a_difference_is_never_minus_nothing():
    assert units.difference(-0.0, "mse") == "0" and units.difference(-0.0, "accuracy") == "0 points"


def test_one_is_no_plural():
    assert units.many(1, "trial") == "1 trial" and units.many(2, "trial") == "2 trials"
