"""A study whose folder is moved, renamed or copied, and used from wherever its user is."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import featherweight as fw
from featherweight.cli import app
from featherweight.errors import InputError, StoreError
from featherweight.report.ahead import next_command
from featherweight.report.words import summary
from featherweight.store.artifacts import sha256_file
from featherweight.store.events import EventStore
from featherweight.study import results
from featherweight.study.process import alone
from featherweight.study.reading import read_state
from featherweight.study.state import within
from featherweight.study.study import Study
from tests.lean import BASELINES, reference_only
from tests.older import rewritten

TINY = str(Path(__file__).parents[1] / "tasks" / "tiny.py")
FAST = {"measure_seconds": 0.1, "minimize": ["params", "size"], "strategy": "greedy", "constraints": [fw.max_drop(0.5)]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a study in runs/tiny and the store that it filled; the study was begun from
    there, with relative paths."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BASELINES, reference_only)
        patch.setenv("FEATHERWEIGHT_CACHE", "store")
        patch.chdir(root)
        study = fw.optimize(TINY, out="runs/tiny", budget=fw.Budget(trials=3), **FAST)
        patch.chdir("/")
        assert study.export(root / "exported-at-once", study.best.entry.trial).is_dir()
        assert study.best.export(root / "best-at-once").is_dir()
    return root


@pytest.fixture(params=["as written now", "as written by older versions"])
def moved(home, tmp_path, monkeypatch, request):
    """The study of `home` in another folder, seen from a third one."""
    monkeypatch.setattr(BASELINES, reference_only)
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(home / "store"))
    shutil.copytree(home / "runs" / "tiny", tmp_path / "renamed")
    if request.param.endswith("older versions"):
        paths = """UPDATE events SET body = replace(body, '"artifacts/', '"runs/tiny/artifacts/')"""
        rewritten(tmp_path / "renamed" / "study.db", (paths,))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return Path("..") / "renamed"


def test_the_log_holds_no_place_of_the_study(home):
    store = EventStore(home / "runs" / "tiny" / "study.db")
    told = [e["entry"]["artifact"] for e in store.read() if "entry" in e]
    store.close()
    assert len(told) >= 4 and all(Path(a).parent == Path("artifacts") for a in told)


def test_a_moved_study_goes_on_and_computes_nothing_anew(moved):
    heard = []
    before = Study.open(moved)
    study = fw.Study.resume(moved, budget=fw.Budget(trials=4), on_event=heard.append)
    kinds = Counter(e["kind"] for e in heard)
    assert kinds["proposed"] == kinds["finished"] == 1 and not kinds["baseline"] and not kinds["failed"]
    assert [t["entry"]["sha256"] for t in study.trials()[:3]] == [t["entry"]["sha256"] for t in before.trials()]
    for entry in study.state.front():
        assert Path(entry.artifact).is_dir() and Path(entry.artifact).parent == (moved / "artifacts").resolve()
    front = json.loads((moved / "front.json").read_text())
    assert all(Path(e["artifact"]).is_dir() for e in [front["baseline"], *front["front"]])


def test_a_moved_study_is_shown_reported_and_exported_from_anywhere(moved, tmp_path):
    number = next(e.trial for e in read_state(moved).ranked())
    for line in (
        ["front", str(moved), "--json"],
        ["report", str(moved)],
        ["export", str(moved), "--to", str(tmp_path / "best")],
        ["export", str(moved), "--to", str(tmp_path / "one"), "--trial", str(number)],
    ):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 0, done.output
        if line[0] == "front":
            assert all(os.path.isdir(e["artifact"]) for e in json.loads(done.stdout)["front"])
    assert (tmp_path / "best" / "MODEL_CARD.md").is_file() and (tmp_path / "one" / "model.onnx").is_file()


def test_each_trial_on_the_front_is_exported_in_its_best_form(moved, tmp_path):
    state = read_state(moved)
    chosen = state.best()
    # the winner was trained on; what it was before is not kept
    (Path(chosen.artifact) / "model.onnx").write_bytes(b"another model")
    manifest = json.loads((Path(chosen.artifact) / "manifest.json").read_text())
    manifest["sha256"] = manifest["files"]["model.onnx"] = sha256_file(Path(chosen.artifact) / "model.onnx")
    (Path(chosen.artifact) / "manifest.json").write_text(json.dumps(manifest))
    made = {"artifact": f"artifacts/{'0' * 16}", "sha256": manifest["sha256"]}
    entry = {**chosen.to_json(), **made, "rung": 1, "params": 1}
    store = EventStore(moved / "study.db")
    body = {"rung": 1, "epochs": 3, "seconds": 1.0, "entry": entry, "steps": 0, "reused": 0}
    store.append("polished", body, trial=chosen.trial)
    store.close()
    Path(chosen.artifact).rename(moved / "artifacts" / ("0" * 16))
    study = Study.open(moved)
    assert study.state.trials[chosen.trial].entry.artifact == chosen.artifact
    assert (study.export(tmp_path / "whole", chosen.trial) / "MODEL_CARD.md").is_file()  # it is the best
    shutil.rmtree(moved / "best")
    to = study.export(tmp_path / "to", chosen.trial)
    assert (to / "model.onnx").is_file() and not (to / "MODEL_CARD.md").exists()
    shutil.rmtree(moved / "artifacts" / ("0" * 16))
    with pytest.raises(InputError, match="not kept"):
        study.export(tmp_path / "again", chosen.trial)


def test_a_study_without_its_artifacts_says_what_is_missing(moved):
    shutil.rmtree(moved / "artifacts")
    with pytest.raises(StoreError, match=r"baseline's file .*\n?.*artifacts"):
        fw.Study.resume(moved, budget=fw.Budget(trials=4))


def test_an_artifact_that_came_back_to_the_front_is_made_anew(moved, monkeypatch):
    gone = Path(read_state(moved).best().artifact)
    shutil.rmtree(gone)
    with pytest.raises(StoreError, match="best candidate's file"), monkeypatch.context() as patch:
        patch.setattr(results, "restore", lambda jobs: None)
        fw.Study.resume(moved)
    fw.Study.resume(moved)
    assert gone.is_dir() and (moved / "best" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("/old/place/artifacts/ab12", "artifacts/ab12"),
        ("runs/x/artifacts/ab12", "artifacts/ab12"),
        ("artifacts/ab12", "artifacts/ab12"),
        ("/home/me/.ssh", "artifacts/_ssh"),  # a log may come from anybody
        ("..", "artifacts/__"),
        ("", "artifacts/_"),
    ],
)
def test_a_place_within_the_study_is_known_by_its_last_name(written, kept):
    assert within(written) == kept


def test_what_a_killed_run_left_of_the_best_is_not_taken_for_it(moved):
    (moved / ".best.new" / "model").mkdir(parents=True)
    for name in ("model.bin", "model/scales.safetensors"):
        (moved / ".best.new" / name).write_bytes(b"of another candidate")
    fw.Study.resume(moved)
    files = {str(p.relative_to(moved / "best")) for p in (moved / "best").rglob("*")}
    assert "model.onnx" in files and not files & {"model.bin", "model/scales.safetensors"}
    assert not any(
        "another" in name or "scales" in name
        for name in json.loads((moved / "best" / "manifest.json").read_text())["files"]
    )


@pytest.mark.slow
def test_outputs_that_were_cut_short_are_made_anew(moved):
    """By a kill while they were copied from another file system."""
    written = sorted((moved / "test-outputs").glob("*.npy")) + [moved / "valid-outputs" / "baseline.npy"]
    assert len(written) >= 2
    whole = {p: p.read_bytes() for p in written}
    for p in written:
        p.write_bytes(p.read_bytes()[:200])
    heard = []
    # one more trial is compared on valid, and what comes of it is looked at on test
    fw.Study.resume(moved, budget=fw.Budget(trials=4), on_event=heard.append)
    assert not [e for e in heard if e["kind"] in ("failed", "uncertified")]
    assert (moved / "valid-outputs" / "baseline.npy").read_bytes() == whole[moved / "valid-outputs" / "baseline.npy"]
    assert not list(moved.rglob("*.part"))


def test_a_folder_without_a_study_is_wrong_input(tmp_path):
    for line in (["front", str(tmp_path)], ["export", str(tmp_path), "--to", str(tmp_path / "to")]):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 2 and "there is no study in this folder" in done.output + done.stderr
    with pytest.raises(StoreError):
        Study.open(tmp_path)


def test_a_study_that_runs_says_so(moved):
    with alone(moved):
        front = Study.open(moved).front_json()
        assert front["running"] and "still runs" in " ".join(summary(front))
        assert next_command(front, moved).startswith("featherweight front")
    assert "running" not in Study.open(moved).front_json()
