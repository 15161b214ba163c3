"""Files that want too much, or to be run: each is refused with its reason, soon, within memory."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from featherweight.cli import app
from featherweight.errors import TaskError
from featherweight.report.console import SafeConsole
from featherweight.task.kinds._pretrained import in_time, load_config, load_model, load_tokenizer
from featherweight.task.kinds._table import labelled_texts
from featherweight.task.kinds.image_classification import image_classification
from tests import hostile

NET = (
    "from torch import nn\ndef net(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, num_classes))\n"
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    return hostile.tiny_model(tmp_path_factory.mktemp("hf") / "tiny")


def photos(folder):
    """A net and two folders with photos; the folder of one class."""
    from PIL import Image

    (folder / "net.py").write_text(NET)
    for name in "ab":
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            values = np.random.default_rng(i).integers(0, 255, (6, 8), np.uint8)
            Image.fromarray(values).save(folder / "photos" / name / f"{i}.png")
    return folder / "photos" / "a"


@pytest.mark.parametrize("kind", hostile.PHOTOS, ids=str)
def test_photos(kind, tmp_path):
    kind.write(photos(tmp_path))
    with pytest.raises(TaskError, match=rf"(?s)cannot be read.*evil.*({kind.says})"):
        task = image_classification(f"{tmp_path / 'net.py'}:net", tmp_path / "photos", size=(6, 8))
        task.splits()


def test_a_photo_of_another_known_format_than_its_name_says_is_read(tmp_path):
    from PIL import Image

    folder = photos(tmp_path)
    with Image.open(folder / "0.png") as image:
        image.save(folder / "evil.png", format="JPEG")
    task = image_classification(f"{tmp_path / 'net.py'}:net", tmp_path / "photos")
    assert task.splits().report["samples"] == 9


@pytest.mark.parametrize("kind", hostile.TABLES, ids=str)
def test_tables(kind, tmp_path):
    if "parquet" in kind.name:
        pytest.importorskip("pyarrow", reason="the extra llm is not installed")
    kind.write(tmp_path)
    (file,) = tmp_path.iterdir()
    with pytest.raises(TaskError, match=kind.says) as e:
        labelled_texts(file, None, None)
    assert len(str(e.value)) < 3000


@pytest.mark.parametrize("kind", hostile.MODELS, ids=str)
def test_model_folders(kind, tiny, tmp_path, monkeypatch):
    from transformers import AutoModel

    monkeypatch.setattr("featherweight.task.kinds._pretrained._SLOWEST_S", 1.0)
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    kind.write(folder)
    with pytest.raises(TaskError, match=kind.says) as e:
        load_config(folder)
        load_model(AutoModel, folder)
        tokenizer = load_tokenizer(folder)
        in_time(lambda some: tokenizer(some)["input_ids"], ["w" * 60 + "!"])
    assert len(str(e.value)) < 3000


def test_a_tokenizer_that_fails_or_hangs(monkeypatch):
    with pytest.raises(TaskError, match="(?s)the tokenizer failed.*ZeroDivisionError"):
        in_time(lambda texts: 1 / 0, ["a"])
    monkeypatch.setattr("featherweight.task.kinds._pretrained._SLOWEST_S", 0.1)
    with pytest.raises(TaskError, match="does not come to an end"):
        in_time(lambda texts: time.sleep(5.0), ["a"])
    assert in_time(len, ["a", "b"]) == 2


@pytest.mark.parametrize("kind", hostile.ARTIFACTS, ids=str)
def test_artifacts(kind, tmp_path):
    kind.write(tmp_path)
    began = time.monotonic()
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["measure", str(tmp_path), "--seconds", "0.2", "--timeout", "3"]
    )
    refused(result.exit_code, result.stderr, kind)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("kind", hostile.SETTINGS, ids=str)
def test_settings(kind, tmp_path):
    kind.write(tmp_path)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["optimize", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    )
    refused(result.exit_code, result.stderr, kind)
    assert not (tmp_path / "out").exists()


def refused(code, said, kind):
    assert code in (1, 2) and "bug" not in said and "Traceback" not in said, said
    assert re.search(kind.says, said), said
    assert "\x1b" not in said and len(said) < 4000


def test_a_terminal_gets_no_command_from_what_is_printed(capsys):
    from rich.table import Table
    from rich.text import Text

    console, evil = SafeConsole(force_terminal=True, width=60), "\x1b[2J\x1b]0;evil\x07\x9b31m\x7f\rred"
    table = Table("a", title=evil)
    table.add_row(Text(evil, style="bold"))
    for what in (evil, Text(evil), table):
        console.print(what, markup=False)
    said = capsys.readouterr().out
    assert "red" in said and "\x1b[1m" in said  # styles are the console's own
    assert not [c for c in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\x7f", "\r") if c in said]


# --- the same by the command line, with a clock and a scale


SECONDS, BYTES = 10.0, 10**9
USUAL: dict[str, tuple[float, int]] = {}  # seconds and bytes of a good file, by group
GROUPS = {
    "photos": hostile.PHOTOS,
    "tables": [*hostile.TABLES, hostile.COLOURS],
    "models": hostile.MODELS,
    "artifacts": hostile.ARTIFACTS,
    "settings": hostile.SETTINGS,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "kind"), [pytest.param(g, k, id=f"{g}-{k}") for g, kinds in GROUPS.items() for k in kinds]
)
def test_no_file_takes_the_machine(group, kind, tiny, tmp_path):
    """Beyond what a well-behaved file of its kind takes."""
    if group not in USUAL and group != "settings":
        code, said, *usual = watched(command(group, None, tiny, tmp_path / "good"))
        assert code == 0, said
        USUAL[group] = usual
    code, said, seconds, most = watched(command(group, kind, tiny, tmp_path / "evil"))
    refused(code, said, kind)
    usual, used = USUAL.get(group, (0.0, 0))
    print(f"{group} {kind}: {seconds - usual:+.1f} s, {(most - used) / 1e6:+.0f} MB: {said.splitlines()[0][:80]}")
    # what is run has a minute; on a busy machine all takes longer
    assert seconds - usual < max(70.0 if kind.name == "no end" else SECONDS, usual)
    assert most - used < BYTES


def command(group, kind, tiny, folder):
    """The words of the command that reads a hostile file, or (None) a good one."""
    folder.mkdir()
    if group == "photos":
        inside = photos(folder)
        words = [
            "image-classification",
            "--task-option",
            "size=[6,8]",
            "--model",
            f"{folder / 'net.py'}:net",
            "--data",
            folder / "photos",
        ]
    elif group == "artifacts":
        inside = hostile.sound_artifact(folder)
        words = []
    else:
        inside = shutil.copytree(tiny, folder / "tiny") if group == "models" else folder
        lines = "".join(f"{'w' * 60}! w{i % 30} w{i // 30},{i % 2}\n" for i in range(40))
        (folder / "fine.csv").write_text(f"text,label\n{lines}")
        words = ["text-classification", "--model", inside if group == "models" else tiny, "--data", folder / "fine.csv"]
    if kind is not None:
        kind.write(inside)
        if group == "tables":
            (words[-1],) = folder.glob("evil.*")
    if group == "artifacts":
        return ["measure", folder, "--seconds", "0.2"]
    if group == "settings":
        return ["optimize", folder / "run.yaml", "--out", folder / "out"]
    return ["optimize", "--task", *words, "--dry-run", "--out", folder / "out"]


def watched(words):
    """Run the command; its code, what it said on stderr, seconds and bytes at most of it with all
    its children."""
    began, most = time.monotonic(), 0
    line = [sys.executable, "-m", "featherweight", *map(str, words)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(line, stderr=errors, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "200"}) as p,
    ):
        process = psutil.Process(p.pid)
        while p.poll() is None:
            with suppress(psutil.NoSuchProcess):
                family = [process, *process.children(recursive=True)]
                most = max(most, sum(f.memory_info().rss for f in family))
            if time.monotonic() - began > 150:
                p.kill()
            time.sleep(0.02)
        errors.seek(0)
        said = errors.read()  # Rust tells of its panics by itself
        return p.returncode, said[max(0, said.find("Error: ")) :], time.monotonic() - began, most
