"""A study whose log is damaged, made whole of what is still sound in it.

Trials of which the outcome is damaged run again, and find their steps in the store; one of which
the proposal is damaged is failed, with that reason. A look at test that cannot be read any more
counts as one that certified nothing: it may have been any.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FeatherweightError, NoStudy, StoreError
from ..plain import kind
from ..records import Event
from ..store.chain import Row, survey
from ..store.events import EventStore
from .clock import LOOKS
from .folder import LOGS
from .process import alone
from .reading import read_config
from .state import StudyState

_GONE, _MISFITS = 1000, 100  # rows that may be missing at one place; events that may be no study's
DB, REASON = "study.db", "its record in the study's log was damaged"


@dataclass(frozen=True)
class Repaired:
    """kept: events; lost: those that were not sound, in words; again: trials that a resumed study
    runs once more; old: where the damaged file is now (None: nothing was to repair)."""

    kept: int
    lost: tuple[str, ...] = ()
    again: tuple[int, ...] = ()
    old: Path | None = None


def repair(out: str | Path) -> Repaired:
    """Put a log of what is sound in the place of a damaged one, which stays beside it. StoreError
    if too little is sound: the settings, or the original's measurement, to which all others are
    relative."""
    folder = Path(out)
    path = folder / DB
    for name in LOGS:
        if odd := kind(folder / name):
            raise StoreError("this is no study's log", got=f"{folder / name} is {odd}", fix="move it away")
    if not path.is_file():
        raise NoStudy("there is no study in this folder", got=str(folder), fix="name the folder given as --out")
    with alone(folder):
        try:
            rows, why = _possible(survey(path)), ""
        except sqlite3.DatabaseError as e:
            rows, why = [], str(e)
        if not why and all(row.sound for row in rows) and _reads(path):
            return Repaired(len(rows))
        if (alone_sound := _without_wal(path, sum(row.sound for row in rows))) is not None:
            return alone_sound
        if why:
            raise _beyond(folder, f"SQLite cannot read it: {why}")
        events, state, rows = _fitting(rows, folder)
        lost = [row for row in rows if not row.sound]
        new = path.with_name(f"{DB}.new")
        if new.is_dir():
            raise StoreError("there is no place for the repaired log", got=f"{new} is a folder", fix="move it away")
        new.unlink(missing_ok=True)
        store = EventStore(new)
        try:
            for event in events:
                body = {k: v for k, v in event.items() if k not in ("key", "kind", "trial", "time")}
                store.append(event["kind"], body, trial=event["trial"], key=event["key"], when=event["time"])
        finally:
            store.close()
        old = _aside(path)
        os.replace(new, path)
        again = tuple(t.number for t in state.unfinished())
        return Repaired(len(events), tuple(map(str, lost)), again, old)


def _without_wal(path: Path, known: int) -> Repaired | None:
    """Move away what stands beside a log as what was written to it last, if the log is sound
    without it, and no less (known: sound events with it): it is another file's. None if not."""
    wal = path.with_name(f"{DB}-wal")
    if not wal.exists():
        return None
    try:
        rows = survey(path, mode="still")
    except sqlite3.DatabaseError:
        return None
    if not rows or len(rows) < known or not all(row.sound for row in rows):
        return None
    old = _aside(path, ends := ("-wal", "-shm"))
    if not _reads(path):  # it is more than that: all is as it was
        for end in ends:
            if (part := old.with_name(old.name + end)).exists():
                os.replace(part, path.with_name(DB + end))
        return None
    lost = f"what {wal.name} held, without which the log is sound: it is now {old.name}-wal"
    return Repaired(len(rows), (lost,), old=old.with_name(f"{old.name}-wal"))


def _possible(rows: list[Row]) -> list[Row]:
    """The rows; one that tells of a trial which there cannot be is not sound: each has a proposal,
    which is a row."""
    most = sum(min(row.number, _GONE) for row in rows)

    def fits(row: Row) -> bool:
        trial = row.fields.get("trial")
        whole = isinstance(trial, int) and 0 <= trial < most
        return whole or (trial is None and row.fields.get("kind") != "proposed")

    return [row if not row.sound or fits(row) else replace(row, sound=False) for row in rows]


def _fitting(rows: list[Row], folder: Path) -> tuple[list[Event], StudyState, list[Row]]:
    """The events of what is sound, the state that they fold to, and the rows; one that says what
    no study writes is not sound. StoreError if too little is left."""
    for _ in range(_MISFITS):
        sound = [(i, _event(row.fields)) for i, row in enumerate(rows) if row.sound]
        place = {id(event): i for i, event in sound}
        events = list(_mended([event for _, event in sound], rows, folder))
        state, at = StudyState(folder.resolve()), -1
        try:
            for event in events:
                at = place.get(id(event), -1)
                state.fold([event])
            return events, state, rows
        except StoreError as e:
            if at < 0:
                raise _beyond(folder, f"what is sound does not fit together ({e})") from e
        rows = [replace(row, sound=False) if i == at else row for i, row in enumerate(rows)]
    raise _beyond(folder, f"more than {_MISFITS} of its events are none of a study")


def _reads(path: Path) -> bool:
    """Does SQLite find its pages whole, and the store all rows, and does a study say what they
    say?"""
    try:
        store = EventStore(path, writable=False)
        try:
            StudyState(path.parent.resolve()).fold(store.read())
        finally:
            store.close()
    except StoreError:
        return False
    return True


def _aside(path: Path, ends: tuple[str, ...] = ("-wal", "-shm", "")) -> Path:
    """Move the damaged file, with what SQLite keeps beside it, to a name that is free. ends: of the
    names of what is moved."""
    taken = ("", "-wal", "-shm")
    n = next(n for n in range(1, 1_000_000) if not any(path.with_name(f"{DB}.damaged{n}{e}").exists() for e in taken))
    for end in ends:
        if (part := path.with_name(DB + end)).exists():
            os.replace(part, path.with_name(f"{DB}.damaged{n}{end}"))
    return path.with_name(f"{DB}.damaged{n}")


def _event(fields: dict[str, Any]) -> Event:
    return {**json.loads(fields["body"]), **{k: fields[k] for k in ("key", "kind", "trial", "time")}}


def _mended(sound: list[Event], rows: list[Row], folder: Path) -> Iterator[Event]:
    """The sound events with what has to stand in for the others."""
    kinds = {e["kind"] for e in sound}
    first = sound[0]["time"] if sound else 0.0
    if "study" not in kinds:
        yield _made("study", {"config": _settings(folder)}, first, key="study")
    if "baseline" not in {_label(e) for e in sound if e["kind"] == "baseline"}:
        raise _beyond(folder, "the original's measurement, to which all others are relative, is damaged")
    proposed = {e["trial"] for e in sound if e["kind"] == "proposed"}
    told = {e["trial"] for e in sound if e["trial"] is not None}
    results = {e["trial"]: e["entry"] for e in sound if e["kind"] == "finished" and _label(e) is not None}
    number, done = 0, set[int]()

    def stand_in(at: float) -> Iterator[Event]:
        """A proposal of trial `number`, from its result if that is sound, else failed."""
        entry = results.get(number)
        unknown = {"filling": {}, "recipe": {"recipe": []}, "target": "onnxruntime"}
        body = {"note": {}, **{k: (entry or {}).get(k, v) for k, v in unknown.items()}}
        yield _made("proposed", body, at, trial=number, key=f"trial {number}")
        if entry is None:
            done.add(number)
            yield _made("failed", {"reason": REASON, "seconds": 0.0}, at, trial=number)

    for e in sound:
        trial = e["trial"]
        if e["kind"] == "proposed":
            while number < trial:
                yield from stand_in(e["time"])
                number += 1
            number = trial + 1
        elif trial is not None and trial not in proposed:
            while number <= trial:
                yield from stand_in(e["time"])
                number += 1
        if trial not in done or trial is None:
            yield e
    last = sound[-1]["time"] if sound else 0.0
    while number <= max(told, default=-1):
        yield from stand_in(last)
        number += 1
    for i in range(sum(map(_possible_looks, rows))):
        lost = {"verdict": "not certifiable", "reason": REASON}
        yield _made("certified", {"artifact": f"lost {i}", "certificate": lost, "entry": {}}, last)


def _label(event: Event) -> Any:
    entry = event.get("entry")
    return entry.get("label") if isinstance(entry, dict) else None


def _possible_looks(row: Row) -> int:
    """How many looks at test a row could have been."""
    if row.sound or not row.fields:
        return 0 if row.sound else min(row.number, LOOKS)
    kind, key, body = (str(row.fields.get(name)) for name in ("kind", "key", "body"))
    return int(kind == "certified" or key.startswith("certificate ") or '"verdict"' in body)


def _made(kind: str, body: dict[str, Any], when: float, trial: int | None = None, key: str | None = None) -> Event:
    return {**body, "kind": kind, "trial": trial, "time": when, "key": key}


def _settings(folder: Path) -> dict[str, Any]:
    """The study's settings as its last run wrote them beside the log."""
    try:
        return read_config(folder / "run.yaml").to_json()
    except (OSError, FeatherweightError) as e:
        raise _beyond(folder, "its settings are damaged, and there is no run.yaml to take them from") from e


def _beyond(folder: Path, why: str) -> StoreError:
    return StoreError(
        "this study's log cannot be repaired",
        got=f"{folder / DB}: {why}",
        fix="begin again with another --out: what was trained is found in the store",
    )
