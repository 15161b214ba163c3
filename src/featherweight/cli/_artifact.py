"""Reading an artifact's folder: its manifest is checked against its files before a
runtime loads anything."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..seeding import generator
from ..store.manifest import sound
from ..targets.base import Target

LARGEST_INPUT = 1_000_000_000  # bytes of one batch
_MOST_AXES = 32


@dataclass(frozen=True)
class Artifact:
    """An artifact's folder, the target it was made for, and its inputs: {name:
    {"shape": ["batch", ...], "dtype": ..}}; size_bytes: of its files."""

    folder: Path
    target: Target
    inputs: dict[str, dict[str, Any]]
    size_bytes: int = 0

    def example(self) -> dict[str, np.ndarray]:
        """One random sample per input: normal numbers; 0 or 1 where whole numbers are wanted, which
        are legal token ids and masks."""
        rng, out = generator(0, "measure", "example"), {}
        room = LARGEST_INPUT
        for name, spec in self.inputs.items():
            try:
                shape, dtype = (1, *(int(d) for d in spec["shape"][1:])), np.dtype(spec["dtype"])
                room -= self.target.batch * math.prod(shape) * dtype.itemsize
                if not 0 <= min(shape) or dtype.kind not in "fiub" or len(shape) > _MOST_AXES or room < 0:
                    raise ValueError(f"no numbers of a shape, or over {LARGEST_INPUT:,} bytes a batch")
            except (TypeError, ValueError, KeyError, OverflowError) as e:
                raise StoreError(
                    "the manifest does not say what the inputs are",
                    got=f"{name}: {spec}: {e}"[:300],
                    allowed=f'{{"shape": ["batch", 8], "dtype": "float32"}}, {LARGEST_INPUT:,} bytes of all in a batch',
                ) from e
            drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
            out[name] = drawn.astype(dtype)
        return out


def read(folder: Path, threads: int | None = None) -> Artifact:
    """The artifact in a folder, with its files' sha256 checked.
    StoreError if they are not what the manifest says."""
    manifest = sound(folder)
    target = Target.parse(str(manifest["target"]))
    if threads is not None:
        target = replace(target, threads=threads)
    size = sum((folder / name).stat().st_size for name in manifest["files"])
    return Artifact(folder, target, manifest["inputs"], size)
