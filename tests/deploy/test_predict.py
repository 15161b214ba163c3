"""What stands beside a deployed model: inputs from what people have, answers from outputs, and a
program that needs nothing of ours."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.deploy.predict import SPEC, Model, answers, arrays, named_rows, read
from featherweight.engine.deployed import write_deployment
from featherweight.engine.export import write_artifact
from featherweight.models.package import Package
from featherweight.targets.base import Target
from tests import toy

# what runs a folder's predict.py, and may not have: our package, and what we are made with
ALONE = """
import sys
class Missing:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.argv = {argv!r}
import runpy
runpy.run_path({file!r}, run_name="__main__")
"""
OURS = {"featherweight", "torch", "onnx", "sklearn", "pandas", "transformers", "optuna", "rich", "typer", "yaml"}


def alone(folder, *words, hidden=frozenset(OURS)):
    """(exit code, standard output, standard error) of `python predict.py WORDS` in a folder."""
    program = ALONE.format(hidden=set(hidden), argv=["predict.py", *words], file=str(folder / "predict.py"))
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=folder)
    return run.returncode, run.stdout, run.stderr


def deployed(folder, task, target="onnxruntime", plan=None, module=None):
    """A task's untrained model, exported and described in a folder."""
    target = Target.parse(target)
    package = Package(module or task.build(), plan=plan)
    artifact = folder / "artifact"
    artifact.mkdir(parents=True)
    write_artifact(task, package, target, fw.Recipe(), artifact)
    for file in artifact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_deployment(task, artifact, target, folder)
    return folder


@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime:batch=3", "openvino", "torch"])
def test_the_folder_runs_without_us(tmp_path, target):
    runtime = target.partition(":")[0]
    if runtime == "openvino":
        pytest.importorskip("openvino")
    task = toy.task(toy.plain)
    folder = deployed(tmp_path, task, target)
    hidden = {"featherweight"} if runtime == "torch" else OURS
    code, said, wrong = alone(folder, "--check", hidden=hidden)
    assert code == 0 and said.startswith("As it was made"), wrong
    inputs, _ = task.splits().valid.batch(np.arange(4))
    np.savez(tmp_path / "four.npz", **inputs)
    code, said, wrong = alone(folder, str(tmp_path / "four.npz"), hidden=hidden)
    assert code == 0, wrong
    with torch.no_grad():
        expected = task.build()(torch.from_numpy(inputs["image"])).softmax(1).numpy()
    found = [json.loads(line) for line in said.splitlines()]
    assert [int(a["label"]) for a in found] == expected.argmax(1).tolist()
    assert np.allclose([a["probability"] for a in found], expected.max(1), atol=1e-4)
    needed = (folder / "requirements.txt").read_text()
    assert "numpy==" in needed and f"{runtime}==" in needed and "featherweight" not in needed


def test_another_output_is_noticed(tmp_path):
    folder = deployed(tmp_path, toy.task(toy.plain))
    with np.load(folder / "sample.npz") as kept:
        changed = {**kept, "output": kept["output"] + 1}
    np.savez(folder / "sample.npz", **changed)
    code, said, _ = alone(folder, "--check")
    assert code == 1 and said.startswith("NOT as it was made")


def test_what_cannot_be_read_is_said_in_a_line(tmp_path):
    folder = deployed(tmp_path, toy.task(toy.plain))
    for name, text in (("a.txt", "x"), ("a.csv", "1,2\n"), ("gone.npz", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        code, _, wrong = alone(folder, name)
        assert code == 2 and wrong.startswith("Error: ") and "Traceback" not in wrong
    code, said, _ = alone(folder)
    assert code == 0 and "python predict.py" in said


# --- answers --------------------------------------------------------------------------------------


def said(outputs, means, labels=None):
    spec = {"output": {"means": means, **({"labels": labels} if labels else {})}}
    return answers(np.asarray(outputs, dtype=np.float32), spec)


def test_logits_are_classes_with_probabilities():
    (answer,) = said([[0.0, 2.0, 1.0]], "logits", ["a", "b", "c"])
    e = np.exp([0.0, 2.0, 1.0])
    assert answer["label"] == "b" and answer["probability"] == pytest.approx(e[1] / e.sum(), abs=1e-6)
    assert list(answer["probabilities"]) == ["b", "c", "a"]


def test_probabilities_stay_what_they_are():
    (answer,) = said([[0.1, 0.7, 0.2]], "probabilities")
    assert answer["label"] == "1" and answer["probability"] == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize(("z", "label"), [(3.0, "yes"), (-3.0, "no"), (-800.0, "no"), (800.0, "yes")])
def test_one_logit_tells_two_classes_apart(z, label):
    (answer,) = said([[z]], "logits", ["no", "yes"])
    assert answer["label"] == label and answer["probability"] == pytest.approx(1 / (1 + np.exp(-abs(z))), abs=1e-6)
    (answer,) = said([[0.25]], "probabilities", ["no", "yes"])
    assert answer == {"label": "no", "probability": 0.75, "probabilities": {"no": 0.75, "yes": 0.25}}


def test_labels_that_do_not_exclude_each_other():
    (answer,) = said([[2.0, -2.0, 0.5]], "labels", ["a", "b", "c"])
    assert answer["labels"] == ["a", "c"]
    (answer,) = said([[0.4, 0.6, 0.2]], "label probabilities", ["a", "b", "c"])
    assert answer["labels"] == ["b"]


def test_numbers_are_numbers():
    assert said([[1.5, 2.5]], "numbers") == [{"output": [1.5, 2.5]}]


def test_at_most_five_classes_are_named():
    assert len(said([np.arange(100.0)], "logits")[0]["probabilities"]) == 5


def test_arrays_of_the_right_form():
    forms = {"a": {"shape": ["batch", 2], "dtype": "float32"}, "b": {"shape": ["batch"], "dtype": "int64"}}
    found = arrays({"a": [[1, 2], [3, 4]], "b": [1.0, 2.0], "more": 0}, forms)
    assert found["a"].dtype == np.float32 and found["b"].dtype == np.int64
    with pytest.raises(ValueError, match="not there: b"):
        arrays({"a": [[1, 2]]}, forms)
    with pytest.raises(ValueError, match=r"a is \[n, 2\]"):
        arrays({"a": [[1, 2, 3]], "b": [1]}, forms)
    with pytest.raises(ValueError, match="several inputs"):
        arrays(np.zeros((1, 2)), forms)
    one = {"a": forms["a"]}
    assert arrays(np.zeros(2), one)["a"].shape == (1, 2)


# --- what outputs stand for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "targets", "means"),
    [
        (lambda: nn.Linear(3, 4), np.arange(60) % 4, "logits"),
        (lambda: nn.Linear(3, 1), np.arange(60) % 2, "logits"),
        (lambda: nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()), np.arange(60) % 2, "probabilities"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)), np.arange(60) % 4, "probabilities"),
        (lambda: nn.Linear(3, 2), np.stack([np.arange(60) % 2, np.arange(60) // 30], 1), "labels"),
        (lambda: nn.Linear(3, 1), np.linspace(0, 1, 60), "numbers"),
        (lambda: nn.Linear(3, 4), None, "logits"),
        (lambda: nn.Linear(3, 1), None, "numbers"),
    ],
    ids=["classes", "one logit", "one probability", "softmax", "labels", "number", "own classes", "own numbers"],
)
def test_what_outputs_stand_for_is_written(tmp_path, net, targets, means):
    from featherweight.task.accept import task_of

    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    torch.manual_seed(0)
    folder = deployed(tmp_path, task_of(net(), x if targets is None else (x, targets)))
    spec = json.loads((folder / SPEC).read_text())
    assert spec["output"]["means"] == means
    assert len(Model(folder)(x[:3])) == 3


def test_labels_are_those_of_the_data(tmp_path):
    from featherweight.task.accept import task_of

    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    folder = deployed(tmp_path, task_of(nn.Linear(3, 2), (x, np.array(["cat", "dog"])[np.arange(60) % 2])))
    assert Model(folder)(x[:1])[0]["label"] in ("cat", "dog")


def test_an_empty_line_of_one_column_is_a_row(tmp_path):
    for text, rows in (("a\n1\n\n3\n", ["1", "", "3"]), ("\na\n1\n3\n\n\n", ["1", "3"])):
        (tmp_path / "one.csv").write_text(text)
        assert [row["a"] for row in named_rows(tmp_path / "one.csv")] == rows
    (tmp_path / "two.csv").write_text("a,b\n1,2\n\n3,4\n")
    assert [row["a"] for row in named_rows(tmp_path / "two.csv")] == ["1", "3"]
    spec = {"prepare": {"kind": "arrays"}, "inputs": {"x": {"shape": ["batch", 1], "dtype": "float32"}}}
    (tmp_path / "one.csv").write_text("a\n1\n\n3\n")
    with pytest.raises(ValueError, match="row 2, cell 1 is no number"):
        read(str(tmp_path / "one.csv"), spec, tmp_path)


@pytest.mark.parametrize("kind", ["table", "arrays", "image", "audio"])
def test_a_file_that_is_not_there_is_said_to_be_that(tmp_path, kind):
    how = {"kind": kind, "columns": [], "size": [8, 8], "channels": 1, "rate": 16000, "samples": 10}
    spec = {"prepare": how, "inputs": {"x": {"shape": ["batch", 1], "dtype": "float32"}}}
    with pytest.raises(ValueError, match="there is no file"):
        read(str(tmp_path / "nofile.csv"), spec, tmp_path)
