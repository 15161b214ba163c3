import dataclasses
import json
import math

import numpy as np
import pytest

from featherweight.report import html
from featherweight.report.analysis import analyse, why_not
from featherweight.report.analysis_figures import analysis_figures
from featherweight.report.contour import axis_values, is_ordered, surface
from featherweight.report.figures import MAX_POINTS
from featherweight.report.labels import short, stacked
from featherweight.report.parallel import hole_axis, objective_axis, parallel
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from tests.report.fake_study import page, searched, study


def analysed(found):
    front, trials, _, settings = page(found)
    return analyse(front, trials, settings)


def drawn(found):
    return {f["id"]: f for f in analysis_figures(analysed(found), found.trials(), 0, True, "fixed net")}


@pytest.fixture(scope="module")
def large():
    return searched(300)


@pytest.fixture(scope="module")
def seen(large):
    return analysed(large)


def test_what_the_study_was_made_of_is_found(seen):
    by_name = {i.objective: i for i in seen.importances}
    assert seen.objectives == ("error", "latency") and seen.main is by_name["error"]
    assert by_name["error"].shares[0].path == "train.lr" and by_name["latency"].shares[0].path == "quantize"
    assert why_not(seen) == ""
    first = {c.feature: c for c in seen.correlations}
    assert first["naswot"].low > 0.5 and first["noise"].low < 0 < first["noise"].high


def test_data_for_programs_is_json(seen):
    found = json.loads(json.dumps(seen.to_json()))
    assert found["problem"] is None and {i["objective"] for i in found["importance"]} == {"error", "latency"}
    assert set(found["importance"][0]["shares"][0]) == {"path", "share", "low", "high"}
    assert {s["name"] for s in found["strategies"]} == {"bayesian", "genetic", "greedy", "random", "tpe"}


def test_every_figure_is_there_and_has_something_in_it(large):
    figures = drawn(large)
    assert list(figures) == ["importance", "parallel", "contour", "curves", "given", "credits", "probabilities"]
    assert all(any(v is not None for v in trace["x"]) for f in figures.values() for trace in f["data"])
    assert "train.lr" in figures["contour"]["alt"] and "prune.ratio" in figures["contour"]["alt"]
    assert (
        figures["contour"]["layout"]["xaxis"]["type"] == "log" and "type" not in figures["contour"]["layout"]["yaxis"]
    )


@pytest.mark.parametrize("n", [0, 1, 9])
def test_few_trials_say_why_nothing_is_shown(n):
    found = searched(n)
    said = why_not(analysed(found))
    assert "needs at least 10" in said and said in html.render(*page(found))
    assert not {"importance", "contour"} & set(drawn(found))


def test_a_study_of_another_version_still_renders():
    for recipe in ({"recipe": [{"prune": {"no_such_field": 1}}]}, {"recipe": []}, None):
        found = study(20)
        found.state.config = dataclasses.replace(found.state.begun, recipe=recipe)
        said = why_not(analysed(found))
        assert said.startswith("The holes were not analysed") and "\n" not in said
        assert "The holes were not analysed" in html.render(*page(found))
    old = {k: v for k, v in study(3).config.items() if k not in ("recipe", "target")}
    front, trials, info, _ = page(study(3))
    assert "<h1>digits</h1>" in html.render(front, trials, info, old)


def test_a_constant_objective_is_not_explained():
    found = searched(30)
    for row in found.state.trials:
        if row.entry is not None:
            row.entry.metric = dataclasses.replace(row.entry.metric, value=0.9)
    by_name = {i.objective: i for i in analysed(found).importances}
    assert by_name["error"].r2 is None and by_name["error"].shares == ()
    assert "it did not vary" in html.render(*page(found))


def test_metrics_that_are_no_numbers_are_left_out():
    found = searched(60)
    lost = [row for row in found.state.trials if row.entry is not None][:5]
    for row in lost:
        row.entry.metric = dataclasses.replace(row.entry.metric, value=math.nan)
    seen = analysed(found)
    by_name = {i.objective: i for i in seen.importances}
    assert by_name["latency"].n - by_name["error"].n == 5
    assert "NaN" not in json.dumps(drawn(found)) and "<h1>digits</h1>" in html.render(*page(found))


def test_a_trial_of_another_space_is_left_out():
    found = searched(30)
    before = len(analysed(found).finished)
    row = next(r for r in found.state.trials if r.entry is not None)
    row.filling = {**row.filling, "gone": 1}
    assert len(analysed(found).finished) == before - 1


def test_parallel_lines_pass_through_their_values(seen):
    figure = parallel(seen, "fixed net", share=True)
    n = sum(t["x"].count(None) for t in figure["data"])
    assert n == len(seen.finished)
    axes = len([a for a in figure["layout"]["annotations"] if a["text"].startswith("<b>")])
    for trace in figure["data"]:
        assert len(trace["x"]) == len(trace["y"]) == len(trace["text"]) and len(trace["x"]) % (axes + 1) == 0
    best = next(t for t in figure["data"] if t["name"] == "best tenth")
    assert best["x"].count(None) == math.ceil(sum(f.entry["feasible"] for f in seen.finished) / 10)


def test_parallel_is_thinned():
    found = searched(20)
    seen = analysed(found)
    many = parallel(type(seen)(**{**seen.__dict__, "finished": seen.finished * (MAX_POINTS // 5)}), "original", True)
    assert sum(t["x"].count(None) for t in many["data"]) <= MAX_POINTS


def test_axes_of_holes():
    dead = hole_axis("a", Float(0.01, 1.0, log=True), [0.01, None, 0.1, 1.0])
    assert dead.places[1] < 0 and dead.ticks[0] == (dead.places[1], "not there")
    assert [dead.places[i] for i in (0, 2, 3)] == pytest.approx([0.0, 0.5, 1.0])
    names = hole_axis("b", Choice("x", "y", "z"), ["z", "x", "y", "x"])
    assert [round(p * 2) for p in names.places] == [2, 0, 1, 0] and [t for _, t in names.ticks] == ["x", "y", "z"]
    switch = hole_axis("c", Maybe(Int(1, 2)), [True, False])
    assert switch.places[0] > 0.5 > switch.places[1]
    order = hole_axis("d", Order("p", "q"), ["q>p", "p>q"])
    assert {t for _, t in order.ticks} == {"p>q", "q>p"}
    same = hole_axis("e", Int(3, 30), [7, 7])
    assert same.places == (0.5, 0.5)
    assert objective_axis("error", [0.01, None, -0.02], "original", True).places == pytest.approx((1.0, None, 0.0))


def test_the_surface_of_a_known_function():
    space = Space((Float(0.0, 1.0), Int(1, 5), Float(0.0, 1.0)))
    rng = np.random.default_rng(0)
    fillings = [space.sample(rng) for _ in range(600)]
    y = [3 * f["[0]"] + f["[1]"] + math.sin(20 * f["[2]"]) for f in fillings]
    first, second, mean = surface(space, fillings, y, ("[0]", "[1]"), 0)
    assert mean.shape == (len(second), len(first)) == (5, 16) and second == [1, 2, 3, 4, 5]
    off = np.mean([math.sin(20 * x) for x in np.linspace(0, 1, 1000)])
    wanted = 3 * np.array(first)[None] + np.array(second)[:, None] + off
    assert np.abs(mean - wanted)[:, 1:-1].max() < 0.6
    assert np.corrcoef(mean.ravel(), wanted.ravel())[0, 1] > 0.99


def test_what_has_an_order():
    assert [
        is_ordered(d)
        for d in (
            Float(0, 1),
            Int(1, 2),
            Choice(1, 2, 4),
            Choice(1, 2),
            Choice(1, 1.0, True),
            Choice("a", 2, 3),
            Maybe(Int(1, 2)),
        )
    ] == [
        *(True, True, True),
        *(False, False, False, False),
    ]
    assert axis_values(Choice(8, 2, 4)) == [2, 4, 8] and len(axis_values(Int(1, 10_000))) <= 16


def test_learning_curves_take_json_keys():
    trials = [
        {"number": 0, "state": "complete", "reports": {"4": 0.2, "1": 0.9}},
        {"number": 1, "state": "stopped", "reports": {1: 1.0}},
    ]
    figure = analysis_figures(analysed(searched(0)), trials, 0, True, "original")[0]
    done = next(t for t in figure["data"] if t["name"] == "complete")
    assert figure["id"] == "curves" and done["x"] == [1.0, 4.0, None] and done["y"] == [0.9, 0.2, None]
    assert "1 were stopped early" in figure["alt"]


def test_user_text_in_figures_is_escaped():
    evil = "<img src=x onerror=alert(1)>"
    found = searched(40)
    for row in found.state.trials:
        row.note = {"arm": evil, "why": {"p": {evil: 1.0}, "credit": {evil: 1.0}}, "note": {}}
    figures = [*drawn(found).values(), *(f for f in json.loads(html.script_json(list(drawn(found).values()))))]
    for figure in figures:
        for trace in figure["data"]:
            assert "<img" not in trace.get("name", "") and not any("<img" in t for t in trace.get("text", []))
        assert not any("<img" in a["text"] for a in figure["layout"].get("annotations", []))
    assert "<img" not in html.render(*page(found))


def test_labels():
    assert short("abc") == "abc" and len(short("a" * 99)) == 24 and short("head" + "x" * 50 + "tail").endswith("tail")
    assert stacked("build.net.stages[0].width") == "build.net.<br>stages[0].width"
    assert stacked("<b>") == "&lt;b&gt;"
