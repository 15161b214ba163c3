import copy

import pytest

from featherweight.report import html
from featherweight.report.steps import beginnings, layer_changes, waterfalls
from tests.report.fake_study import page, study

MANIFEST = {
    "notes": [
        {"step": "prune", "widths": {"0": [16, 12], "3": [16, 16]}, "whole": {"8": "its width is the output's"}},
        {"step": "prune", "widths": {"0": [12, 8]}, "whole": {}},
        {"step": "drop_blocks", "dropped": [["blocks", 2]]},
        {"step": "factorize", "layers": {"9": {"ranks": [4]}}, "whole": {"10": "too small"}},
        {"step": "mixed_precision", "widths": {"8": 3}},
    ],
    "export": {"coverage": {"layers": {"0": "int8, runs in integers", "8": "float"}}},
}


def test_each_layer_once_from_the_first_width_to_the_last():
    lines = {c["layer"]: c for c in layer_changes(MANIFEST)}
    assert list(lines) == ["0", "3", "8", "blocks, block 2", "10", "9"]
    assert (lines["0"]["before"], lines["0"]["after"], lines["0"]["held"]) == (16, 8, "int8, runs in integers")
    assert lines["8"] == {
        "layer": "8",
        "before": None,
        "after": None,
        "held": "float",
        "whole": "its width is the output's",
    }
    assert lines["blocks, block 2"]["held"] == "removed" and "rank 4" in lines["9"]["held"]
    assert layer_changes({}) == [] and layer_changes({"notes": [{"step": "train"}], "export": {}}) == []


def with_beginning(steps):
    """A study in which the best candidate's first `steps` steps were measured as a trial."""
    found = study(40)
    front, trials = copy.deepcopy(found.front_json()), copy.deepcopy(found.trials())
    best = front["best"]
    whole = [{"prune": {"ratio": 0.5}}, {"distill": {"epochs": 2}}, {"quantize": {}}]
    best["recipe"] = {"recipe": whole}
    best["size_bytes"], front["baseline"]["size_bytes"] = 100, 1000
    if steps:
        entry = {**copy.deepcopy(best), "trial": 7, "recipe": {"recipe": whole[:steps]}, "size_bytes": 400}
        trials[7] = {**trials[7], "entry": entry}
    return front, trials


def test_steps_between_measured_beginnings_stand_together():
    front, trials = with_beginning(2)
    assert [step for step, _ in beginnings(front, trials)] == ["", "prune + distill", "quantize"]
    size = next(f for f in waterfalls(front, trials) if f["id"] == "steps-size")["data"][0]
    assert size["y"] == pytest.approx([1.0, -0.6, -0.3, 0.1]) and size["measure"][-1] == "total"
    assert size["text"] == ["", "-0.60x", "-0.30x", ""]


def test_nothing_is_drawn_where_no_beginning_was_measured():
    front, trials = with_beginning(0)
    assert waterfalls(front, trials) == []
    front, trials = with_beginning(2)
    trials[7]["entry"]["target"] = "torch"
    assert waterfalls(front, trials) == []
    assert waterfalls({**front, "best": None}, trials) == []


def test_both_are_on_the_page():
    front, trials = with_beginning(1)
    _, _, info, settings = page(study(40))
    text = html.render(front, trials, info, {**settings, "manifest": MANIFEST})
    assert "layer by layer" in text and "What each step cost" in text and 'id="plot-steps-latency"' in text
    plain = html.render(*page(study(40)))
    assert "layer by layer" not in plain and "plot-steps-" not in plain
