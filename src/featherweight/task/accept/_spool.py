"""Arrays that grow row by row in files, for what may not fit in memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TaskError


class Spool:
    """Arrays by name that grow row by row in files, for what may not fit in memory."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="featherweight-data-")
        self._form: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self._rows = 0
        weakref.finalize(self, _gone, self._folder)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        form = {k: (v.dtype, v.shape[1:]) for k, v in rows.items()}
        self._form = self._form or form
        if form != self._form:
            raise TaskError(
                "samples differ in shape or type",
                got={k: f"{d}{list(s)}" for k, (d, s) in form.items()},
                allowed={k: f"{d}{list(s)}" for k, (d, s) in self._form.items()},
            )
        for k, v in rows.items():
            with (Path(self._folder) / k).open("ab") as f:
                f.write(np.ascontiguousarray(v).tobytes())
        self._rows += len(next(iter(rows.values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """Read-only and memory-mapped; the files live as long as they do."""
        out: dict[str, np.ndarray] = {}
        for k, (dtype, shape) in self._form.items():
            mapped = np.memmap(Path(self._folder) / k, dtype=dtype, mode="r", shape=(self._rows, *shape))
            mapped.spool = self  # type: ignore[attr-defined]
            out[k] = mapped
        return out


def _gone(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
