"""YAML within limits."""

import pytest
import yaml

from featherweight.errors import InputError, RecipeError
from featherweight.plain import LONGEST, read_text, read_yaml
from featherweight.recipe import Recipe
from featherweight.study.reading import read_config


def test_it_reads_what_the_library_reads():
    for text in (
        "",
        "a: 1",
        "[1, 2.5, x, null, true]",
        "a: &x {b: 1}\nc: *x",
        "a: {<<: {b: 1, c: 2}, b: 3}",
        "- 2024-01-02",
    ):
        assert read_yaml(text) == yaml.safe_load(text)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands twice"),
        ('{"recipe": [], "recipe": [1]}', "'recipe' stands twice"),
        (BOMB, "more than 200000 values"),
        ("&a [*a]", "within what it stands for"),
        ("[" * 200 + "]" * 200, "levels deep"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("x" * (LONGEST + 1), "at most"),
    ],
    ids=["twice", "twice in JSON", "bomb", "cycle", "deep", "code", "long"],
)
def test_what_cannot_be_taken_is_said(text, words, tmp_path):
    with pytest.raises((ValueError, yaml.YAMLError), match=words):
        read_yaml(text)
    with pytest.raises(RecipeError, match="not valid YAML"):
        Recipe.from_yaml(text)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError):
        read_config(tmp_path / "run.yaml")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "x").open("wb") as f:
        f.truncate(10**12)
    with pytest.raises(ValueError, match="at most"):
        read_text(tmp_path / "x")
