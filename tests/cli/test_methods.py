import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from featherweight import cli, registry
from featherweight.errors import InputError
from featherweight.report.methods import GROUPS

ROOT = Path(__file__).parent.parent.parent


def run(*words):
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, ["methods", *words])


def test_all_methods_are_listed_by_group():
    result = run()
    assert result.exit_code == 0
    for group in GROUPS:
        assert f"{group}:" in result.stdout
        assert all(f"  {name} " in result.stdout for name in registry.names(group))


def test_a_group_alone():
    result = run("strategies")
    assert "adaptive" in result.stdout and "mixed_precision" not in result.stdout


def test_a_method_has_its_fields_ranges_defaults_and_source():
    result = run("prune")
    assert "https://arxiv.org/abs/2301.12900" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("ratio "))
    assert (
        "0.5" in row and "a number from 0 to 1" in row and "a number from 0 to 0.8" in row and "share to remove" in row
    )


def test_json():
    found = json.loads(run("drop-blocks", "--json").stdout)
    assert [m["name"] for m in found] == ["drop_blocks"] and found[0]["group"] == "transforms"
    every = json.loads(run("--json").stdout)
    assert set(every) == set(GROUPS)
    for methods in every.values():
        for m in methods:
            assert m["summary"] and all(f["default"] for f in m["fields"])


@pytest.mark.parametrize("word", ["prun", "models"])
def test_a_method_that_does_not_exist(word):
    result = run(word)
    assert result.exit_code == 2 and "prune" in result.stderr


def test_generated_pages_are_up_to_date():
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "pages.py"), "--check"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_a_method_that_cannot_be_loaded_does_not_hide_the_others(monkeypatch):
    find = registry.find

    def broken(group, kind):
        if kind == "grid":
            raise InputError("the plug-in's method 'grid' cannot be imported", got="gone")
        return find(group, kind)

    monkeypatch.setattr(registry, "find", broken)
    result = run("strategies")
    assert result.exit_code == 0 and "cannot be loaded: the plug-in's method 'grid'" in result.stdout
    assert "tpe" in result.stdout
