"""The command line in the report makes the same study again."""

import shlex

from featherweight.study.command import command
from featherweight.study.config import Config
from tests.report.fake_study import config, search_config


def said(settings, out=None):
    return command(Config.from_json(settings), out)


def test_command_is_what_the_study_was_asked():
    settings = {**config(), "reuse": False}
    settings["target"] |= {"text": "auto", "reference": "onnxruntime:threads=2", "runtimes": ["onnxruntime:threads=2"]}
    line = shlex.split(said(settings, "runs/my digits"))
    for option, value in {
        "--max-drop": "0.01",
        "--max-latency": "0.7x",
        "--max-size": "0.5x",
        "--minimize": "latency,size",
        "--target": "auto",
        "--threads": "2",
        "--trials": "40",
        "--minutes": "3",
        "--seed": "0",
        "--out": "runs/my digits",
    }.items():
        assert line[line.index(option) + 1] == value
    assert line[2] == "examples/digits.py" and "--no-reuse" in line


def test_command_of_a_built_in_kind_and_of_a_program():
    settings = config() | {
        "task": {
            "kind": "text-classification",
            "options": {"model": "m", "data": "d.csv", "text_column": None, "epochs": 2},
        }
    }
    assert said(settings).startswith(
        "featherweight optimize --task text-classification --model m --data d.csv --task-option epochs=2 "
    )
    assert said({**config(), "task": None}).startswith("#")


def test_the_command_of_a_search():
    line = shlex.split(said(search_config(), "runs/s"))
    assert line[:2] == ["featherweight", "search"]
    after = dict(zip(line, line[1:], strict=False))
    assert (
        after["--proxy"] == "naswot:0.25" and after["--stopper"] == "asha(eta=2)" and after["--strategy"] == "adaptive"
    )
    assert (
        after["--guess"] == '{"train.lr": 0.01}@2'
        and after["--minimize"] == "error,latency"
        and "--max-drop" not in line
    )
