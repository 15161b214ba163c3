"""The house: no circle between files, rooms import down only, and what hides behind an underscore
is taken by its own folder only."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.house import FLOORS, House

ROOT = Path(__file__).parent.parent
HOUSE = House(ROOT)
METHODS = ("strategies", "stoppers", "targets", "transforms", "models/criteria", "models/proxies")


def test_no_files_import_each_other():
    assert not HOUSE.circles()


def test_rooms_import_down_only_and_each_has_its_floor():
    assert not HOUSE.upward()
    rooms = {HOUSE.room(file) for file in HOUSE.files}
    assert rooms == {room for floor in FLOORS for room in floor}


def test_what_has_an_underscore_is_taken_by_its_own_folder_only():
    assert not HOUSE.trespassing()


@pytest.mark.parametrize("group", METHODS)
def test_methods_do_not_import_each_other(group):
    """One method, one file or folder: siblings meet in `base`,
    `shared` and what is hidden in their folder."""
    wrong = []
    for file in HOUSE.files:
        if not file.startswith(f"{group}/"):
            continue
        mine = _method(group, file)
        for to, _ in HOUSE.imports(file):
            if (
                to.startswith(f"{group}/")
                and _method(group, to) not in (mine, "base", "shared", "__init__")
                and "/_" not in to
            ):
                wrong.append(f"{file} imports {to}")
    assert not wrong, "\n".join(wrong)


def _method(group, file):
    return Path(file).relative_to(group).parts[0].removesuffix(".py")


def write(folder, **files):
    src = folder / "src" / "featherweight"
    for name, text in files.items():
        path = src / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(folder)


def test_the_ruler_itself(tmp_path):
    """Imports inside functions count, those for type checkers alone do not."""
    lazy = "def f():\n    from ..space import a\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..models import b\n"
    house = write(
        tmp_path,
        space__a="from ..models.b import x\n",
        models__b=lazy,
        space___c=typed,
        limits="from .space import _c\n",
    )
    assert house.circles() == [["models/b.py", "space/a.py"]]
    assert house.upward() == ["space/a.py imports models/b.py"]
    assert house.trespassing() == ["limits.py imports space/_c.py"]
    assert house.figures()["imports inside functions"] == 1 and house.figures()["of our own modules"] == 1


LIGHT = """
import importlib, sys
heavy = lambda: [m for m in sys.modules if m in ("torch", "transformers") or m.startswith("featherweight.models.")]
from featherweight import registry
for group in ("transforms", "strategies", "stoppers", "targets", "nets"):
    for name in registry.names(group):
        registry.find(group, name)
    assert not heavy(), (group, heavy())
rooms = ("study.calls", "engine.local", "cli", "report.html", "recipes", "optuna_sampler", "warm.portfolio")
for room in (*rooms, "measure.probe", "task.load", "testing"):
    importlib.import_module(f"featherweight.{room}")
    assert not heavy(), (room, heavy())
"""


def test_what_stands_above_the_torch_line_loads_no_torch():
    ended = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
