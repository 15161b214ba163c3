"""Whose code a study's folder may run.

To go on with a study, or to run a run.yaml, is to execute the Python files that it names, and
either may come from anybody. So a run that was given its task by its user leaves a signature: which
files these are, what they say, sealed with a key that only this user has. Files that no such
signature covers run only where they are trusted by word.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, Whole
from ..task.imports import imported, local_sources
from .config import Config
from .state import StudyState

_BYTES = 32  # of a key


def signed(config: Config) -> dict[str, Any] | None:
    """{"files": {path: sha256 of what it says}, "seal": hex} of the code that a study's settings
    name; None where this user can keep no key."""
    files, key = digests(_recipes(config), ran=True), _key()
    return None if key is None else {"files": files, "seal": _seal(key, files)}


def check_trusted(config: Config, what: str, state: StudyState | None = None) -> None:
    """InputError if to go on would run code which this user has not run in that study. what: the
    folder or file that names it; state: of the study, whose trials have recipes, too."""
    files, said = digests([_recipes(config), _tried(state)]), config.code or {}
    if not files:
        return
    key, mine = _key(), said.get("files")
    own = key is not None and isinstance(mine, dict) and hmac.compare_digest(_seal(key, mine), str(said.get("seal")))
    sealed: dict[str, str] = mine if own and isinstance(mine, dict) else {}
    now = files | {p: _digest(Path(p)) for p in sealed}  # those that only running it has told, too
    changed = sorted(p for p in now if now[p] != sealed.get(p))
    if own and not changed:
        return
    raise InputError(
        "this would run code that is not as it was when the study began"
        if own
        else "this would run code that a folder names which you did not make here",
        got=Whole(f"{what} names {', '.join(changed)}"),  # all of them: they are to be read
        allowed="a study that you began on this machine, its code as it was then",
        fix=(
            "put the code back, or begin a new study with another --out; --trust runs it as it is now, and goes on "
            "if the task is still the same"
            if own
            else "read these files; if you trust them, add --trust (fw.Study.resume(.., trust=True))"
        ),
    )


def check_tried(config: Config, what: str, state: StudyState) -> None:
    """InputError if a trial's recipe names code that the settings do not: nothing that was searched
    can have it."""
    named = set(_named(_recipes(config)))
    if odd := sorted({str(p) for p in _named(_tried(state))} - {str(p) for p in named}):
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


def digests(data: Any, ran: bool = False) -> dict[str, str]:
    """sha256 of what each Python file says that JSON data name, or that those import from
    their own folders; comments and layout left aside. Files that are not there are left out. ran:
    of what they imported from elsewhere as they ran, too."""
    out: dict[str, str] = {}
    for named in _named(data):
        for file in (*local_sources(named), *(imported(named) if ran else ())) if named.is_file() else ():
            if (digest := _digest(file)) is not None:
                out[str(file)] = digest
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


def _named(data: Any) -> Iterator[Path]:
    """The files of every `FILE.py` or `FILE.py:NAME` in JSON data, and that of a task's reference,
    whatever it is called."""
    if isinstance(data, dict):
        if isinstance(data.get("file"), str):
            yield Path(data["file"]).absolute().resolve()
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            yield from _named(value)
    elif isinstance(data, str):
        head, colon, _ = data.rpartition(":")
        path = head if colon and head.endswith(".py") else data
        if path.endswith(".py"):
            yield Path(path).absolute().resolve()


def _seal(key: bytes, files: dict[str, str]) -> str:
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
