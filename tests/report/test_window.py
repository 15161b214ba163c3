import copy

import pytest

from featherweight.report.figures import front_figure, trade_off
from featherweight.report.window import _place, window
from tests.report.fake_study import study


@pytest.mark.parametrize(
    ("core", "rest", "zero", "ends"),
    [
        ([0.2, 1.0], [0.5], True, None),
        ([0.2, 1.0], [1.9], True, None),  # twice the span: all is shown
        ([0.2, 1.0], [9.0, 0.5], True, None),  # of two nothing is an extreme
        ([0.2, 1.0], [0.5] * 40 + [9.0], True, (0.0, 1.15)),
        ([0.9, 1.0], [0.95] * 40 + [0.1], False, (0.885, 1.015)),
        ([0.5], [0.5] * 40 + [4.0], False, (0.425, 0.575)),
        ([], [], False, None),
    ],
)
def test_the_window_holds_what_is_compared(core, rest, zero, ends):
    assert window(core, rest, zero) == (None if ends is None else pytest.approx(ends))


def test_what_need_not_be_seen_decides_only_whether_all_fits():
    assert window([0.2, 1.0], [0.5], True, [1.5]) is None
    assert window([0.2, 1.0], [0.5], True, [4.0, 4.2]) == pytest.approx((0.0, 1.15))


def front_and_trials(speed):
    """A study whose first other baseline is `speed` times as fast as the original."""
    found = study(40)
    front = copy.deepcopy(found.front_json())
    slow = next(e for e in front["baselines"] if e["label"] == "original on openvino")
    slow["speedup"] |= {"ratio": speed, "ci95": [0.9 * speed, 1.1 * speed]}
    return front, found.trials()


def far(figure):
    return [t for t in figure["data"] if t["name"] == "beyond the axis"]


def test_a_slow_baseline_stands_named_at_the_border_and_the_candidates_keep_the_plot():
    front, trials = front_and_trials(0.02)
    figure = front_figure(front, trials)
    low, high = figure["layout"]["xaxis"]["range"]
    assert low == 0 and 1.0 < high < 1.5
    marks = [(x, text) for t in far(figure) for x, text in zip(t["x"], t["text"], strict=True) if "openvino" in text]
    assert marks == [(high, "original on openvino: 50x")]
    inside = [x for t in figure["data"] for x in t["x"] if x is not None]
    assert all(low <= x <= high for x in inside) and len(inside) == len(
        [e for e in trials if e["entry"]] + front["baselines"]
    )
    other = trade_off(front, trials, "latency", "error")
    assert other["layout"]["xaxis"]["range"][1] < 1.5


def test_an_axis_that_holds_all_is_left_as_it_is():
    front, trials = front_and_trials(0.9)
    figure = front_figure(front, trials)
    assert "range" not in figure["layout"]["xaxis"]
    assert all("error_x" in t for t in figure["data"] if t["name"] in ("front", "baselines"))


def test_names_of_points_in_one_place_at_the_border_stand_beside_each_other():
    front, trials = front_and_trials(0.02)
    slow = next(e for e in front["baselines"] if e["label"] == "original on openvino")
    other = copy.deepcopy(slow) | {"label": "original on torch"}
    other["speedup"] |= {"ratio": 0.01, "ci95": [0.009, 0.011]}
    front["baselines"].append(other)
    texts = [text for t in far(front_figure(front, trials)) for text in t["text"] if text]
    assert "original on openvino: 50x, original on torch: 100x" in texts and "original on torch: 100x" not in texts


@pytest.mark.parametrize(
    ("near", "place"), [([], "middle left"), ([(0.95, 0.5)], "top left"), ([(0.95, 0.9)], "middle left")]
)
def test_a_name_at_the_border_covers_no_mark_that_matters(near, place):
    beyond = {"x": [1.0], "y": [0.5], "text": ["openvino: 50x"], "marker": {"symbol": ["triangle-right"]}}
    beyond["textposition"] = ["middle left"]
    _place(beyond, [(0.0, 0.0), (0.5, 1.0), *near])
    assert beyond["textposition"] == [place]
