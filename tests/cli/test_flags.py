"""Errors of a kind of task name the options as they are written on the command line."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from featherweight.cli import app
from featherweight.cli._flags import in_flags
from featherweight.errors import InputError, TaskError
from featherweight.recipes import ptq


@pytest.mark.parametrize(
    ("kind", "said", "wanted"),
    [
        ("image-classification", "give the size: size=224", "give the size: --task-option size=224"),
        ("tabular", "name it with label_column", "name it with --label-column"),
        ("tabular", "label_column='x'", "--label-column 'x'"),
        ("tabular", "name group_column", "name --task-option group_column=.."),
        (
            "tabular",
            "or categorical=zip; --task-option epochs=3",
            "or --task-option categorical=zip; --task-option epochs=3",
        ),
        ("tabular", "Task(model=..), a model of this size", "Task(model=..), a model of this size"),
        ("no-kind", "size=224", "size=224"),
    ],
)
def test_names_become_flags(kind, said, wanted):
    assert in_flags(TaskError("what", fix=said), kind).fix == wanted


def test_photos_of_several_sizes_say_the_flag(tmp_path):
    for i in range(12):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8 + i, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "nets.py").write_text("def net(num_classes): return None")
    given = [
        "--task",
        "image-classification",
        "--model",
        f"{tmp_path / 'nets.py'}:net",
        "--data",
        str(tmp_path / "photos"),
    ]
    result = CliRunner().invoke(app, ["optimize", *given, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2 and "--task-option size=224" in " ".join(result.output.split())


def test_a_recipe_may_be_named(tmp_path):
    from pathlib import Path

    from featherweight.cli._request import _recipe

    assert _recipe(Path("ptq")) == ptq()
    with pytest.raises(InputError, match=r"no such recipe(.|\n)*or one of cnn, encoder, mlp, ptq") as e:
        _recipe(tmp_path / "ptqq")
    assert "Errno" not in str(e.value)
