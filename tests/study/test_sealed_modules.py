"""Which modules belong to a task's code, wherever they lie: each check in processes of their own,
as Python remembers what it has imported."""

import importlib.util
import json
import os
import py_compile
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from featherweight.child import environment

TASK = "import featherweight as fw\ntask = fw.Task(name='a', model=None, data=lambda: None)\n"
MARK = "open({!r}, 'w').close()\n"
PROGRAM = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from featherweight.study import trust
from featherweight.task.load import load_task
file, seal = map(Path, sys.argv[1:])
ref = {"file": str(file), "name": "task"}
config = SimpleNamespace(task=ref, recipe=None, original=None, baseline=None, extra_baselines=[], code=None)
if seal.exists():
    config.code = json.loads(seal.read_text())
    trust.check_trusted(config, "the study")
load_task(ref)
seal.write_text(json.dumps(trust.signed(config)))
"""


@pytest.fixture
def begun(tmp_path):
    """Load a task (whose text follows that of TASK) as a study does: the files that its seal has
    then, by their paths below the folder; or what is said against it."""

    def load(text=None, before="", python=sys.executable, prefix=PROGRAM):
        if text is not None:
            (tmp_path / "task").mkdir(exist_ok=True)
            (tmp_path / "seal").unlink(missing_ok=True)
            (tmp_path / "task" / "task.py").write_text(TASK + text)
        (tmp_path / "program.py").write_text(before + prefix)
        mine = {"XDG_STATE_HOME": str(tmp_path / "state")}
        words = [python, str(tmp_path / "program.py"), str(tmp_path / "task" / "task.py"), str(tmp_path / "seal")]
        done = subprocess.run(words, env={**environment(), **mine}, capture_output=True, text=True, cwd="/")
        if done.returncode:
            return done.stderr
        return sorted(str(Path(p).relative_to(tmp_path)) for p in json.loads((tmp_path / "seal").read_text())["files"])

    return load


def put(file, text=""):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def zipped(file, **modules):
    with zipfile.ZipFile(file, "w") as z:
        for name, text in modules.items():
            z.writestr(f"{name}.py", text)


def test_an_archive_of_modules_is_sealed_whole(begun, tmp_path):
    zipped(tmp_path / "lib.zip", zipped_helper="X = 1\n")
    text = f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib.zip')!r})\nimport zipped_helper\n"
    assert begun(text) == ["lib.zip", "task/task.py"]
    zipped(tmp_path / "lib.zip", zipped_helper=MARK.format(str(tmp_path / "ran")))
    assert "lib.zip" in begun() and "not as it was" in begun() and not (tmp_path / "ran").exists()


# what imports a module of Python that the task does not name: through C, or Python itself
LAZY = {
    "_strptime": "import time\ntime.strptime('2020', '%Y')\n",
    "wave": "import importlib\nimportlib.import_module('wave')\n",
}


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("where", ["task", "aside"])
def test_what_others_import_comes_from_python_and_its_packages(name, where, begun, tmp_path):
    """Though a file of that name lies in a folder that comes first."""
    (tmp_path / "aside").mkdir()
    begun(f"import sys\nsys.path.insert(0, {str(tmp_path / 'aside')!r})\n{LAZY[name]}")
    put(tmp_path / where / f"{name}.py", MARK.format(str(tmp_path / "ran")))
    assert begun() == ["task/task.py"] and not (tmp_path / "ran").exists()


def test_a_users_module_goes_before_an_installed_one_of_its_name(begun, tmp_path):
    put(tmp_path / "task" / "wave.py", "OWN = 1\n")
    put(tmp_path / "task" / "parts" / "colorsys.py", "from wave import OWN\n")
    text = "import wave\nfrom parts.colorsys import OWN\nfrom importlib import import_module as i\nassert wave.OWN\n"
    put(tmp_path / "task" / "named_later.py", "X = 1\n")
    text += "assert i('named_' + 'later').X\n"
    assert begun(text) == [f"task/{name}.py" for name in ("named_later", "parts/colorsys", "task", "wave")]
    assert isinstance(begun(), list)


@pytest.mark.parametrize("folder", ["aside", "empty"])
def test_a_file_put_before_what_a_task_imports_is_not_run(folder, begun, tmp_path):
    """In whichever folder Python looks for it."""
    put(tmp_path / "aside" / "aside_helper.py", "import wave\n")
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / name) for name in ("aside", "empty")]
    assert begun(f"import sys\nsys.path[:0] = {paths}\nimport aside_helper\n") == [
        "aside/aside_helper.py",
        "task/task.py",
    ]
    put(tmp_path / folder / "wave.py", MARK.format(str(tmp_path / "ran")))
    assert f"{folder}/wave.py" in begun() and not (tmp_path / "ran").exists()


def test_modules_that_were_there_before_the_task_are_its_own(begun, tmp_path):
    put(tmp_path / "aside" / "early.py", "import early_too\n")
    put(tmp_path / "aside" / "early_too.py")
    put(tmp_path / "aside" / "another.py")
    before = f"import sys\nsys.path.insert(0, {str(tmp_path / 'aside')!r})\nimport early, another\n"
    text = "from early import early_too\nimport multiprocessing\n"
    assert begun(text, before) == ["aside/early.py", "aside/early_too.py", "task/task.py"]
    put(tmp_path / "aside" / "early_too.py", "X = 2\n")
    assert "early_too.py" in begun(None, before)


def test_the_program_that_calls_belongs_to_a_task_that_imports_it(begun):
    prefix = f"if __name__ == '__main__':\n{''.join('    ' + line + chr(10) for line in PROGRAM.splitlines())}"
    assert begun("import multiprocessing\n", prefix=prefix) == ["task/task.py"]
    before = "import sys, os\nsys.path.insert(0, os.path.dirname(__file__))\n"
    assert begun("import program\n", before, prefix=prefix) == ["program.py", "task/task.py"]


def environment_at(folder, *paths):
    """A virtual environment in a folder that finds what is installed here in another's way."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(map(str, paths)))
    return str(folder / "bin" / "python")


def test_a_project_in_which_its_environment_lies_is_the_users(begun, tmp_path):
    put(tmp_path / "task" / "own_helper.py", "X = 1\n")
    put(tmp_path / "editable" / "own_package" / "__init__.py")
    put(tmp_path / "site-packages" / "vendored.py")
    python = environment_at(tmp_path / "task", sysconfig.get_paths()["purelib"], tmp_path / "editable")
    text = "import own_helper, own_package, sys, yaml, numpy\n"
    text += f"sys.path.insert(0, {str(tmp_path / 'site-packages')!r})\nimport vendored\n"
    package = "editable/own_package/__init__.py"
    files = [package, "site-packages/vendored.py", "task/own_helper.py", "task/task.py"]
    assert begun(text, python=python) == files
    helper = tmp_path / "task" / "own_helper.py"
    sound, then = helper.read_text(), helper.stat()
    helper.write_text(MARK.format(str(tmp_path / "ran")))
    py_compile.compile(
        str(helper), importlib.util.cache_from_source(str(helper)), invalidation_mode=py_compile.PycInvalidationMode(3)
    )
    helper.write_text(sound)
    os.utime(helper, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert begun(None, python=python) == files and not (tmp_path / "ran").exists()


FINDER = """
import sys
from importlib.util import spec_from_file_location
class Finder:
    def find_spec(name, path=None, target=None):
        return spec_from_file_location(name, {!r}) if name == "elsewhere" else None
sys.meta_path.append(Finder)
"""


def test_no_finder_brings_cached_bytecode_of_a_users_module(begun, tmp_path):
    """Those of editable installs look at no path."""
    module = tmp_path / "aside" / "elsewhere.py"
    put(module, MARK.format(str(tmp_path / "ran")))
    py_compile.compile(str(module), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    put(module, "X = 1\n")
    assert begun("import elsewhere\n", FINDER.format(str(module))) == ["aside/elsewhere.py", "task/task.py"]
    assert not (tmp_path / "ran").exists()
