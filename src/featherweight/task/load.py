"""A task by its reference: `FILE.py:NAME`, or a built-in kind with its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import TaskError
from .files import load_file, parse_ref, user_code
from .sources import local_sources
from .task import Task


def load_task(ref: str | Path | dict[str, Any] | Task) -> Task:
    """The task that `ref` names: `FILE.py` (its variable `task`), `FILE.py:NAME` (a Task, or a
    function without arguments that returns one), or the dictionary `Task.ref` of a task loaded
    before. A Task is given back as it is.
    """
    if isinstance(ref, Task):
        return ref
    if isinstance(ref, dict):
        if "kind" in ref:
            from .kinds import make_task

            return make_task(str(ref["kind"]), **ref.get("options", {}))
        if "file" not in ref:
            raise TaskError(
                "this reference names no task",
                got=ref,
                allowed='{"file": .., "name": ..} or {"kind": .., "options": {..}}',
            )
        return _from_file(Path(ref["file"]), str(ref.get("name", "task")))
    return _from_file(*parse_ref(str(ref), "task"))


def _from_file(path: Path, name: str) -> Task:
    if path.suffix != ".py":  # what is executed is what `study.trust` has looked at
        raise TaskError("a task is a Python file", got=str(path), allowed="FILE.py")
    path = path.resolve()  # before it runs: it may change the current folder
    module = load_file(path)
    tasks = sorted(k for k, v in vars(module).items() if isinstance(v, Task))
    with user_code(f"{path.name} cannot be asked for {name!r}", path):  # it may have a __getattr__
        task = getattr(module, name, None)
    if task is None:
        raise TaskError(
            f"{path.name} has no {name!r}",
            got=f"{path}:{name}",
            allowed=f"its tasks: {', '.join(tasks) or 'none'}",
            fix=f"{path.name}:{tasks[0]}" if tasks else f"{name} = featherweight.Task(...) in the file",
        )
    if callable(task) and not isinstance(task, Task):
        with user_code(f"{name}() of {path.name} failed", path, mine=True):
            task = task()
    if not isinstance(task, Task):
        raise TaskError(
            f"{name!r} in {path.name} is no task",
            got=type(task).__name__,
            allowed=f"a Task or a function that returns one; its tasks: {', '.join(tasks) or 'none'}",
        )
    if task.ref is None:
        task.ref = {"file": str(path), "name": name}
    own = tuple(path.parent / s for s in task.sources)  # an absolute path stays as it is
    task.sources = tuple(dict.fromkeys((*local_sources(path), *own)))
    return task
