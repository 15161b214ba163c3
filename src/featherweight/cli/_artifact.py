"""Reading an artifact's folder: its manifest is checked against its files before a
runtime loads anything."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, StoreError
from ..seeding import generator
from ..store.artifacts import sha256_file
from ..targets.base import Target


@dataclass(frozen=True)
class Artifact:
    """An artifact's folder, the target it was made for, and its inputs: {name:
    {"shape": ["batch", ...], "dtype": ..}}."""

    folder: Path
    target: Target
    inputs: dict[str, dict[str, Any]]

    def example(self) -> dict[str, np.ndarray]:
        """One random sample per input: normal numbers; 0 or 1 where whole numbers are wanted, which
        are legal token ids and masks."""
        rng, out = generator(0, "measure", "example"), {}
        for name, spec in self.inputs.items():
            try:
                shape, dtype = (1, *(int(d) for d in spec["shape"][1:])), np.dtype(spec["dtype"])
            except (TypeError, ValueError, KeyError) as e:
                raise StoreError(
                    "the manifest does not say what the inputs are",
                    got=f"{name}: {spec}",
                    allowed='{"shape": ["batch", 8], "dtype": "float32"}',
                ) from e
            drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
            out[name] = drawn.astype(dtype)
        return out


def read(folder: Path, threads: int | None = None) -> Artifact:
    """The artifact in a folder, with its files' sha256 checked.
    StoreError if they are not what the manifest says."""
    manifest = _manifest(folder)
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise StoreError("a file of this artifact is not there", got=str(path), fix="export it again")
        if sha256_file(path) != digest:
            raise StoreError(
                "a file of this artifact is not what its manifest says",
                got=f"{path}: another sha256",
                fix="export it again",
            )
    target = Target.parse(str(manifest["target"]))
    if threads is not None:
        target = replace(target, threads=threads)
    return Artifact(folder, target, manifest["inputs"])


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(
            "this is no artifact's folder: it has no manifest.json",
            got=str(folder),
            allowed="OUT/best, a folder of OUT/artifacts, or one that was exported",
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise StoreError("this manifest cannot be read", got=f"{path}: {e}") from e
    missing = [k for k in ("target", "inputs", "files") if not isinstance(data, dict) or k not in data]
    if missing or not data["inputs"] or not isinstance(data["inputs"], dict) or not isinstance(data["files"], dict):
        raise StoreError(
            "this manifest is not complete",
            got=f"{path} lacks {', '.join(missing) or 'inputs'}",
            allowed="target, inputs and files",
        )
    return dict(data)
