"""Values and names that are none: each is refused with an error that says what it was."""

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import featherweight as fw
from featherweight.cli import app
from featherweight.errors import FeatherweightError, InputError, StoreError, TaskError, Whole
from featherweight.plain import read_text
from featherweight.recipe import Recipe
from featherweight.store.artifacts import write_atomic
from featherweight.task.kinds.image_classification import image_classification
from featherweight.task.splitting import split

DATA = fw.ArraySplit({"x": np.arange(400, dtype=np.float32).reshape(200, 2)}, np.arange(200) % 2)
NUMBERS = (None, "", 10**400, 10**5000, -(10**5000), True, np.True_, b"1", 1j, [], {}, np.array([1.0]), "x" * 100_000)


@pytest.mark.parametrize("value", NUMBERS, ids=lambda v: f"{type(v).__name__}"[:10])
@pytest.mark.parametrize("limit", ["max_drop", "min_metric", "max_latency", "max_size", "floor"])
def test_what_is_no_number_is_no_limit(limit, value):
    with pytest.raises(FeatherweightError) as e:
        if limit == "floor" and value is None:
            raise TaskError("no floor is one", got=repr(None))
        split(DATA, floor=value) if limit == "floor" else getattr(fw, limit)(value)
    assert "\n  got: " in str(e.value) and len(str(e.value)) < 1500


@pytest.mark.parametrize("value", [0.01, 1, np.float32(0.01), np.int64(1), Decimal("0.01"), "1pt", "0.5%"], ids=str)
def test_numbers_of_all_kinds_are(value):
    assert 0 < fw.max_drop(value).bound <= 1
    assert isinstance(value, str) or fw.min_metric(value).bound > 0


@pytest.mark.parametrize("value", [None, 0, "x", np.zeros(3), [1], object()], ids=lambda v: type(v).__name__)
def test_what_is_no_data_is_not_split(value):
    with pytest.raises(TaskError, match="(?s)nothing to split.*Split"):
        split(value)


@pytest.mark.parametrize("out", [None, 3, b"runs", 1.5, "x" * 5000, "a\0b", object()], ids=lambda v: type(v).__name__)
def test_what_names_no_study(out):
    with pytest.raises((InputError, StoreError)):
        fw.Study.open(out)


def test_a_long_value_is_cut_but_not_where_all_of_it_is_to_be_read():
    e = InputError("no", got="x" * 100_000, allowed=["y"] * 100_000, fix="none")
    assert len(str(e)) < 1200 and e.got.endswith("x ..") and e.allowed.endswith(" ..")
    assert InputError("no", got=Whole("x" * 1000)).got == "x" * 1000
    assert InputError("no", got=3).got == 3 and "too long" in str(InputError("no", got=10**5000))


@pytest.mark.parametrize("minutes", [1e-309, 0.001])
def test_a_budget_of_less_than_a_second(minutes):
    with pytest.raises(InputError, match="less than a second"):
        fw.Budget(minutes=minutes)
    assert fw.Budget(minutes=0.02) and fw.Budget(trials=1, trial_minutes=0.001)


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_only_files_are_read(kind, tmp_path):
    """Where a pipe would be waited for, and a device has no end."""
    path = tmp_path / "evil.json"
    {"pipe": lambda: os.mkfifo(path), "zero": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    with pytest.raises(ValueError, match="only files are read"):
        read_text(path)
    result = CliRunner().invoke(app, ["optimize", "x.py", "--recipe", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "bug" not in result.stderr and "recipe cannot be read" in result.stderr
    os.rename(path, tmp_path / "run.yaml")
    result = CliRunner().invoke(app, ["optimize", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "no such file" in result.stderr


def test_a_file_that_says_no_size_is_read_to_the_limit():
    """As those of /proc."""
    assert "MemTotal" in read_text(Path("/proc/meminfo"))


ODD = os.fsdecode(b"\xff")


def test_names_that_are_no_text_are_refused_before_anything_runs(tmp_path):
    from PIL import Image

    for name in ("a", ODD):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "photos" / name / "0.png")
    (tmp_path / "net.py").write_text("def net(num_classes): ...\n")
    with pytest.raises(TaskError, match=r"(?s)name of a class is no Unicode.*\\udcff.*rename"):
        image_classification(f"{tmp_path / 'net.py'}:net", tmp_path / "photos")
    with pytest.raises(TaskError, match="class is no Unicode"):
        split(fw.ArraySplit(DATA.inputs, DATA.targets, ["a", ODD]))
    with pytest.raises(TaskError, match="name of the task is no Unicode"):
        fw.Task(name=ODD, model=None, data=lambda: DATA)
    (tmp_path / ODD).mkdir()
    (tmp_path / ODD / "task.py").write_text("raise SystemExit('it ran')\n")
    for words in (
        [str(tmp_path / ODD / "task.py"), "--out", str(tmp_path / "out")],
        ["--task", "image-classification", "--model", "net.py:net", "--data", str(tmp_path / ODD)],
    ):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["optimize", *words, "--minutes", "1"])
        assert result.exit_code == 2 and "no Unicode" in result.stderr and "bug" not in result.stderr
    tiny = Path(__file__).parents[1] / "tasks" / "tiny.py"
    with pytest.raises(TaskError, match="study's folder is no Unicode"):
        fw.optimize(str(tiny), Recipe(), out=tmp_path / ODD, budget=fw.Budget(trials=1))


def test_a_study_whose_folder_was_given_such_a_name_is_read(tmp_path, one_baseline):
    """In a process of its own: a terminal takes no such text."""
    tiny = str(Path(__file__).parents[1] / "tasks" / "tiny.py")
    fw.optimize(tiny, out=tmp_path / "out", budget=fw.Budget(trials=1), measure_seconds=0.1)
    os.rename(tmp_path / "out", folder := str(tmp_path / ODD))
    for words in (
        ["front"],
        ["front", "--json"],
        ["trial"],
        ["report"],
        ["repair"],
        ["export", "--to", f"{folder}-to"],
    ):
        line = [sys.executable, "-m", "featherweight", words[0], folder, *(["0"] if words[0] == "trial" else words[1:])]
        ended = subprocess.run(line, capture_output=True, check=False)
        assert ended.returncode in (0, 3) and b"bug" not in ended.stderr, (words, ended.stderr)
    with pytest.raises(TaskError, match="rename"):
        fw.Study.resume(folder, budget=fw.Budget(trials=2))
    write_atomic(tmp_path / "x.txt", ODD)
    assert (tmp_path / "x.txt").read_text() == "\\udcff"
