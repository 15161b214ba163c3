import copy

from featherweight.report import html
from featherweight.report.differing import differing, latency_figure
from tests.report.fake_study import page, study

FOUND = {
    "classes": [{"class": "shirt", "n": 40, "baseline": 38, "candidate": 33}],
    "mistakes": [{"class": "shirt", "as": "coat <b>", "baseline": 1, "candidate": 4}],
    "samples": [{"row": 17, "class": "shirt", "baseline": "shirt", "candidate": "coat <b>"}],
    "lost": 5,
    "won": 2,
}


def told(found, quantiles=True):
    front = copy.deepcopy(study(12).front_json())
    front["best"]["certificate"] = {**(front["best"].get("certificate") or {}), "differences": found}
    for e in [front["baseline"], front["best"], *front["front"], *front["baselines"]] if quantiles else []:
        ms = e["latency_ms"]["median"]
        e["latency_ms"]["quantiles"] = [0.8 * ms, 0.9 * ms, ms, 1.1 * ms, 1.4 * ms, 2.0 * ms]
    return front


def test_classes_mistakes_and_samples_are_tables():
    said, tables = differing(told(FOUND))
    assert "alone gets 5 samples right, and the best alone 2" in said
    assert [[c["text"] for c in t["rows"][0]["cells"]] for t in tables] == [
        ["shirt", "40", "38", "33", "-5"],
        ["shirt", "coat <b>", "1", "4", "+3"],
        ["17", "shirt", "shirt", "coat <b>"],
    ]


def test_values_of_samples_are_one_table():
    said, tables = differing(told({"samples": [{"row": 3, "baseline": 0.12, "candidate": 1.5}]}))
    assert "to the worse" in said and [c["text"] for c in tables[0]["rows"][0]["cells"]] == ["3", "0.12", "1.5"]


def test_nothing_is_told_where_nothing_was_looked_at():
    assert differing(told(None)) == ("", []) and differing({}) == ("", [])
    assert latency_figure(told(None, quantiles=False)) is None


def test_times_are_boxes_with_one_line_for_each_entry():
    figure = latency_figure(told(None))
    box = figure["data"][0]
    assert len(box["y"]) == len(set(box["y"])) == len(box["median"]) and any(n.startswith("best: ") for n in box["y"])
    assert all(a <= b <= c <= d <= e for a, b, c, d, e in zip(*(box[k] for k in ORDER), strict=True))


ORDER = ("lowerfence", "q1", "median", "q3", "upperfence")


def test_the_page_shows_them_escaped():
    _, trials, info, settings = page(study(12))
    text = html.render(told(FOUND), trials, info, settings)
    assert "Where it differs from the" in text and "coat &lt;b&gt;" in text and 'id="plot-latencies"' in text
    assert "Where it differs from the" not in html.render(*page(study(12)))
