"""A full disk is no fault of a trial: the search stops with the reason, and goes on later."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import featherweight as fw
from featherweight.errors import DiskError, StoreError
from featherweight.store.disk import fault
from featherweight.study.reading import read_state
from tests.lean import BASELINES, reference_only

TINY = (Path(__file__).parents[1] / "tasks" / "tiny.py").read_text()
FULL = """
import os
from pathlib import Path
_net = net
def net():
    if Path(__file__).with_name("full").exists():
        raise {error}
    return _net()
"""
FAST = {"measure_seconds": 0.1, "minimize": ["params", "size"], "strategy": "greedy", "constraints": [fw.max_drop(0.5)]}


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (f"OSError: {os.strerror(errno.ENOSPC)} (x.py:3)", os.strerror(errno.ENOSPC)),
        (f"the study's\n  got: {os.strerror(errno.EROFS)}\n  fix: none", os.strerror(errno.EROFS)),
        ("OSError: 1000 requested and 0 written", "0 written"),
        ("the loss is not a number", None),
        ("", None),
    ],
)
def test_what_a_failure_says_of_the_disk(reason, why, tmp_path):
    found = fault(reason, [tmp_path])
    assert found is None if why is None else why in found


def test_a_place_that_cannot_be_written_is_found_out(tmp_path):
    (tmp_path / "file").touch()
    assert "file" in str(fault("anything", [tmp_path, tmp_path / "file" / "gone"]))
    assert fault("anything", [tmp_path, tmp_path / "new"]) is None and not list((tmp_path / "new").iterdir())


def task(folder, error):
    at = "task = fw.Task("
    (folder / "tiny.py").write_text(TINY.replace(at, FULL.format(error=error) + at))
    return folder / "tiny.py"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param("OSError(28, os.strerror(28))", id="errno"),
        pytest.param('RuntimeError("1000 requested and 0 written")', id="words", marks=pytest.mark.slow),
    ],
)
def test_a_search_stops_at_a_full_disk_and_goes_on(error, tmp_path, monkeypatch, own_store):
    monkeypatch.setattr(BASELINES, reference_only)
    file = task(tmp_path, error)

    def fill(event):
        if event["kind"] == "finished" and event["trial"] == 1:
            (tmp_path / "full").touch()

    budget = fw.Budget(trials=4)
    with pytest.raises(DiskError, match="(?s)cannot go on.*resume"):
        fw.optimize(file, out=tmp_path / "out", budget=budget, reuse=False, on_event=fill, **FAST)
    states = [t.state for t in read_state(tmp_path / "out").trials]
    assert states == ["complete", "complete", "running"]
    (tmp_path / "full").unlink()
    found = fw.Study.resume(tmp_path / "out", budget=budget)
    assert [t["state"] for t in found.trials()] == ["complete"] * 4


@pytest.fixture
def small(tmp_path):
    """A disk of 20 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no disk can be made here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "when"),
    [
        ("FEATHERWEIGHT_CACHE", "from the start"),
        ("FEATHERWEIGHT_CACHE", "after a trial"),
        ("out", "from the start"),
        ("out", "after a trial"),
        ("TMPDIR", "after a trial"),  # of one that is full from the start Python takes another
    ],
)
def test_full_places(place, when, small, tmp_path, monkeypatch, own_store):
    """Full, and then with room again."""
    monkeypatch.setattr(BASELINES, reference_only)
    out = small / "out" if place == "out" else tmp_path / "out"
    if place != "out":
        monkeypatch.setenv(place, str(small))
    filling = small / "filling"

    def fill(event):
        if event["kind"] == "finished" and event["trial"] == 0:
            filling.write_bytes(bytes(shutil.disk_usage(small).free))

    if when == "from the start":
        fill({"kind": "finished", "trial": 0})
    budget = fw.Budget(trials=4)
    with pytest.raises(StoreError, match=f"{os.strerror(errno.ENOSPC)}|disk is full|No usable temporary") as e:
        fw.optimize(task(tmp_path, "OSError"), out=out, budget=budget, on_event=fill, **FAST)
    assert "resume" in str(e.value) or place == "out"
    filling.unlink()
    found = fw.optimize(task(tmp_path, "OSError"), out=out, budget=budget, **FAST)
    assert [t["state"] for t in found.trials()] == ["complete"] * 4


def test_an_export_that_does_not_fit_leaves_nothing(tmp_path, monkeypatch, one_baseline):
    """As under `ulimit -f`: the same command works once there is room."""
    import resource

    from typer.testing import CliRunner

    from featherweight.cli import app

    fw.optimize(task(tmp_path, "OSError"), out=tmp_path / "out", budget=fw.Budget(trials=1), **FAST)
    (tmp_path / "empty").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for to in (tmp_path / "new", tmp_path / "empty"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            result = CliRunner().invoke(app, ["export", str(tmp_path / "out"), "--to", str(to)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert result.exit_code == 1 and os.strerror(errno.EFBIG) in result.stderr and "disk is full" in result.stderr
        assert not to.exists() or not list(to.iterdir())
        assert not list(tmp_path.glob(".incoming*"))
        assert CliRunner().invoke(app, ["export", str(tmp_path / "out"), "--to", str(to)]).exit_code == 0
        assert (to / "manifest.json").is_file()
    for to, words in (
        ("", "no name"),
        (str(tmp_path / "out" / "deployed"), "study's own"),
        (str(tmp_path / "out"), "own"),
    ):
        result = CliRunner().invoke(app, ["export", str(tmp_path / "out"), "--to", to])
        assert result.exit_code == 2 and words in result.stderr


@pytest.mark.parametrize(
    "text", ["x", "{}", "[]", '"a"', "null", '{"limit_bytes": 1e999}', '{"limit_bytes": -5}', "\xff"]
)
def test_settings_of_the_store_that_are_none(text, tmp_path, monkeypatch):
    """They may be somebody else's, and are not written over."""
    from typer.testing import CliRunner

    from featherweight.cli import app

    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path))
    (tmp_path / "settings.json").write_text(text, encoding="latin-1")
    for words in (["cache"], ["cache", "--limit", "5GB"]):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
        assert (
            result.exit_code == 1 and "settings cannot be read" in result.stderr and "remove the file" in result.stderr
        )
    assert (tmp_path / "settings.json").read_text(encoding="latin-1") == text
    (tmp_path / "settings.json").unlink()
    os.mkfifo(tmp_path / "settings.json")
    assert "named pipe" in CliRunner(env={"COLUMNS": "200"}).invoke(app, ["cache"]).stderr
    (tmp_path / "settings.json").unlink()
    for limit in ("²", "٣²", "5²B", "9" * 5000):
        assert CliRunner().invoke(app, ["cache", "--limit", limit]).exit_code == 2
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert "file is a file" in CliRunner(env={"COLUMNS": "200"}).invoke(app, ["cache"]).stderr
