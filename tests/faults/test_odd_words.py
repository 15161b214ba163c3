"""Odd command lines: a clear error, or what they ask for; never a traceback."""

import random
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from featherweight.cli import app

TINY = str(Path(__file__).parents[1] / "tasks" / "tiny.py")
ODD = [
    *("", " ", "0", "-1", "1e309", "nan", "inf", "-inf", "1e-309", "9" * 400, "0x10", "1_000", "1,2", ",", "½", "٣"),
    *(
        "%",
        "1%%",
        "-5%",
        "x",
        "0x",
        "-1x",
        "NaNx",
        "1MB",
        "-1MB",
        "1e400MB",
        "ms",
        "-3ms",
        "\x1b[31m",
        "\x00",
        "\ud800",
    ),
    *(
        "latency,latency",
        "size,",
        "=",
        "a=",
        "=1",
        "a=b=c",
        "{",
        "[]",
        "null",
        "true",
        "../..",
        "/",
        "~",
        "asha(eta=1e309)",
    ),
    *("asha(", "asha()()", "asha(eta=nan)", "asha(eta=0)", "import os", "${HOME}", "onnxruntime:batch=0", "auto,auto"),
]


def options(verb):
    """The names of a verb's options that take a value."""
    command = typer.main.get_command(app).commands[verb]
    return [
        p.opts[0] for p in command.params if p.param_type_name == "option" and not p.is_flag and p.opts[0] != "--out"
    ]


def lines(number, seed):
    """Odd command lines: one, or two, options with odd values."""
    rng = random.Random(seed)
    for _ in range(number):
        verb = rng.choice(["optimize", "optimize", "search"])
        words = [verb, TINY, "--dry-run"]
        for name in rng.sample(options(verb), rng.choice([1, 1, 2])):
            words += [name, rng.choice(ODD)]
        yield words


def check(words, tmp_path):
    if any("\x00" in w or "\ud800" in w for w in words):  # no system hands these to a program
        return
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words, "--out", str(tmp_path / "out")])
    said = result.output + result.stderr
    assert result.exit_code in (0, 2), (words, said)
    assert "bug" not in said and "Traceback" not in said and "\x1b" not in said, (words, said)
    assert result.exit_code == 0 or len(said) > 20, words
    assert not (tmp_path / "out").exists()


def test_odd_command_lines(tmp_path):
    for words in lines(25, seed=0):
        check(words, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_five_hundred_odd_command_lines(seed, tmp_path):
    for words in lines(50, seed):
        check(words, tmp_path)
