"""The pages on extending say what works: files are shown as they are, and a newcomer's commands do
what they are there for."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from featherweight import registry
from scripts.house import FLOORS
from tests.waiting import GENEROUS_S

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "featherweight"
EXTRAS = ROOT / "examples" / "extending"
PAGES = {page.stem: page.read_text() for page in sorted((ROOT / "docs" / "extending").glob("*.md"))}
KINDS = {"transform": "clip_weights", "strategy": "climb", "criterion": "activity", "target": "onnx_reference"}
GUIDES = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs/architecture.md",
    *(f"docs/extending/{name}.md" for name in KINDS),
]
# they name files that do not exist yet, and such as exist no more
NOT_NOW = ("README.md", "CHANGELOG.md")


def shown(page):
    """{path: text} of the files that a page shows: a line with the path comes before the block."""
    return dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", page, re.S | re.M))


def blocks(page, language):
    """The other blocks of a language."""
    return re.findall(rf"(?<!`:\n\n)^```{language}\n(.*?)^```$", page, re.S | re.M)


def lines(page):
    """The command lines of a page."""
    return [line for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines() if line]


def beginning(page, *words):
    """The arguments, after those words, of the command lines that begin with them."""
    split = [shlex.split(line) for line in lines(page)]
    return [args[len(words) :] for args in split if tuple(args[: len(words)]) == words]


def smaller(args, folder="runs"):
    """A command line with the smallest task, and folders of its own."""
    assert args[0] != "optimize" or "examples/digits.py" in args
    return [
        a.replace("examples/digits.py", "tests/tasks/tiny.py")
        .replace("runs/", f"{folder}/")
        .replace("deployed/", f"{folder}/deployed")
        for a in args
    ]


def run(command, path, cwd=ROOT, **env):
    """A command in a process of its own, which finds packages in the folders of `path` first.
    The process, once it has ended well."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]), **env}
    done = subprocess.run(command, cwd=cwd, env=found, capture_output=True, text=True, timeout=GENEROUS_S)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which the plug-in is installed: its files and what pip writes of
    its pyproject.toml."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXTRAS / "pyproject.toml").read_text())["project"]
    info = site / f"featherweight_extras-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    shutil.copytree(EXTRAS / "featherweight_extras", site / "featherweight_extras")
    return site


# --- what the pages say


def test_there_is_a_page_for_each_kind():
    assert set(PAGES) == set(KINDS)


def test_files_are_shown_as_they_are():
    for name, page in PAGES.items():
        files = shown(page)
        assert {
            f"examples/extending/{folder}{KINDS[name]}.py" for folder in ("featherweight_extras/", "tests/test_")
        } <= set(files)
        for path, text in files.items():
            assert (ROOT / path).read_text() == text, f"{name}.md shows {path} otherwise"
    there = {
        str(p.relative_to(ROOT)) for p in EXTRAS.rglob("*") if p.suffix in (".py", ".json") and p.name != "__init__.py"
    }
    assert there == {path for page in PAGES.values() for path in shown(page)}


def test_entry_points_are_those_of_the_package():
    every = tomllib.loads((EXTRAS / "pyproject.toml").read_text())["project"]["entry-points"]
    told = {}
    for name, page in PAGES.items():
        (block,) = blocks(page, "toml")
        told |= tomllib.loads(block)["project"]["entry-points"]
        assert list(told.values())[-1].keys() == {KINDS[name]}
    assert told == every


def test_every_command_is_of_a_kind_that_is_executed_here():
    for page in PAGES.values():
        for line in lines(page):
            assert line.startswith(
                (
                    "sed ",
                    "cp ",
                    "featherweight ",
                    "pip install -e examples/extending",
                    "python -m pytest ",
                    "python scripts/",
                )
            ), line


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_names_is_there(guide):
    text = (ROOT / guide).read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        assert link.startswith("http") or (ROOT / guide).parent.joinpath(link).exists(), link
    if guide not in NOT_NOW:
        for path in re.findall(r"`([\w.-]+/[\w./-]*)`", prose):
            assert any((ROOT / base / path).exists() for base in (".", "src/featherweight")), path
    if guide != "README.md":
        assert max(map(len, text.splitlines())) <= 100


def test_a_line_for_each_room():
    rooms = re.findall(
        r"^\| `(\w+)` \| [^|]+ \|$", (ROOT / "docs" / "architecture.md").read_text().partition("## The house")[2], re.M
    )
    assert rooms == [room for floor in FLOORS[1:] for room in floor]


def test_what_the_architecture_names_is_there():
    """Each function, class and field by its last name, as `Search.propose`;
    each group of methods."""
    code = "".join(path.read_text() for path in SRC.rglob("*.py"))
    defined = set(re.findall(r"^ *(?:def|class) (\w+)", code, re.M)) | set(
        re.findall(r"^ *(\w+)(?:: | = )", code, re.M)
    )
    told = (ROOT / "docs" / "architecture.md").read_text().partition("## How one candidate flows")[2]
    paths = re.findall(r"`((?:[A-Za-z]\w*\.)*[A-Za-z]\w*)`", told)
    assert len(paths) > 40
    for path in paths:
        group, name = path.removeprefix("featherweight."), path.rpartition(".")[2]
        named = group in registry.GROUPS if group != path else name in ("fw", "featherweight")
        assert named or {name, f"_on_{name}"} & defined, path  # the latter: kinds of events


def test_what_moved_is_where_the_change_log_says():
    table = re.findall(r"^\| `[^|]* \| ([^|]*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    now = [SRC / path.replace(".", "/") for row in table for path in re.findall(r"`([\w.]+)`", row)]
    assert len(now) > 20
    for path in now:
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), path


# --- a package of one's own


def test_the_plug_in_passes_its_tests(site):
    files = [
        arg
        for page in PAGES.values()
        for args in beginning(page, "python", "-m", "pytest")
        for arg in args
        if arg.startswith("examples")
    ]
    assert len(files) == len(KINDS)
    done = run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files], [site])
    assert "passed" in done.stdout and "skipped" not in done.stdout


COMMANDS = """
import json, sys
from typer.testing import CliRunner
from featherweight import cli
from featherweight.cli import doctor
assert [check.status for check in doctor.methods()] == ["ok"]
for args in json.loads(sys.argv[1]):
    result = CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, args)
    assert result.exit_code == 0, f"{args}: {result.output}"
    print(result.stdout)
"""


def test_its_methods_are_found_and_its_searches_are_understood(site):
    commands = [args for page in PAGES.values() for args in beginning(page, "featherweight") if args[0] != "export"]
    assert len(commands) == 2 * len(KINDS)
    told = [[*smaller(args), "--dry-run"] if args[0] == "optimize" else args for args in commands]
    done = run([sys.executable, "-c", COMMANDS, json.dumps(told)], [site])
    for kind in KINDS.values():
        assert f"featherweight_extras.{kind}." in done.stdout


ALL_FOUR = """
import sys
from unittest import mock
import featherweight as fw
from tests.lean import BASELINES, reference_only
recipe = fw.Recipe(
    fw.Prune(ratio=fw.Choice(0.25, 0.5), criterion="activity", round_to=4), fw.ClipWeights(multiple=fw.Float(2.0, 8.0)),
)
with mock.patch(BASELINES, reference_only):
    study = fw.optimize(
        "tests/tasks/tiny.py", recipe, strategy="climb", target="onnx_reference",
        constraints=[fw.max_drop(0.99)], minimize=["size"],
        budget=fw.Budget(trials=2), measure_seconds=0.1, workers=1, out=sys.argv[1],
    )
study.best.export(sys.argv[2])
"""


@pytest.mark.slow
def test_a_search_with_all_four_of_them(site, tmp_path):
    out, deployed = tmp_path / "run", tmp_path / "deployed"
    run([sys.executable, "-c", ALL_FOUR, str(out), str(deployed)], [site, ROOT])
    front = json.loads((out / "front.json").read_text())
    assert (
        front["strategy"] == "climb"
        and front["trials"]["complete"] == 2
        and front["best"]["target"] == "onnx_reference"
    )
    notes = {note["step"]: note for note in json.loads((deployed / "manifest.json").read_text())["notes"]}
    assert notes["clip_weights"]["clipped"] >= 0 and front["best"]["params"] < front["baseline"]["params"]
    card = (deployed / "MODEL_CARD.md").read_text()
    code, _ = re.findall(r"```python\n(.*?)```", card, re.S)
    assert "ReferenceEvaluator" in code and run([sys.executable, "-c", code], [], deployed).stdout.strip() == "(1, 4)"


LEAN = """
import sys
from unittest import mock
from tests.lean import BASELINES, reference_only
with mock.patch(BASELINES, reference_only):
    exec(sys.argv[1], {"__name__": "__main__"})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_searches_of_a_page_run(name, site, tmp_path):
    """As they are written, with one trial, a smaller task, and no baseline but the one that all
    is compared with."""
    (code,) = blocks(PAGES[name], "python")
    code, n = re.subn(r"trials=\d+, minutes=\d+\)", "trials=1), measure_seconds=0.1", code)
    assert n == 1 and "examples/digits.py" in code and 'out="runs/' in code
    code = code.replace("examples/digits.py", "tests/tasks/tiny.py").replace('out="runs/', f'out="{tmp_path}/')
    run([sys.executable, "-c", LEAN, code], [site, ROOT])
    told = [smaller(args, tmp_path) for args in beginning(PAGES[name], "featherweight")[1:]]
    for args in told:
        if args[0] == "optimize":
            args[args.index("--trials") + 1] = "1"
            args += ["--max-drop", "0.99"]
    lean = "import sys\n" + f"sys.argv[1] = {json.dumps(told)!r}\n" + COMMANDS
    run([sys.executable, "-c", LEAN, lean], [site, ROOT])
    assert len(list(tmp_path.glob("*/front.json"))) == 2
    assert name != "target" or (tmp_path / "deployed" / "MODEL_CARD.md").is_file()


# --- Featherweight itself


def test_a_file_and_a_test_are_a_method(tmp_path):
    """In a copy of this repository, in which nothing else changes."""
    for folder in ("src", "tests", "scripts", "docs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    tests, scripts = [], []
    for page in PAGES.values():
        for line in lines(page):
            if line.startswith(("sed ", "cp ")):
                run(["sh", "-c", line], [], tmp_path)
        tests += [
            arg for args in beginning(page, "python", "-m", "pytest") for arg in args if not arg.startswith("examples")
        ]
        scripts += [
            args[0] for args in (shlex.split(line)[1:] for line in lines(page)) if args[0].startswith("scripts/")
        ]
    assert len({p for p in tmp_path.rglob("*") if p.is_file()} - before) == 2 * len(KINDS)
    src = [tmp_path / "src"]
    done = run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *dict.fromkeys(tests)], src, tmp_path)
    assert "passed" in done.stdout and "skipped" not in done.stdout
    for script in dict.fromkeys(scripts):
        run([sys.executable, script], src, tmp_path)
    methods = (tmp_path / "docs" / "methods.md").read_text()
    assert all(f"### {kind}\n" in methods for kind in KINDS.values())
    assert "ClipWeights" in (tmp_path / "src" / "featherweight" / "__init__.pyi").read_text()
