"""Methods are found by name; what their authors get wrong is said with the file,
what it has and what it must have."""

import sys

import pytest
from typer.testing import CliRunner

import featherweight.transforms
from featherweight import cli, registry
from featherweight.cli import doctor
from featherweight.errors import FeatherweightError, InputError, MissingExtra
from featherweight.recipe import Recipe

GOOD = """
from dataclasses import dataclass
from featherweight.recipe import Transform

@dataclass(frozen=True)
class Shave(Transform):
    ratio: float = 0.5
"""
HALF = "from featherweight.strategies.base import Strategy\nclass Shave(Strategy): pass\n"
EXTRA = "from featherweight.errors import MissingExtra\nraise MissingExtra('razor', 'shaving')\n"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """What is found in a test is not known in the next."""

    def forget():
        for known in (registry.names, registry.find, registry.built_in):
            known.cache_clear()
        for name in [
            n for n in sys.modules if n.split(".")[0].startswith("razor") or n == "featherweight.transforms.shave"
        ]:
            del sys.modules[name]
        vars(featherweight.transforms).pop("shave", None)

    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package `razors` with one module and entry points of a group, one a line."""

    def made(text, entries="shave = razor_module:Shave", group="transforms", name="razors"):
        root = tmp_path / name
        (root / f"{name}-1.0.dist-info").mkdir(parents=True)
        (root / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (root / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(f"[featherweight.{group}]\n{entries}\n")
        (root / "razor_module.py").write_text(text)
        monkeypatch.syspath_prepend(str(root))
        return root / "razor_module.py"

    return made


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Puts a file of that text beside the built-in transforms, as transforms/shave.py."""

    def made(text):
        monkeypatch.setattr(featherweight.transforms, "__path__", [*featherweight.transforms.__path__, str(tmp_path)])
        (tmp_path / "shave.py").write_text(text)
        return tmp_path / "shave.py"

    return made


def refused(group="transforms", kind="shave"):
    """The error, with got and a way out."""
    with pytest.raises(InputError) as e:
        registry.find(group, kind)
    assert kind in e.value.what and e.value.got and (e.value.allowed or e.value.fix)
    # the others go on
    assert kind in registry.names(group) and registry.find("transforms", "train").__name__ == "Train"
    return e.value


def test_a_plug_in_and_a_file_are_found(install, file):
    install(GOOD, "shave = razor_module:Shave\n[featherweight.nets]\n")
    assert registry.find("transforms", "shave").kind == "shave" and "shave" in registry.names("transforms")
    recipe = Recipe(registry.find("transforms", "shave")(ratio=0.25))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_new_file_is_a_method(file):
    file(GOOD)
    assert registry.find("transforms", "shave").__name__ == "Shave"


def test_everything_of_ours_can_be_loaded():
    for group in registry.GROUPS:
        assert registry.names(group)
        for kind in registry.names(group):
            assert registry.find(group, kind).__name__ == registry.class_name(kind)
    with pytest.raises(InputError, match="nothing in transforms is called 'shave'") as e:
        registry.find("transforms", "shave")
    assert "prune" in e.value.allowed


# --- a file beside ours


def test_a_class_that_is_not_named_after_its_file(file):
    path = file(GOOD.replace("class Shave", "class Shaver") + "\nclass Helper: pass\n")
    error = refused()
    assert (
        error.got == f"{path}: class Helper, Shaver"
        and error.allowed == "class Shave(Transform)"
        and "name the class Shave" in error.fix
    )


def test_a_file_without_a_class(file):
    path = file("from featherweight.recipe import Transform\n")
    assert refused().got == f"{path}: no class"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "x = 1\nimport razor_that_is_not_there\n",
            "ModuleNotFoundError: No module named 'razor_that_is_not_there' ({path}:2)",
        ),
        ("def f(:\n", "SyntaxError: invalid syntax ({path}:1)"),
        ("\n\nvalue = missing\n", "NameError: name 'missing' is not defined ({path}:3)"),
        ("from featherweight.space import Float\nFloat(1, 0)\n", "step=None ({path}:2, raised at "),
        ("from featherweight.recipe import Nothing\n", "ImportError: cannot import name 'Nothing'"),
    ],
)
def test_a_file_that_cannot_be_imported(file, text, said):
    path = file(text)
    error = refused()
    assert "cannot be imported" in error.what and "featherweight/transforms/shave.py" in error.got
    assert said.format(path=path) in error.got and str(path) in error.got


@pytest.mark.parametrize(
    ("text", "said", "way"),
    [
        ("class Shave: pass\n", "is no Transform", "a subclass of featherweight.recipe.Transform"),
        ("def Shave(): pass\n", "is no Transform", "a subclass of featherweight.recipe.Transform"),
        (GOOD.replace("    ratio", '    kind = "razor"\n    ratio'), "called otherwise by its class", "class Shave"),
        (
            GOOD.replace("@dataclass(frozen=True)", ""),
            "no frozen dataclass",
            "@dataclass(frozen=True) above class Shave",
        ),
        (GOOD.replace("(frozen=True)", ""), "no frozen dataclass", "@dataclass(frozen=True) above class Shave"),
        (GOOD + "\nclass Sharp(Shave): pass\nShave = Sharp\n", "called otherwise by its class", "class Shave"),
        (
            GOOD + "\nclass Sharp(Shave):\n    kind = 'shave'\nShave = Sharp\n",
            "no frozen dataclass",
            "@dataclass(frozen=True)",
        ),
    ],
)
def test_a_class_that_is_no_method(file, text, said, way):
    path = file(text)
    error = refused()
    assert said in error.what and str(path) in error.got and way in f"{error.allowed} {error.fix}"


# --- a plug-in


@pytest.mark.parametrize(
    ("text", "entry", "said", "got"),
    [
        (GOOD, "shave = razor_gone:Shave", "cannot be imported", "ModuleNotFoundError: No module named 'razor_gone'"),
        ("import nothing_at_all\n", "shave = razor_module:Shave", "cannot be imported", "razor_module.py:1)"),
        (GOOD, "shave = razor_module:Shaver", "names what its module does not have", "has no attribute 'Shaver'"),
        (GOOD, "shave = razor_module:Shave.Deep", "names what its module does not have", "has no attribute 'Deep'"),
        (GOOD, "shave = razor_module", "names no class", "shave = razor_module"),
        (GOOD, "shave = razor-module:Shave", "names no class", "shave = razor-module:Shave"),
        ("class Shave: pass", "shave = razor_module:Shave", "is no Transform", "class Shave"),
        ("Shave = 3", "shave = razor_module:Shave", "is no Transform", "int 3"),
        (GOOD, "cut = razor_module:Shave", "called otherwise by its class", "Shave, whose kind is 'shave'"),
        (
            GOOD,
            "prune = razor_module:Shave",
            "more than one method called 'prune'",
            "built in: featherweight.transforms.prune",
        ),
    ],
)
def test_a_plug_in_that_is_wrong(install, text, entry, said, got):
    install(text, entry)
    error = refused(kind=entry.split()[0])
    assert said in error.what and got in error.got and f"{entry} of the package razors" in error.got


def test_two_plug_ins_of_one_name(install):
    install(GOOD, name="razors")
    install(GOOD, "shave = razor_module:Other", name="razors2")
    error = refused()
    assert "more than one method called 'shave'" in error.what
    assert (
        error.got
        == "shave = razor_module:Other of the package razors2; shave = razor_module:Shave of the package razors"
    )


def test_an_unfinished_class(install):
    install(HALF, group="strategies")
    assert "class Shave without propose" in refused("strategies").got


def test_a_missing_extra_says_how_to_install_it(install):
    install(EXTRA)
    with pytest.raises(MissingExtra, match="featherweight.shaving."):
        registry.find("transforms", "shave")


# --- the command line


def test_the_command_line_says_it_without_a_traceback(install, tmp_path, monkeypatch):
    path = install("import nothing_at_all\n")
    (tmp_path / "recipe.yaml").write_text("recipe:\n- shave:\n")
    (tmp_path / "task.py").write_text(
        "import featherweight as fw\ntask = fw.Task('t', model=lambda: None, data=lambda: None)\n"
    )
    monkeypatch.chdir(tmp_path)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        cli.app, ["optimize", "task.py", "--recipe", "recipe.yaml", "--trials", "1"]
    )
    assert result.exit_code == 2 and "Traceback" not in result.output and "bug" not in result.output
    assert "Error: the plug-in's method 'shave' cannot be imported" in result.output and f"{path}:1" in result.output


def test_doctor_loads_all_methods():
    assert [c.status for c in doctor.methods()] == ["ok"] and "plug-ins: none" in doctor.methods()[0].found


def test_doctor_names_methods_that_cannot_be_loaded(install, monkeypatch):
    install(GOOD, "shave = razor_module:Shave\nprune = razor_module:Shave")
    found = doctor.methods()
    assert [(c.name, c.status) for c in found] == [("methods", "ok"), ("transforms prune", "broken")]
    assert (
        "shave in transforms" in found[0].found
        and "of the package razors" in found[1].found
        and "another name" in found[1].fix
    )
    monkeypatch.setattr(doctor, "runtime", lambda name: doctor.Check(f"runtime {name}", "ok", "fine"))
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["doctor"])
    assert (
        result.exit_code == 1
        and "broken  transforms prune: there is more than one method called 'prune'" in result.output
    )
    assert "Traceback" not in result.output


def test_doctor_calls_a_missing_extra_missing(install):
    install(EXTRA)
    assert [c.status for c in doctor.methods()] == ["ok", "missing"]
    assert issubclass(MissingExtra, FeatherweightError)
