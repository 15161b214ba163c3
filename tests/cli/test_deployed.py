"""`featherweight predict` and `featherweight verify`, on a folder that was exported."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from featherweight.cli import app
from featherweight.store.artifacts import sha256_file
from tests import toy
from tests.deploy.test_predict import deployed


@pytest.fixture
def folder(tmp_path):
    """As `export` leaves it: the manifest lists all."""
    to = deployed(tmp_path / "to", toy.task(toy.plain))
    for file in (to / "artifact").iterdir():
        file.unlink()
    (to / "artifact").rmdir()
    listed(to)
    np.savez(tmp_path / "two.npz", image=toy.images(4).inputs["image"][:2])
    return to


def listed(to):
    manifest = json.loads((to / "manifest.json").read_text())
    manifest["artifact_files"] = manifest.get("artifact_files") or manifest["files"]
    manifest["files"] = {p.name: sha256_file(p) for p in sorted(to.iterdir()) if p.name != "manifest.json"}
    (to / "manifest.json").write_text(json.dumps(manifest))


def call(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_predict_answers(folder, tmp_path):
    run = call("predict", folder, tmp_path / "two.npz")
    assert run.exit_code == 0 and len(run.stdout.splitlines()) == 2 and "%" in run.stdout
    run = call("predict", folder, tmp_path / "two.npz", "--json")
    assert [set(a) for a in json.loads(run.stdout)] == [{"label", "probability", "probabilities"}] * 2


def test_predict_says_what_it_cannot_read(folder, tmp_path):
    run = call("predict", folder, "photo.jpg")
    assert run.exit_code == 2 and "allowed: .npz, .npy or .csv" in run.stderr
    run = call("predict", tmp_path, "x.npz")
    assert run.exit_code == 2 and "no manifest.json" in run.stderr


def test_nothing_of_the_folder_is_run(folder, tmp_path):
    (folder / "predict.py").write_text("raise SystemExit(77)")
    listed(folder)
    assert call("predict", folder, tmp_path / "two.npz").exit_code == 0


def test_verify_compares_files_sample_and_speed(folder):
    run = call("verify", folder, "--seconds", "0.1")
    assert run.exit_code == 0 and "It is what it was." in run.stdout and "Speed:" in run.stdout
    found = json.loads(call("verify", folder, "--seconds", "0.1", "--json").stdout)
    assert found["sound"] and found["latency_ms"] > 0


def test_verify_notices_another_output(folder):
    with np.load(folder / "sample.npz") as kept:
        changed = {**kept, "output": kept["output"] * 2 + 1}
    np.savez(folder / "sample.npz", **changed)
    assert "another sha256" in call("verify", folder).stderr
    listed(folder)
    run = call("verify", folder, "--seconds", "0.1")
    assert run.exit_code == 1 and "It is NOT what it was." in run.stdout


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"prepare": {"kind": "sound"}},
        {"batch": 0},
        {"inputs": {"image": {}}},
        {"prepare": {"kind": "text", "tokenizer": "../t.json"}},
        {"output": {}},
        {"tolerance": "much"},
    ],
    ids=str,
)
def test_a_description_that_is_odd_is_no_bug(folder, tmp_path, change):
    spec = json.loads((folder / "deployment.json").read_text())
    (folder / "deployment.json").write_text(json.dumps(spec | change))
    listed(folder)
    run = call("predict", folder, tmp_path / "two.npz")
    assert run.exit_code == 1 and "description cannot be read" in run.stderr
