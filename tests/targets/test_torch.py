"""The torch target: eager and compiled, and what it refuses."""

import json
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch

from featherweight import machine
from featherweight.errors import TargetError
from featherweight.models.package import Package
from featherweight.pt2 import checked, may_evaluate
from featherweight.targets.base import Target
from featherweight.targets.torch import FILE
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


def check(file):
    with checked(file):
        pass


class Bomb:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_with_pickles_is_not_loaded(exported, tmp_path, capsys):
    folder, *_ = exported
    check(folder / FILE)

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
        check(tmp_path / FILE)
    assert "code ran" not in capsys.readouterr().out


CODE = "__import__('pathlib').Path('ran').touch()"


def _walk(data, key, change):
    """Every value under `key` of a program's JSON, changed in place."""
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        _walk(value, key, change)
    if isinstance(data, dict) and key in data:
        data[key] = change(data[key])


def _program(key, change):
    def changed(name, body):
        if not name.endswith("models/model.json"):
            return body
        program = json.loads(body)
        _walk(program, key, change)
        return json.dumps(program)

    return changed


def _enum(spec):
    """A container whose context is an enumeration of a module, which is imported for it."""
    context = json.dumps({"__enum__": True, "fqn": "evil:Evil", "name": "A"})
    return json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])


def _factory(spec):
    context = {"default_factory_module": "evil", "default_factory_name": "dict", "dict_context": []}
    node = {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}
    return json.dumps([1, node])


HOSTILE = {
    "an expression": _program("expr_str", lambda text: CODE),
    "a call in an expression": _program("expr_str", lambda text: f"Integer({CODE})"),
    "a large power": _program("expr_str", lambda text: "Pow(Integer(9), Pow(Integer(9), Integer(99)))"),
    "another operator": _program("target", lambda text: "torch.os.system"),
    "an operator that reads files": _program("target", lambda text: "torch.ops.aten.from_file.default"),
    "a name in generated source": _program("name", lambda text: f"x = {CODE}"),
    "a parameter in generated source": _program("parameter_name", lambda text: f'a", {CODE}), "b'),
    "an enumeration": _program("in_spec", _enum),
    "a factory": _program("out_spec", _factory),
    "what is not known": _program("schema_version", lambda version: {**version, "new": CODE}),
    "another key": _program("schema_version", lambda version: {**version, CODE: 1}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_program_that_could_run_code_is_refused_by_name(kind, exported, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('ran', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    _edited(exported[0] / FILE, tmp_path / FILE, HOSTILE[kind])
    with pytest.raises(TargetError, match="could run code"):
        Target("torch").load_runtime().load(tmp_path, Target("torch"), 1)
    assert not (tmp_path / "ran").exists()


def test_guards_of_a_program_are_not_compiled(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _edited(exported[0] / FILE, tmp_path / FILE, _program("guards_code", lambda guards: [f"{CODE} is None"]))
    session = Target("torch").load_runtime().load(tmp_path, Target("torch"), 1)
    session.run({k: v[:1].numpy() for k, v in exported[2].items()})
    assert not (tmp_path / "ran").exists()


def _two_directories(sound, evil):
    """An archive in which Python's reader, which takes the last directory, finds the sound members,
    and PyTorch's, which goes to where that is said to begin, the evil ones."""

    def parts(file):  # without directory entries of large files: (members, directory, its end)
        body = file.read_bytes()
        *_, count, size, start, _ = struct.unpack("<4s4H2LH", body[-22:])
        return body[:start], body[start : start + size], count

    (good, directory, count), (bad, other, _) = parts(sound), parts(evil)
    bad = bad.ljust(len(good), b"\0")
    assert len(directory) == len(other)
    moved, at = b"", 0
    while at < len(directory):
        head = bytearray(directory[at : at + 46])
        length = 46 + sum(struct.unpack_from("<3H", head, 28))
        (offset,) = struct.unpack_from("<L", head, 42)
        struct.pack_into("<L", head, 42, offset + len(bad) - len(good))
        moved += bytes(head) + directory[at + 46 : at + length]
        at += length
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(moved), len(bad), 0)
    return bad + other + good + moved + end


def test_what_was_checked_is_what_is_loaded(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, change in {"sound": lambda _, body: body, "evil": HOSTILE["an expression"]}.items():
        _edited(exported[0] / FILE, tmp_path / name, change)
    (tmp_path / FILE).write_bytes(_two_directories(tmp_path / "sound", tmp_path / "evil"))
    session = Target("torch").load_runtime().load(tmp_path, Target("torch"), 1)
    rows = {k: v[:1].numpy() for k, v in exported[2].items()}
    usual = Target("torch").load_runtime().load(exported[0], Target("torch"), 1)
    np.testing.assert_array_equal(session.run(rows), usual.run(rows))
    assert not (tmp_path / "ran").exists()


def test_members_that_two_readers_or_none_could_tell_apart_are_refused(exported, tmp_path):
    with zipfile.ZipFile(exported[0] / FILE) as z:
        members = {i.filename: z.read(i) for i in z.infolist()}
    (name,) = (n for n in members if n.endswith("models/model.json"))
    with zipfile.ZipFile(tmp_path / "case", "w") as z:
        for member, body in {**members, "model/extra/A": b"", "model/extra/a": b""}.items():
            z.writestr(member, body)
    with pytest.raises(TargetError, match="twice"):
        check(tmp_path / "case")
    with zipfile.ZipFile(tmp_path / "nested", "w") as z:
        for member, body in {**members, name: members[name] + b" " * 100_000}.items():
            z.writestr(member, body)
        large = z.getinfo(name)
        for n in range(3):
            again = zipfile.ZipInfo(f"model/extra/{n}")
            again.header_offset, again.CRC = large.header_offset, large.CRC
            again.file_size = again.compress_size = large.file_size
            z.filelist.append(again)
    with pytest.raises(TargetError, match="in each other"):
        check(tmp_path / "nested")


def test_other_members_and_older_formats_are_refused(exported, tmp_path):
    source = exported[0] / FILE
    with zipfile.ZipFile(source) as z:
        members = {i.filename: z.read(i) for i in z.infolist()}
    (first, *_) = (name for name in members if "/weight_0" in name)
    odd = {
        "more": {**members, "model/data/aotinductor/model/code.so": b"x"},
        "two folders": {**members, f"other/{first.partition('/')[2]}": b"x"},
        "older": {"version": b"8.0", "serialized_state_dict.pt": pickle.dumps(Bomb())},
    }
    for name, entries in odd.items():
        with zipfile.ZipFile(tmp_path / name, "w") as z:
            for member, body in entries.items():
                z.writestr(member, body)
        with pytest.raises(TargetError, match="could run code"):
            check(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as z:
        for member, body in members.items():
            z.writestr(member, body)
    with pytest.raises(TargetError, match="compressed"):
        check(tmp_path / "packed")


@pytest.mark.parametrize(
    "text",
    [
        "Integer(3)",
        "Mul(Integer(12), Symbol('s21', positive=True, integer=True))",
        "Add(Integer(-1), FloorDiv(Symbol('s0', integer=True), Integer(2)))",
        "Pow(Symbol('s0', integer=True), Integer(2))",
        "Float('0.5', precision=53)",
        "Mul(Rational(1, 2), ToFloat(Symbol('u3')))",
    ],
)
def test_expressions_of_sizes_may_be_evaluated(text):
    assert may_evaluate(text)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"Integer({CODE})",
        "Symbol('x').__class__",
        "(lambda: 1)()",
        "[1 for x in ()]",
        "Symbol('a b')",
        "Symbol(Symbol('x'))",
        "Add(*x)",
        "Add(**x)",
        "Add(Integer(1), evaluate=print)",
        "Integer(99999999999999999999)",
        "Pow(Pow(Symbol('s0'), Integer(9)), Integer(9))",
        "LShift(Integer(1), Integer(99999999999))",
        "f'{1}'",
        "(" * 500 + "1" + ")" * 500,
        "Add(" + "1," * 4000 + ")",
        "",
        "\0",
    ],
)
def test_other_expressions_may_not(text):
    assert not may_evaluate(text)
