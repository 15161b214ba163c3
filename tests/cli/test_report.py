import dataclasses
import json

import pytest
from typer.testing import CliRunner

from featherweight import cli
from tests.report.fake_study import searched, study


def run(found, monkeypatch, *words):
    monkeypatch.setattr("featherweight.study.study.Study.open", lambda out: found)
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["report", *map(str, words)])


def test_it_prints_what_mattered_and_who_found_it(tmp_path, monkeypatch):
    result = run(searched(80), monkeypatch, tmp_path)
    assert result.exit_code == 0 and (tmp_path / "report.html").exists()
    assert "What mattered" in result.stdout and "train.lr" in result.stdout
    assert "Strategies of the portfolio" in result.stdout and "bayesian" in result.stdout


def test_json_holds_the_analysis(tmp_path, monkeypatch):
    result = run(searched(80), monkeypatch, tmp_path, "--json")
    found = json.loads(result.stdout)
    assert found["report"] == str(tmp_path / "report.html")
    assert found["analysis"]["importance"][0]["shares"][0]["path"] == "train.lr"
    assert sum(s["trials"] for s in found["analysis"]["strategies"]) == 80
    assert found["analysis"]["features"][0]["feature"] == "naswot"


@pytest.mark.parametrize(
    ("made", "said"), [(lambda: study(3), "needs at least 10"), (lambda: searched(0), "0 trials were measured")]
)
def test_few_trials(tmp_path, monkeypatch, made, said):
    result = run(made(), monkeypatch, tmp_path)
    assert result.exit_code == 0 and said in result.stdout and "What mattered" not in result.stdout


def test_an_objective_that_is_not_explained_says_so(tmp_path, monkeypatch):
    found = searched(60)
    for row in found.state.trials:
        if row.entry is not None:
            row.entry.metric = dataclasses.replace(row.entry.metric, value=0.9)
    assert "it did not vary" in run(found, monkeypatch, tmp_path).stdout
