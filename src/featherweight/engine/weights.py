"""The weights of a model that a study found, as a module of PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import safetensors
from torch import nn

from ..deploy.predict import SPEC as DEPLOYED
from ..errors import InputError
from ..models.entry import handed_on
from ..models.package import SPEC, WEIGHTS, Package
from ..plain import read_json
from ..task.accept import builder, unwrapped, wrapped
from ..task.kinds.tabular import own_module


def load_model(folder: str | Path, make: Callable[[], nn.Module] | nn.Module | str | Path | None = None) -> nn.Module:
    """The module whose weights and structure lie in a folder (`model/` of what was exported), in
    eval mode: the smaller one in floating point, before a runtime's quantization.

    make: the original's architecture: what made it, a module (whose weights do not matter), or the
    file that it came in ("FILE.py:NET", .onnx, .pt2); of a net that the recipe builds, and of ours
    for tables, it is not needed. InputError without one where it is; StoreError for files that do
    not belong to it, as of another architecture.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() and (folder / "model" / WEIGHTS).is_file():
        folder = folder / "model"
    if not (folder / WEIGHTS).is_file():
        raise InputError("there are no weights in this folder", got=str(folder), allowed="model/ of an exported folder")
    with safetensors.safe_open(str(folder / WEIGHTS), framework="pt") as f:
        shapes = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118 (no mapping)
    names = set(shapes)
    make = _own(folder, shapes) if make is None else make
    if make is None and read_json(folder / SPEC).get("net") is None:
        raise InputError(
            "these weights are of a model that its own code makes",
            got="load_model(FOLDER)",
            fix="load_model(FOLDER, Net), with the class, a function, or a module of the original's architecture",
        )

    def build() -> nn.Module:
        assert make is not None  # else the net is in the description
        made = copy.deepcopy(make) if isinstance(make, nn.Module) else builder(make)()
        own = {f"model.{name}" for name in made.state_dict()}
        # it was called by name, or gave several outputs, and so was wrapped
        return wrapped(made) if names and names <= own and not names <= set(made.state_dict()) else made

    found = Package.load(folder, build).module
    inner = unwrapped(found)
    if inner is not found:
        handed_on(found, inner)
    return inner


def _own(folder: Path, shapes: Mapping[str, Sequence[int]]) -> Callable[[], nn.Module] | None:
    """What makes the net that no user wrote, of a folder that says what it takes; None if it is not
    such a net's."""
    spec = next((f / DEPLOYED for f in (folder, folder.parent) if (f / DEPLOYED).is_file()), None)
    if spec is None or read_json(folder / SPEC).get("net") is not None:
        return None
    prepare = read_json(spec).get("prepare") or {}
    if prepare.get("kind") != "table":
        return None

    def make() -> nn.Module:
        return own_module(prepare["columns"], shapes)

    try:
        return make if set(make().state_dict()) == set(shapes) else None
    except (KeyError, TypeError, AttributeError):  # the folder says something else
        return None
