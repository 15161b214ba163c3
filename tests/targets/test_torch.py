"""The torch target: eager and compiled, and what it refuses."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch

from featherweight import machine
from featherweight.errors import TargetError
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.targets.torch import FILE, refuse_pickles
from featherweight.testing import check_target
from tests.targets.nets import NETS, attention, cnn, plan


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    module, example, rows = cnn()
    notes = Target("torch").load_runtime().export(Package(module), example, rows, Target("torch"), folder)
    return folder, module, rows, notes


@pytest.mark.parametrize("name", NETS)
def test_the_conformance_suite(name):
    module, example, _ = NETS[name]()
    check_target(Target("torch"), module.eval(), example)


def test_its_texts():
    assert str(Target.parse("torch:compile:threads=2")) == "torch:compile:threads=2"
    assert Target.parse("torch:bf16:compile").mode == "compile" and Target.parse("torch:bf16:compile").dtype == "bf16"


def test_what_it_cannot_do_is_said(exported, tmp_path):
    runtime = Target("torch").load_runtime()
    assert "no quantization plan" in runtime.problem(Target("torch"), plan("int8-static"))
    if not torch.cuda.is_available():
        assert "cuda" in runtime.problem(Target("torch", device="cuda"), None)
    with pytest.raises(TargetError, match="no model.pt2"):
        runtime.load(tmp_path, Target("torch"), 1)
    folder, _, rows, _ = exported
    session = runtime.load(folder, Target("torch"), 1)
    with pytest.raises(TargetError, match="refused these inputs"):
        session.run({k: v[:, :1, :3].numpy() for k, v in rows.items()})


def test_sixteen_bits_where_the_processor_has_none_is_refused(monkeypatch):
    monkeypatch.setattr(machine, "flags", lambda: frozenset({"avx2"}))
    assert "no bf16" in Target("torch").load_runtime().problem(Target("torch", "bf16"), None)


def test_sixteen_bits_compute_nearly_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "flags", lambda: frozenset({"avx512_bf16"}))
    module, example, rows = attention()
    notes = Target("torch").load_runtime().export(Package(module), example, rows, Target("torch", "bf16"), tmp_path)
    assert notes["parity"]["sqnr_db"] > 25 and notes["parity"]["max_abs_error"] > 0
    assert next(module.parameters()).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compiled_equals_eager(exported):
    folder, module, rows, _ = exported
    target = Target("torch", mode="compile")
    session = target.load_runtime().load(folder, target, 3)
    part = {k: v[:3] for k, v in rows.items()}
    with torch.no_grad():
        expected = module(*part.values()).numpy()
    np.testing.assert_allclose(session.run({k: v.numpy() for k, v in part.items()}), expected, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda(tmp_path):
    module, example, rows = cnn()
    target = Target("torch", device="cuda")
    notes = target.load_runtime().export(Package(module), example, rows, target, tmp_path)
    assert notes["parity"]["agreement"] == 1.0


def _edited(source, to, change):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as new:
        for info in old.infolist():
            body = change(info.filename, old.read(info))
            new.writestr(info.filename, body)


class Bomb:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_that_would_run_code_is_not_loaded(exported, tmp_path, capsys):
    folder, *_ = exported
    refuse_pickles(folder / FILE)

    def pickled_weight(name, body):
        if name.endswith("weights_config.json"):
            config = json.loads(body)
            next(iter(config["config"].values()))["use_pickle"] = True
            return json.dumps(config)
        return body

    def pickled_inputs(name, body):
        return pickle.dumps(Bomb()) if "sample_inputs" in name else body

    for number, change in enumerate((pickled_weight, pickled_inputs)):
        bad = tmp_path / str(number)
        bad.mkdir()
        _edited(folder / FILE, bad / FILE, change)
        with pytest.raises(TargetError, match="run code|trusted"):
            Target("torch").load_runtime().load(bad, Target("torch"), 1)
    (tmp_path / FILE).write_bytes(b"no archive")
    with pytest.raises(TargetError, match="trusted"):
        refuse_pickles(tmp_path / FILE)
    assert "code ran" not in capsys.readouterr().out
