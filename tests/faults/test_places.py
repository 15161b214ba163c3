"""Folders with what is not ours in them, and links that lead out of them: nothing of it is removed
or written over."""

import os
import shutil
from pathlib import Path

import pytest

import featherweight as fw
from featherweight.errors import InputError, StoreError
from featherweight.store.artifacts import ArtifactStore, write_atomic
from featherweight.store.places import clear, remove
from featherweight.study.process import alone, running
from featherweight.study.reading import read_state
from featherweight.study.repair import repair
from tests.lean import BASELINES, reference_only

TINY = str(Path(__file__).parents[1] / "tasks" / "tiny.py")
FAST = {"measure_seconds": 0.1, "minimize": ["params", "size"], "strategy": "greedy", "constraints": [fw.max_drop(0.5)]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished study and the store that it filled."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BASELINES, reference_only)
        patch.setenv("FEATHERWEIGHT_CACHE", str(root / "store"))
        fw.optimize(TINY, out=root / "study", budget=fw.Budget(trials=3), **FAST)
    return root


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    """A copy of the study and its store."""
    monkeypatch.setattr(BASELINES, reference_only)
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "store"))
    for name in ("study", "store"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "study"


def listed(folder):
    """All that is in a folder, and what the files say."""
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", ["artifacts/photos/a.jpg", "best/mine.txt", "report.html", "logs/trial-0.log"])
def test_a_folder_that_holds_what_a_study_would_write_over_is_not_taken(name, tmp_path):
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    (tmp_path / "mine" / name).write_text("precious")
    before = listed(tmp_path / "mine")
    with pytest.raises(InputError, match="(?s)holds no study.*another one with --out"):
        fw.optimize(TINY, out=tmp_path / "mine", budget=fw.Budget(trials=1), **FAST)
    assert listed(tmp_path / "mine") == before


def test_a_folder_with_other_files_is_taken_and_they_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(BASELINES, reference_only)
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    (tmp_path / "mine" / "logs").mkdir()
    for name in ("notes.txt", "photos/a.jpg"):
        (tmp_path / "mine" / name).write_text("precious")
    fw.optimize(TINY, out=tmp_path / "mine", budget=fw.Budget(trials=1), **FAST)
    assert all((tmp_path / "mine" / name).read_text() == "precious" for name in ("notes.txt", "photos/a.jpg"))


def test_a_database_of_somebody_else_is_not_written_to(tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("create table pupils (name)")
    db.close()
    before = listed(tmp_path)
    with pytest.raises(StoreError, match="(?s)none of a study.*pupils"):
        fw.optimize(TINY, out=tmp_path, budget=fw.Budget(trials=1), **FAST)
    assert listed(tmp_path) == before


def test_what_was_put_into_a_study_stays_there_when_it_goes_on(study):
    """Beside artifacts and in them, and in best/, which is written anew."""
    base, others = Path(read_state(study).baseline.artifact), sorted((study / "artifacts").iterdir())
    mine = ["artifacts/photos/a.jpg", "artifacts/0123456789abcdef/b.jpg", *(f"artifacts/{o.name}/c" for o in others)]
    mine += ["best.old/d", "best.new/e"]
    for name in mine:
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("precious")
    (study / "best" / "mine.txt").write_text("precious")
    (study / "artifacts" / ".incoming-abcd1234").mkdir()  # of a run that was killed
    (base / "model.json").write_text("precious")
    (other := next(o for o in others if o != base)).joinpath("model.onnx").write_text("damaged")
    os.remove(base / "model.json")
    fw.Study.resume(study, budget=fw.Budget(trials=5))
    found = [p for p in study.rglob("*") if p.is_file() and p.read_bytes() == b"precious"]
    assert len(found) == len(mine) + 1 and (study / "best.kept1" / "mine.txt") in found
    assert {study / n for n in mine if other.name not in n} <= set(found)
    assert not (study / "artifacts" / ".incoming-abcd1234").exists()
    fw.Study.open(study).export(study.parent / "to")


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "device"])
def test_a_lock_that_is_no_file(kind, study):
    """Whatever it leads to is not emptied, and nobody waits for it."""
    lock, precious = study / ".lock", study.parent / "precious"
    precious.write_text("precious")
    lock.unlink(missing_ok=True)
    made = {"link": lambda: lock.symlink_to(precious), "pipe": lambda: os.mkfifo(lock), "folder": lock.mkdir}
    made |= {"dangling": lambda: lock.symlink_to(study / "gone"), "device": lambda: lock.symlink_to("/dev/null")}
    made[kind]()
    for work in (lambda: repair(study), lambda: fw.Study.resume(study)):
        with pytest.raises(StoreError, match=r"(?s)no (file|part) of a study.*\.lock is a .*move it away"):
            work()
    with pytest.raises(StoreError), alone(study):
        pytest.fail("nobody is alone")
    assert not running(study) and fw.Study.open(study).front_json()["front"]
    assert precious.read_text() == "precious" and not (study / "gone").exists()


@pytest.mark.parametrize(
    "name",
    ["artifacts", "best", "logs", "valid-outputs", "checkpoints", "study.db", "logs/trial-9.log", "best/model/x"],
)
def test_a_link_out_of_a_study_is_not_followed(name, study, tmp_path):
    at, precious = study / name, tmp_path / "precious"
    if at.exists():
        os.rename(at, precious)
    elif "/" in name:
        precious.write_text("precious")
    else:
        (precious / "0123456789abcdef").mkdir(parents=True)
    at.symlink_to(precious)
    before = listed(precious) if precious.is_dir() else precious.read_bytes()
    with pytest.raises(StoreError, match="(?s)leads out of the folder.*precious"):
        fw.Study.resume(study, budget=fw.Budget(trials=4))
    assert (listed(precious) if precious.is_dir() else precious.read_bytes()) == before


def test_a_study_that_is_reached_by_a_link_goes_on(study, tmp_path):
    (tmp_path / "link").symlink_to(study)
    (study / "artifacts.txt").symlink_to(tmp_path)  # the user's own
    found = fw.Study.resume(tmp_path / "link", budget=fw.Budget(trials=4))
    assert len(found.trials()) == 4


KEY = "ab" * 32


def test_links_out_of_a_store_are_not_followed(tmp_path):
    precious = tmp_path / "precious"
    for name in ("entries/x", f"ab/{KEY}", f"{KEY}"):
        (precious / name).mkdir(parents=True)
        (precious / name / "a.jpg").write_text("precious")
    before = listed(precious)
    for at, to in (("entries", "."), ("entries/ab", "ab"), (f"entries/ab/{KEY}", KEY)):
        root = tmp_path / f"store-{to.replace('.', 'all')[:3]}"
        (root / at).parent.mkdir(parents=True)
        (root / at).symlink_to(precious / to)
        for work in (
            lambda root=root: ArtifactStore(root).clear(),
            lambda root=root: ArtifactStore(root).get(KEY),
            lambda root=root: ArtifactStore(root).put(KEY, lambda f: (f / "x").write_text("")),
        ):
            with pytest.raises(StoreError, match="leads out of the folder"):
                work()
    assert listed(precious) == before
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    store = ArtifactStore(tmp_path / "link")
    assert store.put(KEY, lambda to: (to / "x").write_text("")) == store.get(KEY) and store.clear()


def test_a_store_takes_no_folder_of_its_user_for_its_own(tmp_path):
    """As where FEATHERWEIGHT_CACHE is a folder with other things in it."""
    import time

    mine = ["incoming-pictures/a.jpg", "incoming-abcd1234/a.jpg", "entries/2024/holidays/a.jpg", "entries/a.jpg"]
    for name in mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("precious")
        os.utime((tmp_path / name).parent, (time.time() - 10_000,) * 2)
    store = ArtifactStore(tmp_path)
    store.put(KEY, lambda to: (to / "x").write_text(""))
    store.clear()
    assert store.get(KEY) is None and all((tmp_path / name).read_text() == "precious" for name in mine)


def test_what_is_named_for_output_is_written_over_only_if_it_is_a_file(study, tmp_path):
    found, pipe, old = fw.Study.open(study), tmp_path / "pipe", tmp_path / "old.html"
    os.mkfifo(pipe)
    (tmp_path / "null").symlink_to("/dev/null")
    for to, words in ((pipe, "named pipe"), (tmp_path / "null", "device"), (tmp_path, "folder")):
        with pytest.raises(InputError, match=f"(?s)cannot be written over.*{words}"):
            found.report(to)
        with pytest.raises(InputError, match=words):
            write_atomic(to, "x")
    assert pipe.is_fifo() and (tmp_path / "null").is_symlink()
    old.write_text("old")
    (tmp_path / "link.html").symlink_to(old)
    found.report(tmp_path / "link.html")
    assert "<html" in old.read_text() and (tmp_path / "link.html").is_symlink()


def test_what_is_removed_and_what_stays(tmp_path):
    folder = tmp_path / "folder"
    for name in ("a", "b/c", "b/d", "e"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "out").write_text("precious")
    assert remove(folder, ["a", "b/c", "../out", str(tmp_path / "out"), "\0", "x" * 5000])
    assert sorted(p.name for p in folder.rglob("*")) == ["b", "d", "e"] and (tmp_path / "out").exists()
    assert clear(folder, ["e"]) == tmp_path / "folder.kept1" and not folder.exists()
    assert not remove(tmp_path / "folder.kept1", ["b/d"]) and not (tmp_path / "folder.kept1").exists()
    assert clear(tmp_path / "gone", ["x"]) is None
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert clear(tmp_path / "link", ["out"]) == tmp_path / "link.kept1" and (tmp_path / "out").exists()
