"""measure, doctor and the self-test against the real runtimes; the cost of `--help`."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from featherweight import cli
from featherweight.cli import _artifact, doctor
from featherweight.errors import FeatherweightError
from featherweight.records import Measured
from tests.waiting import GENEROUS_S

HEAVY = (
    "torch",
    "numpy",
    "plotly",
    "pandas",
    "sqlalchemy",
    "optuna",
    "transformers",
    "onnx",
    "onnxruntime",
    "openvino",
    "sklearn",
    "jinja2",
    "yaml",
)


def run(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(w) for w in words])


def artifact(folder, size, **changes):
    """A folder with an ONNX model of two products with [size, size] matrices, and its manifest."""
    folder.mkdir()
    w = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["output"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", size])],
        [w],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(folder / "model.onnx")
    )
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    manifest = {
        "target": "onnxruntime",
        "inputs": {"x": {"shape": ["batch", size], "dtype": "float32"}},
        "files": {"model.onnx": digest},
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_measure_alone_and_against_another(tmp_path):
    small, large, other = (
        artifact(tmp_path / "small", 16),
        artifact(tmp_path / "large", 1024),
        artifact(tmp_path / "other", 16),
    )
    result = run("measure", small, "--seconds", "0.3")
    assert result.exit_code == 0, result.output
    assert "median" in result.stdout and "faster" not in result.stdout
    found = json.loads(run("measure", large, "--seconds", "0.3", "--json").stdout)
    assert found["latency_ms"]["median"] > 0 and found["speedup"] is None and found["peak_memory_bytes"] > 1e6
    same = run("measure", small, "--against", other, "--seconds", "0.3", "--json")
    low, high = json.loads(same.stdout)["speedup"]["ci95"]
    assert 0 < low <= high


@pytest.mark.parametrize(
    ("ci95", "said"),
    [([1.2, 1.4], "is faster than"), ([0.9, 1.4], "no difference in speed shown"), ([0.5, 0.6], "is slower than")],
)
def test_words_of_measure(tmp_path, monkeypatch, ci95, said):
    a, b = artifact(tmp_path / "a", 8), artifact(tmp_path / "b", 8)
    times = {"median": 0.1, "p90": 0.2, "n": 50, "cpu_median": 0.1, "load": 0.0}
    found = {
        "latency_ms": times,
        "reference_ms": times,
        "speedup": {"ratio": sum(ci95) / 2, "ci95": ci95, "clock": "cpu", "n": 40},
        "peak_memory_bytes": 10**7,
        "rounds": 40,
    }
    monkeypatch.setattr("featherweight.measure.run.measure", lambda *args, **kwargs: Measured.from_json(found))
    result = run("measure", a, "--against", b)
    assert said in result.stdout and ("faster" in result.stdout) == (said == "is faster than")


def test_measure_refuses_what_is_not_an_artifact(tmp_path):
    assert run("measure", tmp_path).exit_code == 2
    broken = artifact(tmp_path / "a", 8)
    (broken / "model.onnx").write_bytes(b"changed")
    result = run("measure", broken)
    assert result.exit_code == 1 and "another sha256" in result.stderr
    assert run("measure", artifact(tmp_path / "b", 8, target="nonsense")).exit_code == 2
    for i, files in enumerate(({"../a/model.onnx": "0"}, {"gone": "0"}, [])):
        assert run("measure", artifact(tmp_path / f"c{i}", 8, files=files)).exit_code == 1
    (tmp_path / "a" / "manifest.json").write_text("{")
    assert run("measure", tmp_path / "a").exit_code == 1


def test_example_inputs_fit_the_manifest(tmp_path):
    inputs = {
        "ids": {"shape": ["batch", 6], "dtype": "int64"},
        "x": {"shape": ["batch", 2, 3], "dtype": "float32"},
        "flag": {"shape": ["batch"], "dtype": "bool"},
    }
    made = _artifact.read(artifact(tmp_path / "a", 8, inputs=inputs), threads=2)
    example = made.example()
    assert {k: (v.shape, str(v.dtype)) for k, v in example.items()} == {
        "ids": ((1, 6), "int64"),
        "x": ((1, 2, 3), "float32"),
        "flag": ((1,), "bool"),
    }
    assert set(example["ids"].ravel()) <= {0, 1} and made.target.threads == 2
    with pytest.raises(FeatherweightError):
        _artifact.read(
            artifact(tmp_path / "b", 8, inputs={"x": {"shape": ["batch", "odd"], "dtype": "float32"}})
        ).example()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_selftest_of_a_runtime(name):
    pytest.importorskip(name)
    assert doctor.runtime(name).status == "ok"


def test_a_runtime_that_dies_hangs_or_is_absent(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())

    def ending(code, out="", err=""):
        monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, code, out, err))

    ending(-11)
    assert doctor.runtime("torch") == doctor.Check(
        "runtime torch", "broken", "kills its process (SIGSEGV)", "pip install --force-reinstall torch"
    )
    assert doctor.runtime("openvino").status == "note"
    ending(1, "", "ImportError: libfoo.so")
    assert doctor.runtime("torch").found == "ImportError: libfoo.so"
    ending(1, 'noise\n{"ok": false, "version": null, "median_us": null, "error": "ValueError: x"}')
    assert doctor.runtime("torch").found == "ValueError: x"

    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired("x", 60)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert "hangs" in doctor.runtime("torch").found
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.runtime("torch").status == "broken" and doctor.runtime("openvino").status == "missing"
    assert all(c.status == "missing" and c.fix.startswith("pip install 'featherweight[") for c in doctor.extras())


def test_doctor_ends_with_1_if_something_essential_is_broken(monkeypatch):
    monkeypatch.setattr(doctor, "runtime", lambda name: doctor.Check(f"runtime {name}", "ok", "fine"))
    result = run("doctor", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["ok"]
    monkeypatch.setattr(
        doctor, "runtime", lambda name: doctor.Check(f"runtime {name}", "broken", "not installed", "pip install it")
    )
    result = run("doctor")
    assert result.exit_code == 1 and "fix: pip install it" in result.stdout


def test_what_the_instruction_sets_mean():
    assert "VNNI" in doctor.int8_words({"vnni": True, "avx2": True}) and "7 bits" in doctor.int8_words(
        {"avx2": True, "vnni": False}
    )
    assert "measured" in doctor.int8_words({}) and "openvino:bf16" in doctor.bf16_words({"amx_bf16": True})


def in_new_processes(code, times=5):
    """What each of several new processes prints after `code`: (the least processor seconds it had
    taken by then, modules it had loaded)."""
    code += "\nimport json, sys, time\nprint(json.dumps([time.process_time(), sorted(sys.modules)]))"
    found = []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GENEROUS_S)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return min(seconds for seconds, _ in found), set(found[0][1])


def test_the_package_is_imported_quickly():
    """In half a second: it is the few modules that make it so,
    the time is ten times what they take."""
    _, bare = in_new_processes("", 1)
    seconds, loaded = in_new_processes("import featherweight")
    assert not loaded & {*HEAVY, "asyncio", "multiprocessing", "rich", "typer"}
    assert "featherweight" in loaded and len(loaded - bare) < 100  # 50 when this was written
    assert seconds < 0.5


def test_help_imports_nothing_heavy():
    code = """
from typer.testing import CliRunner
from featherweight import cli
for words in (["--help"], ["optimize", "--help"], ["--version"]):
    assert CliRunner().invoke(cli.app, words).exit_code == 0
"""
    assert not in_new_processes(code, 1)[1] & set(HEAVY)


def test_help_is_quick():
    code = """
import contextlib, sys
from featherweight.cli import main
sys.argv = ["featherweight", "--help"]
with contextlib.suppress(SystemExit):
    main()
"""
    seconds, loaded = in_new_processes(code, 3)
    assert not loaded & set(HEAVY) and seconds < 1.5  # alone it takes a fifth of that
