import math

import pytest

from featherweight.errors import InputError
from featherweight.limits import (
    Budget,
    Constraint,
    judge,
    max_drop,
    max_latency,
    max_macs,
    max_memory,
    max_params,
    max_size,
    min_metric,
    objectives,
)
from featherweight.records import Entry, Latency, Quality, Speedup


def entry(metric=0.9, ms=2.0, ratio=1.0, size=1000, memory=10**8, params=500, macs=9000, higher=True):
    quality, latency = Quality("accuracy", metric, None, 10, higher), Latency(ms, ms, 10, ms, 0.0)
    speedup = Speedup(ratio, (ratio, ratio), "cpu", 10)
    return Entry("x", None, None, "onnxruntime", quality, latency, speedup, size, memory, params, macs, "a", "0" * 64)


BASE = entry()


@pytest.mark.parametrize(
    "make, text, bound, relative",
    [
        (max_latency, "0.5x", 0.5, True),
        (max_latency, "2ms", 2.0, False),
        (max_latency, "500us", 0.5, False),
        (max_latency, "1.5 s", 1500.0, False),
        (max_latency, 3, 3.0, False),
        (max_latency, "0.25ms", 0.25, False),
        (max_size, "300KB", 3e5, False),
        (max_size, "1MiB", 2**20, False),
        (max_size, "0.5X", 0.5, True),
        (max_size, 4096, 4096.0, False),
        (max_memory, "2GB", 2e9, False),
        (max_params, "100k", 1e5, False),
        (max_params, "7", 7.0, False),
        (max_macs, "1.5G", 1.5e9, False),
        (max_macs, "1e3k", 1e6, False),
    ],
)
def test_limits_are_read(make, text, bound, relative):
    c = make(text)
    assert c.bound == pytest.approx(bound) and c.relative is relative


@pytest.mark.parametrize("make", [max_size, max_memory, max_params, max_macs])
def test_half_a_byte_was_meant_as_a_share(make):
    with pytest.raises(InputError, match="less than one") as e:
        make(0.5)
    assert "'0.5x'" in str(e.value.fix)
    assert (
        make(1).bound == 1
        and make("0.5x").relative
        and max_latency("0.5ms").bound == 0.5
        and max_latency(1.5).bound == 1.5
    )


@pytest.mark.parametrize("make", [max_latency, max_size, max_memory, max_params, max_macs])
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "fast",
        "x",
        "-1x",
        "0x",
        "0",
        0,
        -3,
        "1.2.3x",
        "5 parsecs",
        None,
        True,
        math.nan,
        math.inf,
        "1e999x",
        "nan",
        "inf",
        "0.5xx",
    ],
)
def test_bad_limits(make, bad):
    with pytest.raises(InputError) as e:
        make(bad)
    assert "0.5x" in str(e.value)


def test_text_needs_a_unit_where_there_is_one():
    for make in (max_latency, max_size, max_memory):
        with pytest.raises(InputError):
            make("5")


@pytest.mark.parametrize("bad", [-0.1, "-1%", "1 point", "0.5x", "1..2", "", None, True, math.nan, math.inf])
def test_bad_metric_limits(bad):
    with pytest.raises(InputError):
        max_drop(bad)
    if bad != -0.1:
        with pytest.raises(InputError):
            min_metric(bad)


@pytest.mark.parametrize(
    "constraint, good, bad, excess",
    [
        (max_drop(0.01), entry(0.89), entry(0.88), 1.0),
        (max_drop(0.0), entry(0.9), entry(0.895), 0.5),
        (min_metric(0.8), entry(0.8), entry(0.6), 0.25),
        (max_latency("0.5x"), entry(ratio=2.0), entry(ratio=1.0), 1.0),
        (max_latency("1ms"), entry(ms=1.0), entry(ms=1.5), 0.5),
        (max_size("0.5x"), entry(size=500), entry(size=750), 0.5),
        (max_size(100), entry(size=100), entry(size=300), 2.0),
        (max_memory("1x"), entry(), entry(memory=2 * 10**8), 1.0),
        (max_params("0.5x"), entry(params=250), entry(params=500), 1.0),
        (max_macs("9k"), entry(), entry(macs=18000), 1.0),
    ],
)
def test_how_far_a_constraint_is_broken(constraint, good, bad, excess):
    assert constraint.excess(good, BASE) == 0.0 and constraint.violation(good, BASE) is None
    assert constraint.excess(bad, BASE) == pytest.approx(excess)
    told = constraint.violation(bad, BASE)
    assert told["constraint"] == str(constraint) and told["excess"] == pytest.approx(excess)


def test_drop_where_lower_is_better():
    base, worse = entry(2.0, higher=False), entry(2.5, higher=False)
    assert max_drop(0.5).excess(worse, base) == 0 and max_drop(0.25).excess(worse, base) == pytest.approx(1.0)
    assert max_drop(0.0).excess(entry(1.5, higher=False), base) == 0


def test_constraints_are_written_as_people_do():
    texts = [
        str(c)
        for c in (
            max_drop(0.01),
            min_metric(0.8),
            max_latency("0.5x"),
            max_latency("2ms"),
            max_size("1KB"),
            max_params(7),
        )
    ]
    assert texts == [
        "drop <= 0.01",
        "metric >= 0.8",
        "latency <= 0.5x",
        "latency <= 2 ms",
        "size <= 1000 bytes",
        "params <= 7",
    ]
    assert Constraint(**max_size("0.5x").to_json()) == max_size("0.5x")


def test_judge_sums_and_marks():
    e = entry(0.88, size=2000)
    assert judge(e, BASE, [max_drop(0.01), max_size("1x"), max_latency("2x")]) == pytest.approx(2.0)
    assert not e.feasible and [v["constraint"] for v in e.violations] == ["drop <= 0.01", "size <= 1x"]
    assert judge(e, BASE, []) == 0.0 and e.feasible and e.violations == []


def test_objectives_are_ratios():
    e = entry(0.85, ms=9.0, ratio=4.0, size=250)
    assert objectives(e, BASE, ["latency", "size"]) == (0.25, 0.25)
    n = BASE.metric.n  # errors: 0.15 of 0.1, with a sample more in each
    assert objectives(e, BASE, ["error"]) == pytest.approx(((0.15 + 1 / n) / (0.10 + 1 / n),))
    assert objectives(BASE, BASE, ["latency", "size", "memory", "params", "macs", "error"]) == (1.0,) * 6
    assert objectives(BASE, BASE, []) == ()
    with pytest.raises(InputError, match="objective"):
        objectives(BASE, BASE, ["speed"])


def test_a_huge_error_is_still_a_number():
    assert math.isfinite(objectives(entry(5000.0, higher=False), entry(1.0, higher=False), ["error"])[0])


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"trials": 0},
        {"trials": -1},
        {"trials": 2.5},
        {"trials": "10"},
        {"trials": True},
        {"minutes": 0},
        {"minutes": math.inf},
        {"minutes": math.nan},
        {"minutes": "3"},
        {"trials": 5, "trial_minutes": 0},
        {"trial_minutes": 5},
        {"trials": 1, "trial_memory_gb": -1},
    ],
)
def test_bad_budgets(bad):
    with pytest.raises(InputError):
        Budget(**bad)


def test_budgets():
    assert Budget(trials=3).minutes is None and Budget(minutes=0.5, trial_memory_gb=2).trials is None


@pytest.mark.parametrize(
    ("said", "bound", "points"),
    [
        (0.01, 0.01, False),
        ("0.01", 0.01, False),
        ("1pt", 0.01, True),
        ("1%", 0.01, True),
        (" 1.5 PT ", 0.015, True),
        ("5e-1%", 0.005, True),
        (2, 2.0, False),
        ("0", 0.0, False),
    ],
)
def test_points_are_hundredths(said, bound, points):
    limit = max_drop(said)
    assert (limit.bound, limit.points) == (pytest.approx(bound), points)
    assert Constraint(**limit.to_json()) == limit
    assert ("points" in limit.to_json()) == points  # files of before have no such key


@pytest.mark.parametrize(
    ("limit", "within", "fix"),
    [
        (max_drop(5), (0, 1), "max_drop=0.05, or max_drop='5pt'"),
        (max_drop(1.5), (0, 1), "max_drop='1.5pt'"),
        (min_metric(95), (0, 1), "min_metric=0.95"),
        (min_metric(-0.5), (0, 1), "min_metric"),
        (min_metric(0.0), (0, 1), "any model has that"),
        (max_drop("1pt"), (0, math.inf), "the metric's own unit"),
        (max_drop("1%"), (-math.inf, math.inf), "the metric's own unit"),
        (max_drop(5), (0, math.inf), None),
        (max_drop(1.0), (0, 1), "max_drop=0.01, or max_drop='1pt'"),  # anything would go
        (max_drop("100%"), (0, 1), "'1pt'"),
        (max_drop(0.99), (0, 1), None),
        (max_drop("1%"), (0, 1), None),
        (min_metric(0.95), (0, 1), None),
        (max_size("5KB"), (0, 1), None),
    ],
)
def test_floors_that_make_no_sense_for_a_metric(limit, within, fix):
    got = limit.misfit(*within)
    assert got is None if fix is None else fix in got


@pytest.mark.parametrize(
    ("within", "given", "bound", "relative"),
    [
        ((0, 1), "1%", 0.01, False),
        ((0, math.inf), "1%", 0.01, True),
        ((0, math.inf), 0.3, 0.3, False),
        ((-math.inf, 1), "2pt", 0.02, False),
        ((-1, 1), "1%", 0.01, False),
    ],
)
def test_a_drop_in_percent_is_meant_for_its_metric(within, given, bound, relative):
    limit = max_drop(given).of_metric(*within)
    assert (limit.bound, limit.relative) == (bound, relative) and limit.misfit(*within) is None
    assert limit.absolute(50.0).bound == (0.5 if relative else bound) and not limit.absolute(50.0).relative
    assert limit.absolute(-50.0).bound == (0.5 if relative else bound)
