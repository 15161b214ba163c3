"""Reading a folder that can be deployed: its files are held to its manifest first, and run by our
own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..deploy.predict import MOST_SAMPLES, RATES, SAMPLE, SPEC, Model
from ..errors import InputError, StoreError
from ..plain import read_json
from ..store.manifest import MANIFEST, sound
from ..targets.base import Target

_TAKES = {
    "image": "image files",
    "audio": "WAV files",
    "table": ".csv or .tsv files with the columns that the model was trained on",
    "text": "texts, or .txt files with one a line",
    "words": "texts, or .txt files with one a line",
    "arrays": ".npz, .npy or .csv files of numbers",
}


def read(folder: Path) -> Model:
    """The model in a folder, or in best/ of a study's. InputError if it is none; StoreError if it
    is not as it was made."""
    if not (folder / MANIFEST).is_file() and (folder / "best" / MANIFEST).is_file():
        folder = folder / "best"
    manifest = sound(folder)
    if not {SPEC, SAMPLE} <= set(manifest["files"]):
        raise InputError(
            "this folder does not say what its inputs and outputs are",
            got=f"{folder}: no {SPEC}",
            allowed="OUT/best, or what `featherweight export OUT --to FOLDER` wrote",
            fix="`featherweight resume OUT` writes best/ anew",
        )
    try:
        spec = read_json(folder / SPEC)
        _check(spec)
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise StoreError("this folder's description cannot be read", got=f"{folder / SPEC}: {e}"[:500]) from e
    target = Target.parse(str(manifest["target"]))
    session = target.load_runtime().load(folder, target, target.batch)
    return Model(folder, session.run)


def _check(spec: dict[str, Any]) -> None:
    """ValueError, TypeError or KeyError for what `deploy.predict` would not understand."""
    if spec["format"] != 1:
        raise ValueError(f"format {spec['format']}; this version reads 1")
    if spec["prepare"]["kind"] not in _TAKES:
        raise ValueError(f"inputs of kind {spec['prepare']['kind']!r}; known: {', '.join(_TAKES)}")
    if not (isinstance(spec["batch"], int) and 0 < spec["batch"] <= 65536):
        raise ValueError(f"batch {spec['batch']!r}")
    _check_prepare(spec["prepare"])
    file = spec["prepare"].get("tokenizer", "x")
    if Path(file).name != file or file in ("", ".", ".."):
        raise ValueError(f"a tokenizer outside of the folder: {file!r}")
    if not 0 < float(spec["tolerance"]) < 1 or not spec["inputs"]:
        raise ValueError(f"tolerance {spec['tolerance']!r}, inputs {spec['inputs']!r}"[:200])
    measured = spec.get("measured") or {}
    if not isinstance(measured, dict) or not isinstance(measured.get("latency_ms", 0.0), (int, float)):
        raise ValueError(f"measured {measured!r}"[:200])
    for form in spec["inputs"].values():
        [int(v) for v in form["shape"][1:]], str(form["dtype"])
    str(spec["output"]["means"])


def _check_prepare(how: dict[str, Any]) -> None:
    """ValueError, TypeError or KeyError for settings of sounds or tables that make no inputs."""
    if how["kind"] == "audio" and not (
        isinstance(how["samples"], int)
        and 0 < how["samples"] <= MOST_SAMPLES
        and isinstance(how["rate"], int)
        and RATES[0] <= how["rate"] <= RATES[1]
    ):
        raise ValueError(f"sounds of {how['samples']!r} samples, {how['rate']!r} a second")
    for column in how["columns"] if how["kind"] == "table" else ():
        str(column["name"])
        if column["type"] == "category":
            [str(v) for v in column["values"]]
        elif column["type"] not in ("number", "date") or not isinstance(column["missing"], bool):
            raise ValueError(f"the column {column!r}"[:200])
        else:
            float(column["fill"])


def takes(spec: dict[str, Any]) -> str:
    """What a folder's model can be asked with."""
    return _TAKES[spec["prepare"]["kind"]]
