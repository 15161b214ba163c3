"""Studies that are there: read from their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, NoStudy, StoreError
from ..plain import read_json, read_text, read_yaml
from ..store.events import EventStore
from .config import Config
from .state import StudyState


def read_state(out: Path) -> StudyState:
    """All that the log in a study's folder tells. StoreError if there is none."""
    path = out / "study.db"
    try:
        there = path.exists()
    except OSError as e:  # a name that is too long
        raise InputError("this names no folder", got=f"{out}: {e.strerror}", allowed="the folder given as --out") from e
    if not there:
        raise NoStudy("there is no study in this folder", got=str(out), fix="name the folder that was given as --out")
    store = EventStore(path, writable=False)
    try:
        return StudyState(out.resolve()).fold(store.read())
    finally:
        store.close()


def chosen_manifest(state: StudyState) -> dict[str, Any]:
    """The manifest of the best (or nearest) candidate's artifact; empty if there is none here."""
    entry = state.best() or state.nearest()
    path = Path(entry.artifact) / "manifest.json" if entry is not None else None
    try:
        found = read_json(path) if path is not None and path.is_file() else {}
    except (OSError, ValueError) as e:
        raise StoreError("this manifest cannot be read", got=f"{path}: {e}"[:500]) from e
    return found if isinstance(found, dict) else {}


def begun_as(out: Path) -> Config | None:
    """The settings with which the study in a folder began; None if there is none."""
    if not (out / "study.db").exists():
        return None
    store = EventStore(out / "study.db", writable=False)
    try:
        return next((Config.from_json(e["config"]) for e in store.read() if e["kind"] == "study"), None)
    finally:
        store.close()


def read_config(out: Path) -> Config:
    """The settings of the study in a folder, or of a run.yaml."""
    if out.is_file():
        try:
            data = read_yaml(read_text(out))
        except UnicodeDecodeError as e:
            raise InputError("this file is no text", got=f"{out}: {e}", allowed="a run.yaml that a run wrote") from e
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            raise InputError(
                "this file is not valid YAML", got=f"{out}: {e}", allowed="a run.yaml that a run wrote"
            ) from e
        if not isinstance(data, dict) or "fingerprint" not in data:
            raise InputError("this file is no run.yaml of an earlier run", got=str(out))
        return Config.from_json(data)
    return read_state(out).begun
