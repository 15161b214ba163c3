"""The files of a Hugging Face directory that its weights are loaded from: in the folder, all of
them, whatever it says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import TaskError
from ...plain import read_text

_INDEX = ".safetensors.index.json"


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Those that transformers would load, in order; TaskError if it would look for one of them
    outside of the folder. (A file of the folder may be a link, as in Hugging Face's own cache.)"""
    said = json.loads(read_text(folder / "config.json"))
    named = said.get("transformers_weights") if isinstance(said, dict) else None
    if named is not None:
        first = _inside(folder, "config.json: transformers_weights", named)
    else:
        usual = (folder / f"model{end}" for end in (".safetensors", _INDEX))
        first = next((file for file in usual if file.is_file()), folder / "model.safetensors")
    if not first.is_file():
        raise TaskError(
            "the model directory's weights are not called what they should be",
            got=", ".join(sorted(p.name for p in folder.glob("*.safetensors*")))[:300],
            allowed=f"model.safetensors, or the files that model{_INDEX} lists",
            fix="save it again, whole: model.save_pretrained(DIR)",
        )
    if not first.name.endswith(_INDEX):
        return (first,)
    index = json.loads(read_text(first))
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise TaskError(
            "the list of a model's weights cannot be read",
            got=f"{first}: {type(shards).__name__}",
            allowed='{"weight_map": {name of a tensor: file in this folder}}',
            fix="save it again, whole: model.save_pretrained(DIR)",
        )
    names = dict.fromkeys(map(str, shards.values()))
    return tuple(sorted(_inside(folder, first.name, name) for name in names))


def _inside(folder: Path, what: str, name: Any) -> Path:
    """The file of this name in the folder. TaskError if the name leads elsewhere."""
    text = str(name)
    plain = text.isprintable() and not {"/", "\\"} & set(text) and text not in ("", ".", "..")
    file = folder / text if plain and text.endswith((".safetensors", _INDEX)) else None
    if file is None or not file.is_file():
        raise TaskError(
            "a model directory names weights that are no file in it",
            got=f"{folder}: {what} names {text[:200]!r}",
            allowed="names of *.safetensors in the folder itself",
            fix="put the file there, or save the model again: model.save_pretrained(DIR)",
        )
    return file


def tensors(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of each tensor in the weights, which are not read."""
    import safetensors

    for file in weight_files(folder):
        try:
            with safetensors.safe_open(str(file), framework="pt") as f:
                for name in f.keys():  # noqa: SIM118 (no mapping)
                    yield name, f.get_slice(name).get_shape()
        except (OSError, safetensors.SafetensorError) as e:
            raise TaskError("a file of the model's weights is damaged", got=f"{file}: {e}", fix="copy it again") from e
