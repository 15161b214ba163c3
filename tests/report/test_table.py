import io

import pytest
from rich.console import Console

from featherweight.report.rows import listing
from featherweight.report.table import cells, front_table
from tests.report.fake_study import infeasible, study


def drawn(front, width=160, **options):
    console = Console(file=io.StringIO(), width=width)
    console.print(front_table(front, width=width, **options))
    return console.file.getvalue()


def test_original_first_best_starred_and_certificates_shown():
    text = drawn(study().front_json())
    rows = [
        line for line in text.splitlines() if line.strip().startswith(("original ", "baseline ", "front ", "* best"))
    ]
    assert rows[0].split()[:2] == ["original", "baseline"]
    assert sum("* best" in r for r in rows) == 1
    assert next(r for r in rows if "* best" in r).rstrip().endswith("certified")


def test_nearest_is_shown_when_nothing_is_feasible():
    assert "nearest" in drawn(infeasible().front_json())


def test_markup_in_labels_is_text():
    front = study().front_json()
    front["baseline"]["label"] = "[bold red]x[/] [/nonsense]"
    assert "[bold" in drawn(front, width=300)


@pytest.mark.parametrize("width", range(80, 210, 5))
def test_no_column_falls_off_the_terminal(width):
    front = study(12).front_json()
    front["best"]["certificate"] |= {"verdict": "not certifiable"}
    text = drawn(front, width)
    assert "certificate" in text and "certifiable" in text
    assert max(map(len, text.splitlines())) <= width


def test_limit_says_how_many_are_left_out():
    assert "and 5 more" in drawn({**study().front_json()}, limit=len(_all()) - 5)


def _all():
    return listing(study().front_json())


def test_without_a_certificate_the_chance_of_one_is_shown():
    front = study().front_json()
    entry = {**front["best"], "certificate": None, "chance": 0.83}
    assert cells(entry, front["baseline"])[-1] == "chance 83 %"
    assert cells({**entry, "chance": None}, front["baseline"])[-1] == "-"
    assert cells(front["best"], front["baseline"])[-1] == "certified"
