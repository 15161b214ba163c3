"""Settings as asked, as decided, and as read from a file that somebody has edited."""

import copy
import json

import pytest

import featherweight as fw
from featherweight.errors import InputError
from featherweight.study.command import command
from featherweight.study.config import Config
from featherweight.study.reading import read_config
from tests.report.fake_study import config, search_config


@pytest.mark.parametrize("settings", [config(), search_config()], ids=["optimize", "search"])
def test_round_trip(settings):
    made = Config.from_json(settings)
    again = Config.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and not made.differences(again)


def test_what_older_studies_lack_has_a_default():
    lacking = {k: v for k, v in config().items() if k not in ("device", "workers", "reuse", "store", "measure_seconds")}
    made = Config.from_json(lacking)
    assert made.mode == "optimize" and made.proxy is None and made.workers == 1 and made.reuse is True


ODD = {
    "mode": ["text", None, 5],
    "stopper": [5, [], "asha"],
    "proxy": ["naswot", {"a": 1}],
    "earlier": [[1], [None], 5],
    "minimize": [[1], [None], []],
    "workers": ["two", True, 0, float("nan")],
    "guesses": [[[{"a": 1}, "x"]], [5]],
    "target": [None, 5, {"text": "onnxruntime"}],
    "constraints": [[{"quantity": [], "bound": 1.0}], [{"quantity": "size"}], [{"quantity": "size", "bound": "x"}], 5],
    "budget": [None, {"trials": "x"}, {"trails": 3}],
    "seed": ["zero", 1.5],
    "measure_seconds": [0, "x"],
    "task_name": [5],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_a_damaged_file_is_a_clear_error(name, value):
    with pytest.raises(InputError):
        Config.from_json({**copy.deepcopy(config()), name: value})


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00bin")
    with pytest.raises(InputError, match="no text"):
        read_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("text", "runtimes", "threads"),
    [
        ("onnxruntime:threads=2,openvino", ("onnxruntime:threads=2", "openvino"), 1),
        ("onnxruntime:threads=2,openvino", ("onnxruntime:threads=2", "openvino:threads=4"), 4),
        ("onnxruntime", ("onnxruntime:threads=3",), 3),
        ("onnxruntime:threads=2", ("onnxruntime:threads=2",), 1),
        ("auto", ("onnxruntime:threads=2", "openvino:threads=2"), 2),
    ],
)
def test_threads_are_told_from_those_that_a_target_says_itself(text, runtimes, threads):
    settings = config()
    settings["target"] |= {"text": text, "runtimes": list(runtimes), "reference": runtimes[0]}
    assert Config.from_json(settings).settings().threads == threads


def test_the_command_says_numbers_in_full():
    settings = config(limits=[fw.max_latency("0.1234567x"), fw.max_size(1234567890123)])
    settings["budget"] |= {"trials": 1_234_567, "minutes": 12345.678}
    said = command(Config.from_json(settings))
    for words in ("--max-latency 0.1234567x", "--max-size 1234567890123B", "--trials 1234567", "--minutes 12345.678"):
        assert words in said


def test_how_the_original_is_trained_is_part_of_the_study():
    mine = Config.from_json(config() | {"original": {"recipe": [{"train": {"epochs": 3}}]}})
    other = Config.from_json(config() | {"original": {"recipe": [{"train": {"epochs": 30}}]}})
    assert mine.differences(other) == ["original"] and not mine.differences(mine)
    before = Config.from_json(config())  # of a version that did not say it
    assert before.original is None and not before.differences(mine) and not mine.differences(before)


def test_what_the_pace_of_the_machine_decides_makes_no_other_recipe():
    """The same command goes on where it was, also if the machine is slower now."""
    from featherweight import recipes
    from featherweight.study.request import _as_default

    fast, slow = recipes.cnn(4, batches=8), recipes.cnn(1, batches=3)
    assert _as_default(fast.to_json()) == _as_default(slow.to_json())
    assert _as_default(fast.to_json()) != _as_default(recipes.mlp(4).to_json())
    before, now = recipes.encoder(tables=False), recipes.encoder()
    assert before.to_json() != now.to_json() and _as_default(before.to_json()) == _as_default(now.to_json())
