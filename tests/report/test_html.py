import json
import re
from html.parser import HTMLParser

import pytest

from featherweight.limits import max_drop, max_latency, min_metric
from featherweight.report import html
from featherweight.report.figures import MAX_POINTS, figures
from featherweight.report.grids import MAX_ROWS, look_grid, trial_grid
from featherweight.report.provable import proof
from featherweight.report.words import notes
from tests.report.fake_study import config, events, infeasible, made, page, searched, study

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'\""


class Outline(HTMLParser):
    """Elements, ids, links and the text of a page, as a reader of the source sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.addresses, self.alts, self.rows = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [v for k, v in attributes if k in ("src", "href", "action", "data")]
        self.alts += [values["aria-label"]] if values.get("role") == "img" else []


@pytest.fixture(scope="module")
def text():
    return html.render(*page(study()))


def without_plotly(text):
    return re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.S)


def test_one_file_that_loads_nothing(text):
    outline = Outline(text)
    assert all(a.startswith("#") for a in outline.addresses)
    assert "default-src 'none'" in text and "form-action 'none'" in text
    assert not {"link", "iframe", "object", "img"} & set(outline.tags)
    assert "url(" not in html._asset("page.css") and "@import" not in html._asset("page.css")


def test_plots_offer_no_upload(text):
    assert 'modeBarButtons: [["toImage"' in text and 'plotlyServerURL: ""' in text


def test_accessible(text):
    outline = Outline(text)
    assert '<html lang="en"' in text
    assert outline.tags.count("h1") == 1
    assert len(outline.ids) == len(set(outline.ids))
    assert {a[1:] for a in outline.addresses} <= set(outline.ids)
    assert len(outline.alts) == len(json.loads(data(text))) and all(len(a) > 40 for a in outline.alts)
    assert text.count("<table") == text.count("<caption>")


def data(text):
    return re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.S)[1]


def test_contrast_of_text_and_marks():
    """WCAG 2.2, 1.4.3 and 1.4.11: text 4.5 to 1, graphics 3 to 1,
    in the light and the dark palette."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    palettes = re.findall(r":root \{[^}]*--bg[^}]*\}", html._asset("page.css"))[:2]
    assert len(palettes) == 2
    for palette in palettes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", palette))
        for name, least in {
            "fg": 4.5,
            "soft": 4.5,
            "link": 4.5,
            "limit": 4.5,
            "good": 3,
            "bad": 3,
            "front": 3,
            "base": 3,
            **{f"line{i}": 3 for i in range(8)},
        }.items():
            low, high = sorted((luminance(colours[name]), luminance(colours["bg"])))
            assert (high + 0.05) / (low + 0.05) >= least, name


def test_every_trial_and_every_reason_is_in_the_tables(text):
    found = study()
    for t in found.trials():
        assert f'data-v="{t["number"]}">{t["number"]}<' in text
        if t["state"] == "failed":
            assert t["reason"] in text
    assert "Example CPU @ 2.0 GHz" in text
    assert "featherweight optimize runs/digits/run.yaml --out runs/digits-again" in text


def test_user_text_cannot_leave_its_place():
    settings = config(EVIL)
    settings["task"]["file"] = EVIL
    log = events(6, settings=settings)
    for e in log:
        if "entry" in e and e["kind"] != "baseline":
            e["entry"]["label"] = EVIL + str(e["trial"])
        if e["kind"] == "proposed":
            e["recipe"] = {"recipe": [{EVIL: {EVIL: EVIL}}]}
            e["filling"] = {EVIL: EVIL}
        if e["kind"] == "info":
            e["info"] = {**e["info"], "splits": {EVIL: EVIL}, "machine": {EVIL: [EVIL]}}
    log += [
        {
            "kind": "proposed",
            "trial": 6,
            "filling": {EVIL: 1},
            "note": {},
            "recipe": {"recipe": [{EVIL: {}}]},
            "target": EVIL,
            "time": 9e3,
        }
    ]
    log += [{"kind": "failed", "trial": 6, "reason": EVIL, "time": 9e3}]
    text = html.render(*page(made(log), EVIL))
    outline = Outline(text)
    plain = Outline(html.render(*page(study(6))))
    assert outline.tags.count("script") == plain.tags.count("script")
    assert "img" not in outline.tags and "alert(1)</script>" not in text
    for figure in json.loads(data(text)):
        for trace in figure["data"]:
            assert not any("<img" in t or "<script" in t for t in trace.get("text", []))


def test_nothing_feasible_still_gives_a_report():
    text = html.render(*page(infeasible()))
    assert "The nearest is" in text and "No trial met every limit" in text


def test_no_trials_and_one_trial():
    for n in (0, 1):
        assert "<h1>digits</h1>" in html.render(*page(study(n)))


def test_finalists_are_in_the_table_and_the_history():
    front, trials, _, settings = page(study(5))
    better = {**front["best"], "sha256": "trained on", "size_bytes": front["best"]["size_bytes"] // 2}
    front["finalists"] = [{"trial": 2, "rung": 1, "epochs": 6, "entry": better}]
    last = trial_grid(front, trials)["rows"][-1]["cells"]
    assert [c["text"] for c in last[:2]] == ["2", "finalist, 6 epochs more"]
    before, after = (
        {f["id"]: f for f in figures({**front, "finalists": told}, trials, settings)}
        for told in ([], front["finalists"])
    )
    star = next(t for t in after["best"]["data"] if t["name"] == "finalists")
    assert star["x"] == [2] and all(t["name"] != "finalists" for t in before["best"]["data"])
    with_it, without = (f["volume"]["data"][0]["y"] for f in (after, before))
    assert len(with_it) == len(without) + 1 and with_it[-1] > without[-1]


def test_finalists_alone_have_a_history():
    front, trials, _, settings = page(infeasible())
    assert not [f for f in figures(front, trials, settings) if f["section"] == "history"]
    entry = {**next(t["entry"] for t in trials if t["entry"]), "feasible": True, "violations": []}
    front["finalists"] = [{"trial": 1, "rung": 1, "epochs": 6, "entry": entry}]
    drawn = {f["id"]: f for f in figures(front, trials, settings) if f["section"] == "history"}
    assert drawn["best"]["data"][0]["x"] == [1]


def test_many_trials_are_capped_with_a_note():
    found = study(MAX_ROWS + 400)
    front, trials, _, settings = page(found)
    grid = trial_grid(front, trials)
    assert len(grid["rows"]) == MAX_ROWS
    assert sum(r["best"] for r in grid["rows"]) == 1
    assert f"The {MAX_ROWS} best of {MAX_ROWS + 400} trials" in html.render(*page(found))
    many = [t for t in trials if t["entry"]] * 4
    drawn = figures(front, many, settings)[0]["data"]
    assert sum(len(t["x"]) for t in drawn) <= MAX_POINTS + 100


def test_numbers_that_are_none_of_json_are_left_out():
    assert json.loads(html.script_json({"a": [float("nan"), float("inf"), 1.0]})) == {"a": [None, None, 1.0]}


def test_constraint_lines_are_drawn_where_the_limits_are():
    limits = [max_drop(0.01), max_latency("0.7x"), max_latency("0.21ms"), min_metric(0.95)]
    front, trials, _, settings = page(study(5, settings=config(limits=limits)))
    shapes = figures(front, trials, settings)[0]["layout"]["shapes"]
    assert shapes[0]["y0"] == pytest.approx(0.9889 - 0.01)
    assert [s["x0"] for s in shapes[1:3]] == pytest.approx([0.7, 0.5])
    assert shapes[3]["y0"] == 0.95


def test_error_bars_and_hypervolume():
    front, trials, _, settings = page(study())
    drawn = {f["id"]: f for f in figures(front, trials, settings)}
    assert {"front", "pair-latency-size", "pair-size-error", "best", "volume"} == set(drawn)
    original = drawn["front"]["data"][3]
    assert (original["x"][0], original["y"][0]) == (1.0, pytest.approx(0.9889))
    assert original["error_y"]["arrayminus"][0] == pytest.approx(0.9889 - front["baseline"]["metric"]["ci95"][0])
    volume = drawn["volume"]["data"][0]["y"]
    assert volume == sorted(volume) and 0 < volume[-1] < 1
    assert volume[0] >= drawn["volume"]["data"][1]["y"][0]
    best = drawn["best"]["data"][0]["y"]
    assert best == sorted(best, reverse=True)


def test_write_is_atomic_and_fills_in_the_folder(tmp_path):
    found = study(3)
    path = html.write(tmp_path / "new" / "report.html", found.front_json(), found.trials(), found.info(), found.config)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert f"{tmp_path / 'new'}/run.yaml" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_search_speaks_of_the_fixed_net():
    found = searched(30)
    for entry in found.state.baselines.values():
        entry.label = entry.label.replace("original", "fixed net")
    page_text = without_plotly(html.render(*page(found, "runs/s")))
    assert "fixed net" in page_text and "original" not in page_text
    assert "Limits asked for: none." in page_text
    assert (
        "featherweight search runs/s/run.yaml --out runs/s-again" in page_text
        and "featherweight optimize" not in page_text
    )
    with_model = searched(30, baseline=None)
    assert "the original" in html.render(*page(with_model)) and "fixed net" not in without_plotly(
        html.render(*page(with_model))
    )


def test_a_search_is_drawn_against_parameters_and_latency():
    front, trials, _, settings = page(searched(60))
    drawn = {f["id"]: f for f in figures(front, trials, settings)}
    assert set(drawn) == {"front", "pair-params-error", "best-error", "best", "volume"}
    assert all(x is not None for t in drawn["pair-params-error"]["data"] for x in t["x"])
    drop = drawn["best-error"]["data"][0]["y"]
    assert drop == sorted(drop, reverse=True)
    names = {t["name"] for t in drawn["best-error"]["data"][1:]}
    assert names == {"bayesian", "genetic", "greedy", "random", "tpe"}
    volume = drawn["volume"]["data"][0]["y"]
    assert volume == sorted(volume) and 0 < volume[-1] <= 1 and volume[0] >= drawn["volume"]["data"][1]["y"][0]


def test_the_analysis_is_on_the_page():
    page_text = html.render(*page(searched(60)))
    outline = Outline(page_text)
    assert {"analysis", "credit", "plot-importance", "plot-parallel", "plot-contour", "plot-curves"} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids)) and {a[1:] for a in outline.addresses} <= set(outline.ids)
    assert "naswot (the proxy)" in page_text
    assert 'id="credit"' not in html.render(*page(study(20)))


def test_line_colours_of_every_strategy_are_in_both_palettes():
    palettes = re.findall(r":root \{[^}]*--bg[^}]*\}", html._asset("page.css"))[:2]
    for palette in palettes:
        assert {f"line{i}" for i in range(8)} | {"low", "high"} <= set(re.findall(r"--(\w+):", palette))


def test_what_the_test_split_can_prove_stands_by_the_certificates_and_before_the_limits(text):
    front = study().front_json()
    said = proof(front["proof"], "accuracy")
    assert notes(front)[0] == said and notes({**front, "proof": None})[0].startswith("Limits asked for")
    assert text.count(said) == 2 and text.index(said) < text.index("Limits asked for")


def test_trials_begin_with_their_filling_and_the_rest_is_shown_when_asked_for():
    front, trials, _, _ = page(study())
    grid = trial_grid(front, trials)
    first = [h["text"] for h in grid["head"] if not h["more"]]
    assert first[:3] == ["trial", "state", "filling"] and len(first) == 8 and grid["filtered"]
    assert grid["rows"][0]["cells"][2]["text"].startswith("prune.ratio=")
    assert {"candidate", "target", "memory"} <= {h["text"] for h in grid["head"] if h["more"]}


def test_every_look_at_the_test_split_is_listed_with_what_came_of_it():
    front, trials, info, settings = page(study(5))
    look = {"label": "prune(ratio=0.5)", "trial": 3, "target": "onnxruntime", "speedup": 2.0, "size_bytes": 10_000}
    front["looks"] = [
        {**look, "verdict": "refuted", "chance": 0.6, "level": 0.045, "drop": 0.03, "n": 700},
        {**look, "trial": 4, "verdict": "certified", "chance": 0.55, "level": 0.0045, "drop": 0.001, "n": 700},
    ]
    text = html.render(front, trials, info, settings)
    assert "Looked at on the test split" in text
    cells = [[c["text"] for c in row["cells"]] for row in look_grid(front)["rows"]]
    assert cells[0][:4] == ["1", "prune(ratio=0.5) (trial 3)", "refuted", "60 %"] and cells[1][2] == "certified"


def test_finalists_that_could_not_be_trained_on_are_among_the_failures():
    front, trials, info, settings = page(study(1))
    assert "No trial failed." in html.render(front, [], info, settings)
    front["unfinished_finalists"] = [{"trial": 0, "rung": 1, "reason": "time limit: it was still running after 26 s"}]
    text = html.render(front, trials, info, settings)
    assert "trained longer: time limit: it was still running after 26 s" in text and "No trial failed." not in text
