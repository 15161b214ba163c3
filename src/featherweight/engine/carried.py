"""A task that no file names, on its way to the workers: its code by value, its large arrays and
weights in files that all workers map, so that no process holds them twice.

The files lie in a folder that only this user can read, made for the run and gone after it.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from ..errors import InputError, TaskError
from ..task.task import Task

_LARGE = 1 << 16  # bytes; smaller ones travel with the code
_TASK = "task.pickle"


@contextlib.contextmanager
def carried(task: Task) -> Iterator[Any]:
    """How a worker loads a task (JSON): its reference, or, while this lasts, the folder that holds
    it. InputError if it cannot be sent."""
    if task.ref is not None:
        yield task.ref
        return
    folder = Path(tempfile.mkdtemp(prefix="featherweight-task-"))
    try:
        try:
            with (folder / _TASK).open("wb") as f:
                _Pickler(f, folder).dump(task)
        except OSError:
            raise
        except Exception as e:  # user objects fail to pickle in any way they like
            raise InputError(
                "this task cannot be sent to a worker process",
                got=f"{type(e).__name__}: {e}",
                fix="put it into a file and give the file's name, as in optimize('task.py:task', ...)",
            ) from e
        yield {"carried": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def loaded(folder: Path) -> Task:
    """The task that this process's own parent left in a folder."""
    with (folder / _TASK).open("rb") as f:
        task: Task = _Unpickler(f, folder).load()
    return task


def _as_it_lies(array: np.memmap) -> bool:
    """Is it what its file holds, and does nobody change it?"""
    plain = not array.dtype.fields and array.mode == "r" and not array.flags.writeable
    return plain and isinstance(array.base, mmap.mmap) and array.filename is not None


def _stamp(file: str) -> tuple[int, int]:
    """What changes with a file."""
    found = Path(file).stat()
    return found.st_size, found.st_mtime_ns


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: Any, folder: Path) -> None:
        super().__init__(file)
        self._folder, self._known = folder, dict[Any, tuple[Any, Any]]()

    def persistent_id(self, obj: Any) -> Any:
        """(kind, file, form) of what goes into a file of its own; None for all else."""
        if isinstance(obj, np.ndarray) and obj.nbytes >= _LARGE and not obj.dtype.hasobject:
            if type(obj) is np.memmap and _as_it_lies(obj):
                place = str(obj.filename), obj.dtype.str, obj.offset, obj.shape, obj.flags.f_contiguous
                return ("mapped", *place, _stamp(str(obj.filename)))
            if type(obj) in (np.ndarray, np.memmap):  # others, as masked ones, have more to them
                return self._once(obj, self._array)
            return None
        if type(obj).__name__ == "TypedStorage":
            memory = obj._untyped_storage
            if memory.device.type == "cpu" and memory.nbytes() >= _LARGE:
                return (*self._once(memory, self._storage), obj.dtype)
        return None

    def _once(self, obj: Any, write: Any) -> Any:
        """One file for each array or memory, however often it is met."""
        key = (obj.data_ptr(), obj.nbytes()) if hasattr(obj, "data_ptr") else id(obj)
        if key not in self._known:
            file = self._folder / f"{len(self._known)}.bin"
            self._known[key] = (obj, write(obj, file))  # held, so that its place stays its own
        return self._known[key][1]

    def _array(self, array: np.ndarray, file: Path) -> Any:
        with file.open("wb") as f:
            np.lib.format.write_array(f, np.asarray(array), allow_pickle=False)
        return ("array", file.name)

    def _storage(self, storage: Any, file: Path) -> Any:
        import torch

        whole = torch.empty(0, dtype=torch.uint8).set_(storage)
        with file.open("wb") as f:
            whole.numpy().tofile(f)
        return ("storage", file.name, storage.nbytes())


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, folder: Path) -> None:
        super().__init__(file)
        self._folder, self._known = folder, dict[str, Any]()

    def persistent_load(self, key: Any) -> Any:
        """Mapped copy-on-write: what a process changes is its own."""
        kind, name, *form = key
        if kind == "mapped":
            dtype, offset, shape, columns, stamp = form
            if _stamp(name) != stamp:
                raise TaskError("a file of the task's data has changed since the search began", got=name)
            order: Any = "F" if columns and len(shape) > 1 else "C"
            return np.memmap(name, dtype=dtype, mode="c", offset=offset, shape=shape, order=order)
        file = self._folder / name
        if kind == "array":
            if name not in self._known:
                self._known[name] = np.load(file, mmap_mode="c", allow_pickle=False)
            return self._known[name]
        import torch

        size, dtype = form
        if name not in self._known:
            self._known[name] = torch.UntypedStorage.from_file(str(file), False, size)
        return torch.storage.TypedStorage(wrap_storage=self._known[name], dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
