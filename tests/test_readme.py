"""What the README shows works as it is written (with a smaller budget,
and a shorter time for each measurement)."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import GENEROUS_S

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LEAN = "from tests import lean; lean.start(lean.without_torch)\n"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands():
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("featherweight ")]


def python(code, store):
    """Run a README's Python code in a process of its own."""
    env = {**os.environ, "FEATHERWEIGHT_CACHE": str(store)}
    done = subprocess.run(
        [sys.executable, "-c", LEAN + code], cwd=ROOT, capture_output=True, text=True, env=env, timeout=GENEROUS_S
    )
    assert done.returncode == 0, done.stderr


def featherweight(*args):
    code = "import os, sys; os.cpu_count = lambda: 1; from featherweight.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=GENEROUS_S
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of the study that the README's Python code makes, with two trials."""
    out = tmp_path_factory.mktemp("readme")
    code = next(b for b in blocks("python") if "fw.optimize(" in b and "runs/digits" in b)
    code = (
        code.replace("trials=60, minutes=10)", "trials=2), measure_seconds=0.1")
        .replace('"runs/digits"', repr(str(out / "run")))
        .replace('"out/"', repr(str(out / "exported")))
    )
    assert str(out / "run") in code and "trials=2" in code
    # Two trials of a random recipe need not meet the limits: the export is tried only if they did.
    code = code.replace("study.best.export", "study.best and study.best.export")
    python(code, out / "store")
    return out / "run"


def test_the_python_code_runs(run):
    assert (run / "front.json").exists() and (run / "report.html").exists()


OWN = """
import numpy as np
import torch

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
x = torch.randn(600, 8)
train_set, test_set = (torch.utils.data.TensorDataset(v, (v[:, 0] > 0).long()) for v in (x[:300], x[300:]))
step = torch.optim.Adam(net.parameters(), 0.02)
for _ in range(60):
    step.zero_grad()
    torch.nn.functional.cross_entropy(net(train_set.tensors[0]), train_set.tensors[1]).backward()
    step.step()
"""


def test_a_model_and_data_make_a_study(tmp_path):
    code = next(b for b in blocks("python") if "fw.optimize(net" in b)
    code = (
        code.replace("minutes=10", "trials=1, measure_seconds=0.1, polish=0.0")
        .replace('"runs/net"', repr(str(tmp_path / "run")))
        .replace('"deployed/"', repr(str(tmp_path / "deployed")))
    )
    assert str(tmp_path / "run") in code and "trials=1" in code
    python(OWN + code, tmp_path / "store")
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "best" / "predict.py").exists()


def test_the_search_in_python_runs(tmp_path):
    code = next(b for b in blocks("python") if "fw.search(" in b)
    out = tmp_path / "search"
    code = (
        code.replace("trials=30, minutes=5, stall=15)", "trials=1), measure_seconds=0.1")
        .replace("fw.Choice(5, 15)", "fw.Choice(1, 2)")
        .replace('"runs/search"', repr(str(out)))
    )
    assert str(out) in code and "trials=1" in code and "fw.Choice(1, 2)" in code
    python(code, tmp_path / "store")
    front = json.loads((out / "front.json").read_text())
    assert front["reference"] == "fixed net" and (out / "report.html").exists()


def test_less_to_read(tmp_path):
    code = next(b for b in blocks("python") if "fw.Resize(" in b)
    code = code.replace("trials=20, minutes=3", "trials=1, measure_seconds=0.1, polish=0.0").replace(
        '"runs/smaller"', repr(str(tmp_path / "run"))
    )
    assert str(tmp_path / "run") in code and "trials=1" in code
    python(code + "assert text.steps[-1].item.kind == 'quantize'\n", tmp_path / "store")
    assert "resize.scale" in (tmp_path / "run" / "front.json").read_text()


def test_the_demo_of_the_makefile_is_the_command_of_the_readme():
    made = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    shown = next(c for c in commands() if "examples/digits.py" in c)
    demo = shlex.split(re.search(r"featherweight (optimize .*)", made)[0])
    assert demo[:3] == shown[:3] and set(demo) ^ set(shown) <= {"3", "2.8"}


@pytest.mark.parametrize("command", commands(), ids=lambda c: " ".join(c[:3]))
def test_every_command_is_understood(command, run, tmp_path):
    args = [str(run) if a == "runs/digits" else str(tmp_path / "new") if a == "deployed/" else a for a in command[1:]]
    if "--task" in args or "--data" in args:
        # its files do not exist: the message has to be about them, not about the options
        done = featherweight(*args, "--dry-run")
        assert done.returncode == 2 and "no such" in done.stderr + done.stdout
    elif args[0] in ("optimize", "search"):
        assert featherweight(*args, "--dry-run").returncode == 0
    elif args[0] != "export" or (run / "best").exists():
        done = featherweight(*args)
        # 3: two random trials need not meet the limits
        assert done.returncode in (0, 3), done.stderr
