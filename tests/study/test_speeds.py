"""What a study says of speeds, from all that it has measured."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from featherweight.records import Speedup
from featherweight.study.speeds import POOL, PRIOR, PRIOR_SD, Speeds, Spread, anew, together


def speed(ratio, half=0.001):
    return Speedup(ratio, (ratio * math.exp(-half), ratio * math.exp(half)), "cpu", 20)


def measured(graph, ratio):
    return SimpleNamespace(graph=graph, sha256="", target="onnxruntime", speedup=speed(ratio))


def covered(rng, known, processes, sd):
    """Does the interval of so many processes hold the true ratio, 2?"""
    logs = math.log(2.0) + rng.normal(0, sd, processes)
    low, high = anew([speed(math.exp(x)) for x in logs], known).ci95
    return low <= 2.0 <= high


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_intervals_cover_what_processes_differ_by(processes):
    """With the spread that is assumed, and with one six times as large that was learnt."""
    rng = np.random.default_rng(0)
    assert np.mean([covered(rng, Spread(), processes, PRIOR_SD) for _ in range(4000)]) > 0.94
    held = []
    for _ in range(1000):
        known = Spread()
        for _ in range(10):
            graph = list(rng.normal(0, 6 * PRIOR_SD, 3))
            known = known.seen([], graph[0]).seen(graph[:1], graph[1]).seen(graph[:2], graph[2])
        held.append(covered(rng, known, processes, 6 * PRIOR_SD))
    assert 0.91 < np.mean(held) < 0.98


def test_the_spread_is_that_of_all_graphs():
    rng, speeds, squares, freedom = np.random.default_rng(1), Speeds(), PRIOR * PRIOR_SD**2, PRIOR
    for number in range(5):
        ratios = np.exp(rng.normal(number, 0.05, number + 1))
        for ratio in ratios:
            speeds.add(measured(f"graph {number}", ratio))
        squares += np.log(ratios).var() * len(ratios)
        freedom += number
    assert speeds.spread.squares == pytest.approx(squares) and speeds.spread.freedom == freedom


def test_a_measurement_alone_keeps_its_ratio_and_its_own_interval_if_that_is_wider():
    one = together([dataclasses.replace(speed(1.5, 0.3), wall={"ratio": 1.4})], Spread())
    assert one.ratio == 1.5 and one.wall == {"ratio": 1.4} and one.ci95 == pytest.approx(speed(1.5, 0.3).ci95)
    assert together([speed(1.5)], Spread()).ci95[0] < 1.46


def test_each_measurement_of_a_graph_counts_for_all_until_enough_is_known():
    speeds = Speeds()
    for count in range(1, POOL + 1):
        told = speeds.add(measured("g", 2.0 if count % 2 else 1.0))
        assert len(told) == count and len({s.ratio for _, s in told}) == 1
    assert told[0][1].ratio == pytest.approx(math.sqrt(2.0))
    late = measured("g", 9.0)
    assert [e for e, _ in speeds.add(late)] == [late]


def test_what_was_raced_is_the_speed_of_its_graph_from_then_on():
    speeds = Speeds()
    one, two = measured("g", 2.0), measured("g", 3.0)
    speeds.add(one)
    speeds.settle(one, speed(1.8))
    assert speeds.add(two) == [(two, speed(1.8))] and speeds.spread == Spread()
    other = measured("h", 3.0)
    assert speeds.add(other)[0][1].ratio == 3.0


def test_the_baselines_own_file_is_exactly_as_fast():
    speeds, own = Speeds(), measured("g", 1.0)
    own.speedup = Speedup(1.0, (1.0, 1.0), "cpu", 20)
    assert speeds.add(own) == [] and speeds.spread == Spread()
