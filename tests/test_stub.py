"""What type checkers and editors are told of `fw` is what it has."""

import ast
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

import featherweight as fw
from scripts import stub


def test_the_stub_is_up_to_date():
    assert stub.FILE.read_text() == stub.text(), "python scripts/stub.py"


def test_every_name_is_in_the_stub():
    tree = ast.parse(stub.FILE.read_text())
    told = {a.asname for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names if a.asname}
    told |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(fw.__all__) <= told
    assert all(hasattr(fw, name) for name in fw.__all__)


@pytest.mark.parametrize("name", ["optimize", "search"])
def test_a_call_shows_its_settings(name):
    call = getattr(fw, name)
    tree = ast.parse(stub.FILE.read_text())
    told = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    assert {a.arg for a in (*told.args.args, *told.args.kwonlyargs)} == set(inspect.signature(call).parameters)
    assert "measure_seconds: of timing a candidate, at most" in call.__doc__
    assert ("supernet" in inspect.signature(call).parameters) == (name == "search")


def test_a_setting_of_the_other_call_is_refused(tmp_path):
    with pytest.raises(fw.FeatherweightError, match="optimize has no such setting") as e:
        fw.optimize("gone.py", out=tmp_path, budget=fw.Budget(trials=1), proxy="naswot")
    assert "it belongs to `search`" in str(e.value)
    with pytest.raises(fw.FeatherweightError, match="allowed: strategy"):
        fw.optimize("gone.py", out=tmp_path, budget=fw.Budget(trials=1), stratgy="tpe")
    with pytest.raises(fw.FeatherweightError, match="allowed: max_latency"):
        fw.optimize("gone.py", out=tmp_path, max_latancy="0.5x")


WRONG = [
    ({"seed": "zero"}, "seed cannot be this"),
    ({"seed": True}, "allowed: int"),
    ({"workers": 0}, "at least 1"),
    ({"measure_seconds": 0.0}, "positive"),
    ({"reuse": "no"}, "allowed: bool"),
    ({"minimize": 3}, "minimize is a list"),
    ({"minimize": "latencyy"}, "no such objective"),
    ({"max_latency": "fast"}, "max_latency is not a limit"),
    ({"max_drop": "1pt", "constraints": fw.max_drop(0.01)}, "a limit is given twice"),
    ({"budget": "3 minutes"}, "allowed: minutes=10"),
    ({"minutes": -1}, "minutes must be positive"),
    ({"minutes": "5m"}, "minutes is a number"),
    ({"minutes": 3, "budget": fw.Budget(minutes=5)}, "given twice"),
    ({"max_latency": 0.5}, "max_latency\\('0.5x'\\)"),
    ({"recipe": np.zeros((3, 2))}, "are one argument"),
    ({"metric": "f1"}, "belong to a model and data"),
    ({"constraints": ["max_drop=0.01"]}, "constraints is a list"),
    ({"guesses": [{"train.lr": 0.1}]}, "fw.Guess"),
    ({"recipe": fw.Prune}, r"fix: Prune\(..\)"),
    ({"recipe": "prune"}, "takes a recipe"),
    ({"recipe": [fw.Prune(), "quantize"]}, "takes a recipe"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=["-".join(given) for given, _ in WRONG])
def test_a_value_that_a_setting_cannot_have_is_refused_before_anything_runs(tmp_path, given, said):
    with pytest.raises(fw.FeatherweightError, match=said):
        fw.optimize("gone.py", out=tmp_path / "x", **{"trials": 1, **given})
    assert not (tmp_path / "x").exists()


USE = """import featherweight as fw
fw.Prune(ratio=0.5)
fw.Prune(rato=0.5)
fw.optimize("t.py", out="x", budget=fw.Budget(trials=1), sed=1)
fw.Prone(ratio=0.5)
fw.optimize("t.py", max_drop="1%", minutes=3, recipe=fw.Prune())
fw.optimize("t.py", minutes="3")
"""
WRONG_LINES = (3, 4, 5, 7)


@pytest.mark.slow  # a type checker reads all of the package
@pytest.mark.parametrize(
    "checker", [["mypy", "--strict"], ["basedpyright", "--level", "error"]], ids=["mypy", "pyright"]
)
def test_a_type_checker_sees_names_fields_and_settings(tmp_path, checker):
    pytest.importorskip(checker[0])
    file = tmp_path / "use.py"
    file.write_text(USE)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{stub.FILE.parents[1]}"]}}')
    run = subprocess.run(
        [sys.executable, "-m", *checker, str(file)], capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    found = {int(n) for n in re.findall(r"use\.py:(\d+)", run.stdout)}
    assert found == set(WRONG_LINES), run.stdout + run.stderr
