"""Files of a study that something changed: never measured, judged or handed out as if they were
those that were made."""

import contextlib
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import featherweight as fw
from featherweight.cli import app
from featherweight.errors import FeatherweightError, InputError, StoreError
from featherweight.store.artifacts import ArtifactStore, sha256_file
from featherweight.store.manifest import sound
from featherweight.study.jobs import intact
from featherweight.study.reading import read_state
from tests.lean import BASELINES, reference_only, some
from tests.older import rewritten

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


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def go_on(study, trials=4):
    heard = []
    found = fw.Study.resume(study, budget=fw.Budget(trials=trials), on_event=heard.append)
    return found, heard


def test_the_study_and_the_cache_share_no_file(made):
    own = {p.stat().st_ino for p in (made / "study").rglob("*") if p.is_file()}
    assert own and own.isdisjoint(p.stat().st_ino for p in (made / "store").rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["model.onnx", "model/model.safetensors", "recipe.json", "MODEL_CARD.md"])
def test_a_damaged_best_is_not_exported(name, study, tmp_path):
    flip(study / "best" / name)
    result = CliRunner().invoke(app, ["export", str(study), "--to", str(tmp_path / "to")])
    assert result.exit_code == 1 and name in result.stderr and not (tmp_path / "to").exists()
    go_on(study, 3)
    assert CliRunner().invoke(app, ["export", str(study), "--to", str(tmp_path / "to")]).exit_code == 0


def test_a_best_whose_manifest_was_changed_with_it_is_not_exported(study, tmp_path):
    """The log has its files' hashes; the folder's own are no evidence."""
    from featherweight.store.artifacts import sha256_file

    card, manifest = study / "best" / "MODEL_CARD.md", study / "best" / "manifest.json"
    card.write_text("certified for all that you like")
    told = json.loads(manifest.read_text())
    told["files"]["MODEL_CARD.md"] = sha256_file(card)
    manifest.write_text(json.dumps(told))
    with pytest.raises(StoreError, match="not as it was written"):
        fw.Study.open(study).export(tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_no_damaged_artifact_is_exported(study, tmp_path):
    state = read_state(study)
    for i, entry in enumerate([*state.front(), *state.baselines.values()]):
        flip(Path(entry.artifact) / "model.onnx", 1000)
        name = entry.label if entry.trial is None else str(entry.trial)
        if entry == state.best():
            continue
        result = CliRunner().invoke(app, ["export", str(study), "--to", str(tmp_path / str(i)), "--trial", name])
        assert result.exit_code == 1 and "not what its manifest says" in result.stderr
    assert not any(tmp_path.glob("[0-9]"))


def test_a_log_that_names_another_folder_hands_out_nothing_of_it(study, tmp_path):
    """As an ssh key was exported by the log of a stranger's study."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "id").write_text("secret")
    state = read_state(study)
    label = next(iter(state.baselines))
    rewritten(
        study / "study.db",
        (
            "UPDATE events SET body = replace(body, ?, ?)",
            f"artifacts/{Path(state.baselines[label].artifact).name}",
            str(tmp_path / "secret"),
        ),
    )
    with pytest.raises(InputError, match="no such baseline"):
        fw.Study.open(study).export(tmp_path / "to", label)
    (study / "artifacts" / "secret").symlink_to(tmp_path / "secret")
    with pytest.raises(FeatherweightError):
        fw.Study.open(study).export(tmp_path / "to", label)
    assert not (tmp_path / "to").exists()


def test_what_somebody_put_beside_the_files_is_not_handed_out(study, tmp_path):
    base = Path(read_state(study).baseline.artifact)
    for folder in (study / "best", study / "best" / "model", base):
        (folder / "extra.py").write_text("")
    found = fw.Study.open(study)
    for to, name in (("best", None), ("base", "baseline")):
        assert not list(found.export(tmp_path / to, name).rglob("extra.py"))
        assert found.export(tmp_path / to, name) == tmp_path / to  # again


def test_a_link_in_an_artifact_is_no_file_of_it(study, tmp_path):
    folder = Path(read_state(study).baseline.artifact)
    os.rename(folder / "model.onnx", tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(StoreError, match="not there"):
        fw.Study.open(study).export(tmp_path / "to", "baseline")


def test_a_baseline_that_was_changed_between_two_runs_is_not_measured_against(study):
    flip(Path(read_state(study).baseline.artifact) / "model.onnx")
    with pytest.raises(StoreError, match="baseline's file is not as it was made") as e:
        go_on(study)
    assert "another sha256" in e.value.got


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_candidate_that_was_changed_is_made_anew(name, study, tmp_path):
    best = read_state(study).best()
    flip(Path(best.artifact) / name, 10 if name == "manifest.json" else -1)
    found, heard = go_on(study, 3)
    assert sound(Path(best.artifact), best.sha256) and not [e for e in heard if e["kind"] == "warning"]
    found.export(tmp_path / "to")


@pytest.mark.parametrize("how", some(["flipped", "another's", "older"], ["another's"]))
def test_outputs_that_are_not_as_they_were_are_made_anew(how, study):
    """All of them: those of the baseline on valid and on test."""
    files = [study / "valid-outputs" / "baseline.npy", *sorted((study / "test-outputs").glob("*.npy"))]
    whole = {p: p.read_bytes() for p in files}
    before = read_state(study)
    assert len(files) >= 3 and len(before.outputs) == len(files)
    if how == "older":  # whose log does not say what they were
        rewritten(study / "study.db", ("UPDATE events SET body = replace(body, '\"outputs\"', '\"others\"')",))
        assert not read_state(study).outputs
    for p in files:
        if how == "flipped":
            flip(p)
        else:
            np.save(p, np.load(p)[::-1])
    found, heard = go_on(study, 6)
    assert not [e for e in heard if e["kind"] == "failed"]
    new = [e for e in heard if e["kind"] == "finished"]
    assert new and whole[files[0]] == files[0].read_bytes()
    after = read_state(study)
    fresh = [t.entry for t in after.trials if t.number >= 3 and t.entry is not None and t.entry.paired is not None]
    assert fresh and all(abs(e.paired.drop - (after.baseline.metric.value - e.metric.value)) < 1e-9 for e in fresh)


def test_an_entry_of_the_cache_that_changes_while_it_is_open_is_not_used(tmp_path):
    from featherweight.store.artifacts import ArtifactStore

    store = ArtifactStore(tmp_path)
    folder = store.put("ab" * 20, lambda to: (to / "x").write_text("made"))
    assert store.get("ab" * 20) == folder
    (folder / "x").write_text("other")
    assert store.get("ab" * 20) is None
    folder = store.put("ab" * 20, lambda to: (to / "x").write_text("made"))
    (folder / "more").write_text("of a stranger")
    assert store.get("ab" * 20) is None


@pytest.mark.slow
def test_a_thousand_flipped_bits_in_what_is_handed_out(study, tmp_path):
    rng = random.Random(0)
    state = read_state(study)
    files = [p for p in (study / "best").rglob("*") if p.is_file()]
    found = fw.Study.open(study)
    for i in range(1000):
        path = rng.choice(files)
        data = path.read_bytes()
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        if path.name == "manifest.json":  # of which only what says hashes is held to the log
            with contextlib.suppress(FeatherweightError):
                found.export(tmp_path / str(i))
                made = json.loads((tmp_path / str(i) / "manifest.json").read_text())
                assert made["files"] == state.packaged
        else:
            with pytest.raises(FeatherweightError):
                found.export(tmp_path / str(i))
        path.write_bytes(data)
    found.export(tmp_path / "whole")


def flipped(path, rng):
    """Flip a random bit of a file; what it said before."""
    data = path.read_bytes()
    at = rng.randrange(len(data))
    path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    return data


@pytest.mark.slow
def test_a_thousand_flipped_bits_in_the_cache(study, tmp_path):
    """A damaged entry is not there; the flip of a bit in sums.json damages all that it names."""
    rng, root, spare = random.Random(0), tmp_path / "store", tmp_path / "spare"
    entries = [p for p in (root / "entries").glob("*/*") if p.is_dir()]
    for _ in range(1000):
        entry = rng.choice(entries)
        shutil.rmtree(spare, ignore_errors=True)
        shutil.copytree(entry, spare)
        flipped(rng.choice([p for p in entry.rglob("*") if p.is_file()]), rng)
        assert ArtifactStore(root).get(entry.name) is None
        shutil.rmtree(entry, ignore_errors=True)
        shutil.copytree(spare, entry)
        assert ArtifactStore(root).get(entry.name) == entry


@pytest.mark.slow
def test_a_thousand_flipped_bits_in_a_studys_artifacts(study):
    """And in its stored outputs: what differs from the log is found."""
    rng, state = random.Random(0), read_state(study)
    entries = {Path(e.artifact).name: e for e in state.entries() if Path(e.artifact).is_dir()}
    files = [p for name in entries for p in (study / "artifacts" / name).iterdir() if p.is_file()]
    outputs = [study / name for name in state.outputs if (study / name).is_file()]
    assert files and outputs
    for _ in range(1000):
        path = rng.choice(files + outputs)
        data = flipped(path, rng)
        if path in outputs:
            assert sha256_file(path) != state.outputs[str(path.relative_to(study))]
        elif path.name == "manifest.json":  # of which only what says hashes is held to the log
            entry = entries[path.parent.name]
            with contextlib.suppress(FeatherweightError):
                assert sound(path.parent, entry.sha256)["sha256"] == entry.sha256
        else:
            assert not intact(entries[path.parent.name])
        path.write_bytes(data)
    assert all(map(intact, entries.values()))
