"""Studies as older versions left them (tests/studies, named by the day): read as they are, and gone
on with, or refused with the way out.

Each was made by `featherweight optimize tests/tasks/tiny.py --trials 4 --max-drop 0.5 --minimize
size --seed 1` of its day, without the report and the logs.
"""

import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import featherweight as fw
from featherweight.cli import app
from featherweight.errors import StoreError
from featherweight.study.reading import read_state
from tests.lean import BASELINES, reference_only

TINY = str(Path(__file__).parents[1] / "tasks" / "tiny.py")
STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.tar.gz"))
BEFORE_BEST = "2026-11-22a"  # its recipe has a field that there is no more, and there is no best/
OTHER_BEST = "2026-11-29"  # by the rules of today another one than best/ holds


@pytest.fixture
def old(request, tmp_path):
    """The day of a study, and a copy of it."""
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return day_of(request.param), tmp_path / "study"


def day_of(path):
    return path.name.partition(".")[0]


def said(*words):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(w) for w in words])
    assert "bug" not in result.stderr and "Traceback" not in result.stderr, result.stderr
    return result


@pytest.mark.parametrize("old", STUDIES, ids=day_of, indirect=True)
def test_it_is_read_as_it_is(old, tmp_path):
    day, study = old
    before = {p: p.read_bytes() for p in study.rglob("*") if p.is_file()}
    front = json.loads(said("front", study, "--json").stdout)
    assert front["trials"]["complete"] == 4 and front["best"]["metric"]["value"] == 1.0
    assert said("front", study).exit_code == 0 and said("trial", study, 2).exit_code == 0
    exported = said("export", study, "--to", tmp_path / "to")
    if day in (BEFORE_BEST, OTHER_BEST):
        assert exported.exit_code == 2 and "resume" in exported.stderr
    else:
        assert exported.exit_code == 0 and said("measure", tmp_path / "to", "--seconds", "0.1").exit_code == 0
    assert {p: p.read_bytes() for p in study.rglob("*") if p.is_file()} == before
    assert said("repair", study).stdout.startswith("Nothing to repair")
    assert said("report", study).exit_code == 0 and (study / "report.html").stat().st_size > 10_000


# each trains and looks at test: the first and the last for every run of the tests
GO_ON = [
    pytest.param(p, id=day_of(p), marks=[pytest.mark.slow] * (0 < i < len(STUDIES) - 1)) for i, p in enumerate(STUDIES)
]


@pytest.mark.parametrize("old", GO_ON, indirect=True)
def test_it_goes_on_or_says_why_not(old, monkeypatch, own_store):
    day, study = old
    monkeypatch.setattr(BASELINES, reference_only)
    was, warned = read_state(study), []
    more = {"minimize": ["size"], "constraints": [fw.max_drop(0.5)], "seed": 1, "measure_seconds": 2.0}

    def hear(event):
        warned.extend([event["text"]] if event["kind"] == "warning" else [])

    def go_on():
        return fw.optimize(TINY, out=study, budget=fw.Budget(trials=6), on_event=hear, **more)

    # the file that it names is not on this machine, or is somebody else's
    with pytest.raises(fw.FeatherweightError, match="there is no such file|trust"):
        fw.Study.resume(study)
    if day == BEFORE_BEST:
        with pytest.raises(StoreError, match="(?s)other settings.*use another --out"):
            go_on()
        return
    found = go_on()
    assert [t["filling"] for t in found.trials()][:4] == [t.filling for t in was.trials]
    assert {t["state"] for t in found.trials()} == {"complete"} and len(found.trials()) == 6
    # what was dropped, and is written otherwise today
    assert not [w for w in warned if "certificate" in w or "lost" in w and "came out as another file" not in w], warned
    assert said("export", study, "--to", study.parent / "to").exit_code == 0
    assert len(read_state(study).certificates) > 0
