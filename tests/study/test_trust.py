"""Whose code a study's folder may run."""

import importlib.util
import json
import os
import py_compile
import shutil
import sys
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import featherweight as fw
from featherweight.cli import app
from featherweight.errors import InputError, TaskError
from featherweight.store.events import EventStore
from featherweight.study import trust
from featherweight.study.reading import read_state
from featherweight.study.trust import check_trusted, digests, signed
from tests.lean import BASELINES, reference_only
from tests.older import rewritten
from tests.report import fake_study

TINY = Path(__file__).parents[1] / "tasks" / "tiny.py"
FAST = {"measure_seconds": 0.1, "minimize": ["params", "size"], "strategy": "greedy", "constraints": [fw.max_drop(0.5)]}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a task, a study of it, its store, and the state folder of who began it."""
    root = tmp_path_factory.mktemp("begun")
    (root / "task.py").write_text(TINY.read_text() + "\nopen(__file__ + '.ran', 'w').close()\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BASELINES, reference_only)
        patch.setenv("FEATHERWEIGHT_CACHE", str(root / "store"))
        patch.setenv("XDG_STATE_HOME", str(root / "state"))
        fw.optimize(str(root / "task.py"), out=root / "study", budget=fw.Budget(trials=1), **FAST)
    return root


@pytest.fixture
def ours(begun, monkeypatch):
    """The same, with the task and the study as they were, in the hands of who began it."""
    monkeypatch.setattr(BASELINES, reference_only)
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(begun / "store"))
    monkeypatch.setenv("XDG_STATE_HOME", str(begun / "state"))
    text = (begun / "task.py").read_text()
    shutil.copytree(begun / "study", begun / "copy")
    (begun / "task.py.ran").unlink(missing_ok=True)
    yield begun
    (begun / "task.py").write_text(text)
    shutil.rmtree(begun / "copy")


def ran(root):
    return (root / "task.py.ran").exists()


def test_who_began_a_study_goes_on_with_it(ours):
    fw.Study.resume(ours / "copy")
    assert ran(ours)


def test_layout_and_comments_are_no_change(ours):
    (ours / "task.py").write_text("# a word\n\n" + (ours / "task.py").read_text())
    fw.Study.resume(ours / "copy")
    assert ran(ours)


def test_code_that_was_changed_is_named_and_does_not_run(ours):
    (ours / "task.py").write_text((ours / "task.py").read_text() + "\nprint('more')\n")
    with pytest.raises(InputError, match="not as it was when") as e:
        fw.Study.resume(ours / "copy")
    assert str(ours / "task.py") in e.value.got and "--trust" in e.value.fix and not ran(ours)


def test_somebody_elses_study_runs_nothing_until_it_is_trusted(ours, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(InputError, match="which you did not make here") as e:
        fw.Study.resume(ours / "copy")
    assert str(ours / "task.py") in e.value.got and not ran(ours)
    result = CliRunner().invoke(app, ["resume", str(ours / "copy")])
    assert result.exit_code == 2 and "--trust" in result.stderr and not ran(ours)
    result = CliRunner().invoke(app, ["optimize", str(ours / "copy" / "run.yaml"), "--out", str(tmp_path / "again")])
    assert result.exit_code == 2 and "--trust" in result.stderr and not ran(ours)
    fw.Study.resume(ours / "copy", trust=True)
    assert ran(ours)
    fw.Study.resume(ours / "copy")  # it was said once


def test_an_older_study_has_no_seal_and_is_asked_for(ours):
    """The same call again names the file itself, so it needs no trust, and seals the study."""
    state = read_state(ours / "copy")
    assert state.begun.code == signed(state.begun)
    told = state.begun.to_json() | {"code": None}
    rewritten(
        ours / "copy" / "study.db",
        ("UPDATE events SET body = ? WHERE kind = 'study'", json.dumps({"config": told})),
    )
    with pytest.raises(InputError, match="which you did not make here"):
        fw.Study.resume(ours / "copy")
    fw.optimize(str(ours / "task.py"), out=ours / "copy", budget=fw.Budget(trials=1), **FAST)
    fw.Study.resume(ours / "copy")


def test_a_run_file_with_another_file_in_it_is_not_ours(ours, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    said = yaml.safe_load((ours / "copy" / "run.yaml").read_text())
    evil = said | {"task": said["task"] | {"file": str(tmp_path / "evil.py")}}
    files = {**digests([evil["task"], evil["recipe"]])}
    for code, words in [(said["code"], "not as it was when"), (said["code"] | {"files": files}, "did not make here")]:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(evil | {"code": code}))
        result = CliRunner().invoke(app, ["optimize", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")])
        assert result.exit_code == 2 and words in result.stderr and "evil.py" in result.stderr


@pytest.mark.parametrize("what", ["run.yaml", "log"])
def test_what_is_taken_from_a_file_is_sealed_with_it(what, ours, tmp_path):
    """Another function of the same file is another's choice of what is called."""
    said = yaml.safe_load((ours / "copy" / "run.yaml").read_text())
    evil = said | {"task": said["task"] | {"name": "net"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(evil))
    told = json.dumps({"config": read_state(ours / "copy").begun.to_json() | {"task": evil["task"]}})
    rewritten(ours / "copy" / "study.db", ("UPDATE events SET body = ? WHERE kind = 'study'", told))
    words = ["optimize", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words if what == "run.yaml" else ["resume", str(ours / "copy")])
    assert result.exit_code == 2 and '"name": "net"' in result.stderr and "not as it was" in result.stderr
    assert not ran(ours)


def test_kind_options_and_names_in_recipes_are_sealed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "a.py").write_text("def net(): ...\ndef other(): ...\n")
    task = {"kind": "image-classification", "options": {"model": f"{tmp_path}/a.py:net", "size": [8, 8]}}
    recipe = {"recipe": [{"distill": {"data": f"{tmp_path}/a.py"}}]}
    config = replace(fake_study.study().state.begun, task=task, recipe=recipe)
    config = replace(config, code=json.loads(json.dumps(signed(config))))
    check_trusted(config, "here")
    for odd in (
        {"task": {**task, "options": {**task["options"], "model": f"{tmp_path}/a.py:other"}}},
        {"task": {**task, "options": {**task["options"], "size": [9, 9]}}},
        {"task": {**task, "kind": "text-classification"}},
        {"recipe": {"recipe": [{"distill": {"data": f"{tmp_path}/a.py:other"}}]}},
    ):
        with pytest.raises(InputError, match="not as it was"):
            check_trusted(replace(config, **odd), "here")
    part = {name: config.code[name] for name in ("files", "seal")}
    whole = {"files": {k: v for k, v in config.code.items() if k != "seal"}, "seal": config.code["seal"]}
    for code in (part, whole, {**config.code, "names": []}, {**config.code, "folders": [str(tmp_path)]}):
        with pytest.raises(InputError, match="did not make here"):
            check_trusted(replace(config, code=code), "here")


OTHERS = "\nfirst = fw.Task(name='a', model=net, data=data)\ndef clean_everything(): ...\n"


@pytest.mark.parametrize(("name", "runs"), [("task", True), ("first", True), ("clean_everything", False)])
def test_a_seal_of_before_covers_files_and_what_names_them_by_rights(name, runs, tmp_path, monkeypatch):
    """It has no names: what it goes on with is the usual one, or a task that the file makes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "task.py").write_text(TINY.read_text() + OTHERS)
    ref = {"file": str(tmp_path / "task.py"), "name": name}
    files = digests([ref])
    code = {"files": files, "seal": trust._files_seal(trust._key(), files)}
    config = replace(fake_study.study().state.begun, task=ref, code=code)
    if runs:
        check_trusted(config, "here")
    else:
        with pytest.raises(InputError, match="not as it was") as e:
            check_trusted(config, "here")
        assert f"task.py:{name}" in e.value.got
    (tmp_path / "task.py").write_text(TINY.read_text() + OTHERS + "first = 1\n")
    with pytest.raises(InputError, match="not as it was"):
        check_trusted(config, "here")


def test_a_study_with_a_seal_of_before_goes_on_and_gets_a_new_one(ours):
    config = read_state(ours / "copy").begun
    code = {"files": config.code["files"], "seal": trust._files_seal(trust._key(), config.code["files"])}
    told = json.dumps({"config": config.to_json() | {"code": code}})
    rewritten(ours / "copy" / "study.db", ("UPDATE events SET body = ? WHERE kind = 'study'", told))
    fw.Study.resume(ours / "copy")
    assert ran(ours) and read_state(ours / "copy").begun.code == config.code


def test_code_is_found_wherever_a_reference_names_it(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.py").write_text("import helper")
    (tmp_path / "helper.py").write_text("")
    task = {"kind": "text-classification", "options": {"model": f"{tmp_path}/a.py:NET", "data": "x.csv"}}
    recipe = {"recipe": [{"distill": {"data": f"{tmp_path}/b.py"}}, {"choice": [{"distill": {"data": "gone.py"}}]}]}
    assert [Path(p).name for p in digests([task, recipe])] == ["a.py", "b.py", "helper.py"]
    assert digests({"recipe": [{"quantize": {}}]}) == {}


def test_the_key_is_for_its_owner_alone_and_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = replace(fake_study.study().state.begun, task={"file": str(TINY), "name": "task"})
    assert signed(config) == signed(config) and list(signed(config)["files"]) == [str(TINY)]
    assert os.stat(tmp_path / "featherweight" / "key").st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "featherweight").iterdir()] == ["key"]


def test_without_a_place_for_a_key_nothing_is_sealed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert signed(fake_study.study().state.begun) is None


@pytest.mark.parametrize("name", ["evil.txt", "evil.py/", "evil.py/.", "evil"])
def test_a_task_file_is_looked_at_whatever_it_is_called(name, ours, tmp_path):
    file = tmp_path / name.split("/")[0]
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    told = read_state(ours / "copy").begun.to_json() | {"code": None, "task": {"file": f"{tmp_path}/{name}"}}
    body = json.dumps({"config": told})
    rewritten(ours / "copy" / "study.db", ("UPDATE events SET body = ? WHERE kind = 'study'", body))
    with pytest.raises(InputError, match="which you did not make here"):
        fw.Study.resume(ours / "copy")
    if not name.startswith("evil.py"):
        with pytest.raises(TaskError, match="Python file"):
            fw.Study.resume(ours / "copy", trust=True)
    assert not (tmp_path / "ran").exists() or name.startswith("evil.py")


def test_a_trial_that_names_code_of_its_own_runs_nothing(ours, tmp_path):
    """Though the study is ours, and its settings say nothing of it; nor when its user goes on by
    the call that began it."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    recipe = {"recipe": [{"distill": {"data": str(tmp_path / "evil.py"), "alpha": 1.0}}]}
    body = {"filling": {"prune.ratio": 0.25}, "note": {}, "recipe": recipe, "target": "onnxruntime"}
    store = EventStore(ours / "copy" / "study.db")
    store.append("proposed", body, trial=1, key="trial 1")
    store.close()
    with pytest.raises(InputError, match="not as it was when") as e:
        fw.Study.resume(ours / "copy", budget=fw.Budget(trials=2))
    assert "evil.py" in e.value.got
    with pytest.raises(InputError, match="not begun with") as e:
        fw.optimize(str(ours / "task.py"), out=ours / "copy", budget=fw.Budget(trials=2), **FAST)
    assert "evil.py" in e.value.got and not (tmp_path / "ran").exists()


def test_modules_of_folders_without_an_init_file_are_code_of_the_task(tmp_path):
    (tmp_path / "lib" / "deep").mkdir(parents=True)
    for name in ("lib/a", "lib/b", "lib/deep/c", "lib/unused"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "task.py").write_text("from lib.a import x\nfrom lib import b\nimport lib.deep.c\n")
    found = digests({"file": str(tmp_path / "task.py")})
    assert sorted(Path(p).stem for p in found) == ["a", "b", "c", "task"]


PARTS = """
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent / "aside"))
import helpers
import shared
import spaces.one
"""
FILES = {
    "helpers.py": "X = 1\n",
    "aside/shared.py": "from deeper import Y\n",
    "aside/deeper.py": "Y = 1\n",
    "spaces/one.py": "from .two import Z\nfrom . import three\n",
    "spaces/two.py": "Z = 1\n",
    "spaces/three.py": "",
}
MARK = "\nopen(__file__ + '.ran', 'w').close()\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder, a study whose task has modules in all places, and a copy of all of that."""
    folder = tmp_path_factory.mktemp("parted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BASELINES, reference_only)
        patch.setenv("FEATHERWEIGHT_CACHE", str(folder / "store"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        for name, text in {"task.py": PARTS + TINY.read_text(), **FILES}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        fw.optimize(str(folder / "task.py"), out=folder / "study", budget=fw.Budget(trials=1), **FAST)
        forget(folder)
    kept = tmp_path_factory.mktemp("kept") / "kept"
    shutil.copytree(folder, kept, symlinks=True)
    return folder, kept


def forget(folder):
    """Let what the folder holds be imported anew."""
    for name in ("helpers", "shared", "deeper", "spaces.one", "spaces.two", "spaces.three", "spaces"):
        sys.modules.pop(name, None)
    sys.path[:] = [p for p in sys.path if not p.startswith(str(folder))]


@pytest.fixture
def parted(made, monkeypatch):
    """The folder, as it was made."""
    folder, kept = made
    shutil.rmtree(folder)
    shutil.copytree(kept, folder, symlinks=True)
    monkeypatch.setattr(BASELINES, reference_only)
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(folder / "store"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    yield folder
    forget(folder)


def test_every_module_that_a_task_imports_is_sealed(parted):
    fw.Study.resume(parted / "study")
    sealed = read_state(parted / "study").begun.code["files"]
    assert set(sealed) == {str(parted / name) for name in ("task.py", *FILES)}


@pytest.mark.parametrize(
    "name", [*FILES, "helpers/__init__.py", "spaces/two/__init__.py", f"helpers{EXTENSION_SUFFIXES[0]}"]
)
def test_a_module_that_was_changed_or_put_before_another_does_not_run(name, parted):
    """Wherever it lies, and whatever Python would take for it."""
    (parted / name).parent.mkdir(exist_ok=True)
    (parted / name).write_text(FILES.get(name, "") + MARK)
    with pytest.raises(InputError, match="not as it was when") as e:
        fw.Study.resume(parted / "study")
    assert str(parted / name) in e.value.got and not list(parted.rglob("*.ran"))


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.UNCHECKED_HASH, py_compile.PycInvalidationMode.TIMESTAMP]
)
def test_what_is_kept_of_an_earlier_import_is_not_believed(mode, parted):
    module = parted / "helpers.py"
    sound, then = module.read_text(), module.stat()
    module.write_text((sound + MARK).ljust(len(sound)))
    py_compile.compile(str(module), importlib.util.cache_from_source(str(module)), invalidation_mode=mode)
    module.write_text(sound)
    os.utime(module, ns=(then.st_atime_ns, then.st_mtime_ns))
    cached = Path(importlib.util.cache_from_source(str(module)))
    if mode is py_compile.PycInvalidationMode.TIMESTAMP:  # as if it were of this source
        head = int(then.st_mtime).to_bytes(4, "little") + len(sound).to_bytes(4, "little")
        data = cached.read_bytes()
        cached.write_bytes(data[:8] + head + data[16:])
    fw.Study.resume(parted / "study")
    assert not list(parted.rglob("*.ran"))


def test_no_helper_takes_modules_from_the_current_folder(ours, tmp_path, monkeypatch):
    """A folder from somebody else, in which one looks around."""
    monkeypatch.chdir(tmp_path)
    for name in ("psutil", "numpy", "torch", "cloudpickle", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    exported = CliRunner().invoke(app, ["measure", str(ours / "copy" / "best"), "--seconds", "0.1"])
    assert exported.exit_code == 0, exported.stderr
    fw.Study.resume(ours / "copy", budget=fw.Budget(trials=2))
    assert not (tmp_path / "ran").exists()
