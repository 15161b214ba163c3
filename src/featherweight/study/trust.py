"""Whose code a study's folder may run.

To go on with a study, or to run a run.yaml, is to execute the Python files that it names, and
either may come from anybody. So a run that was given its task by its user leaves a signature: which
files these are, what they say and what is taken from them, sealed with a key that only this user
has. Files that no such
signature covers run only where they are trusted by word.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, Whole
from ..task.imports import imported, searched
from ..task.sources import local_sources
from .config import Config
from .state import StudyState

_BYTES = 32  # of a key
_SEALED = ("files", "folders", "task", "names")
_USUAL = ("", "task", "net")  # names that are looked for where a reference says none


def signed(config: Config) -> dict[str, Any] | None:
    """What a study's settings name, sealed: {"files": {path: sha256 of what it says}, "folders": in
    which modules of theirs are found, "task": its reference, "names": of the recipes' code, "seal":
    hex}; None where this user can keep no key."""
    recipes, key = _recipes(config), _key()
    folders = sorted({str(f) for file in _files(recipes) for f in searched(file)})
    said = {"files": digests(recipes, ran=True), "folders": folders, "task": config.task, "names": _names(recipes)}
    return None if key is None else {**said, "seal": _seal(key, said)}


def check_trusted(config: Config, what: str, state: StudyState | None = None) -> None:
    """InputError if to go on would run code which this user has not run in that study. what: the
    folder or file that names it; state: of the study, whose trials have recipes, too."""
    data, said = [_recipes(config), _tried(state)], config.code or {}
    if not digests(data):
        return
    sealed = _opened(said)
    if sealed is None:
        raise InputError(
            "this would run code that a folder names which you did not make here",
            got=Whole(f"{what} names {', '.join(digests(data))}"),  # all of them: they are to be read
            allowed="a study that you began on this machine, its code as it was then",
            fix="read these files; if you trust them, add --trust (fw.Study.resume(.., trust=True))",
        )
    files: dict[str, str] = sealed["files"]
    now: dict[str, str | None] = {p: _digest(Path(p)) for p in files}  # those that only running it has told, too
    now.update(digests(data, known=[Path(p) for p in files], folders=[Path(p) for p in sealed.get("folders", ())]))
    changed = sorted(p for p in now if now[p] != files.get(p)) + _unsealed(config, data, sealed)
    if changed:
        raise InputError(
            "this would run code that is not as it was when the study began",
            got=Whole(f"{what} names {', '.join(changed)}"),
            allowed="a study that you began on this machine, its code as it was then",
            fix="put the code back, or begin a new study with another --out; --trust runs it as it is now, and goes on "
            "if the task is still the same",
        )


def _opened(said: dict[str, Any]) -> dict[str, Any] | None:
    """What a seal covers; None if it is none of this user's."""
    key, seal = _key(), str(said.get("seal"))
    now = {name: said[name] for name in _SEALED if name in said}
    if key is None or not isinstance(said.get("files"), dict):
        return None
    if len(now) == len(_SEALED):
        return now if hmac.compare_digest(_seal(key, now), seal) else None
    old = {"files": said["files"]}
    return old if hmac.compare_digest(_files_seal(key, old["files"]), seal) else None


def _unsealed(config: Config, data: list[Any], sealed: dict[str, Any]) -> list[str]:
    """What JSON data name in files that are sealed, and the seal does not."""
    names = _names(data)
    if "task" in sealed:
        task = [] if config.task == sealed["task"] else [f"the task {json.dumps(config.task)[:300]}"]
        return task + sorted(set(names) - set(sealed["names"]))
    # a seal of before has only the files: a name that is none of Featherweight's own could be that
    # of any function in them
    return [name for name in names if name.rpartition(":")[2] not in _USUAL and not _is_task(name)]


def _is_task(name: str) -> bool:
    """Does a file make a task under this name, once, and nothing else that could be called?"""
    file, _, own = name.rpartition(":")
    try:
        body = ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False
    made = [n.value for n in body if isinstance(n, ast.Assign) and [ast.unparse(t) for t in n.targets] == [own]]
    stored = [n for part in body for n in ast.walk(part) if isinstance(n, ast.Name) and n.id == own]
    called = made and isinstance(made[0], ast.Call) and ast.unparse(made[0].func).rpartition(".")[2] == "Task"
    others = [n for n in body if getattr(n, "name", None) == own]
    return bool(called and not others and sum(isinstance(n.ctx, ast.Store) for n in stored) == 1)


def check_tried(config: Config, what: str, state: StudyState) -> None:
    """InputError if a trial's recipe names code that the settings do not: nothing that was searched
    can have it."""
    if odd := sorted(set(_names(_tried(state))) - set(_names(_recipes(config)))):
        raise InputError(
            "this would run code that the study was not begun with",
            got=Whole(f"trials of {what} name {', '.join(odd)}"),
            allowed="the files that its task and recipe name",
            fix="read these files; if you trust them, `featherweight resume` with --trust",
        )


def _recipes(config: Config) -> list[Any]:
    return [config.task, config.recipe, config.original, config.baseline, list(config.extra_baselines)]


def _tried(state: StudyState | None) -> list[Any]:
    """All recipes in a study's log."""
    return [] if state is None else [t.recipe for t in state.trials] + [e.recipe for e in state.entries()]


def digests(data: Any, ran: bool = False, known: Iterable[Path] = (), folders: Iterable[Path] = ()) -> dict[str, str]:
    """sha256 of what each Python file says that JSON data name, or that those import from
    their own folders; comments and layout left aside. Files that are not there are left out. ran:
    of what they imported from elsewhere as they ran, too; known, folders: files that they import,
    and where else their modules are looked for, as that has told."""
    out: dict[str, str] = {}
    for file in _files(data):
        others = (*known, *imported(file)) if ran else tuple(known)
        for source in local_sources(file, others, (*folders, *searched(file)) if ran else tuple(folders)):
            if (digest := _digest(source)) is not None:
                out[str(source)] = digest
    return dict(sorted(out.items()))


def _digest(file: Path) -> str | None:
    try:
        text = file.read_bytes()
    except OSError:
        return None
    if file.suffix == ".py":
        with suppress(SyntaxError, ValueError, RecursionError):
            text = ast.dump(ast.parse(text)).encode()
    return hashlib.sha256(text).hexdigest()


def _files(data: Any) -> list[Path]:
    """The files that JSON data name, those that are there."""
    return [path for path in dict.fromkeys(path for path, _ in _named(data)) if path.is_file()]


def _names(data: Any) -> list[str]:
    """What JSON data name, as `FILE.py:NAME`; without a name where they leave that out."""
    return sorted({f"{path}:{name}" for path, name in _named(data)})


def _named(data: Any) -> Iterator[tuple[Path, str]]:
    """File and name of every `FILE.py` or `FILE.py:NAME` in JSON data, and those of a task's
    reference, whatever its file is called."""
    if isinstance(data, dict):
        if isinstance(data.get("file"), str):
            yield Path(data["file"]).absolute().resolve(), str(data.get("name", ""))
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            yield from _named(value)
    elif isinstance(data, str):
        head, colon, tail = data.rpartition(":")
        path, name = (head, tail) if colon and head.endswith(".py") else (data, "")
        if path.endswith(".py"):
            yield Path(path).absolute().resolve(), name


def _seal(key: bytes, said: dict[str, Any]) -> str:
    return hmac.new(key, b"featherweight 2\n" + json.dumps(said, sort_keys=True).encode(), "sha256").hexdigest()


def _files_seal(key: bytes, files: dict[str, str]) -> str:
    """The seal of versions that sealed the files only."""
    return hmac.new(key, json.dumps(files, sort_keys=True).encode(), "sha256").hexdigest()


def _key() -> bytes | None:
    """This user's key, made when it is first asked for; None where none can be kept."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        file = Path(state) / "featherweight" / "key"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            own = file.with_name(f"key.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(secrets.token_bytes(_BYTES))
            with suppress(FileExistsError):  # another run was first
                os.link(own, file)
            own.unlink()
        key = file.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return key if len(key) == _BYTES else None
