"""A study's log in which something was changed: refused, and made whole of what is sound."""

import json
import math
import os
import random
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from featherweight.cli import app
from featherweight.errors import StoreError
from featherweight.store.chain import seal, survey
from featherweight.store.events import EventStore
from featherweight.study.reading import read_state
from featherweight.study.repair import REASON, repair
from featherweight.study.state import StudyState
from featherweight.study.study import Study
from tests.older import rewritten
from tests.report import fake_study

OWN = ("seq", "kind", "trial", "time")


def write(path: Path, trials: int = 12) -> list[dict]:
    """A study's log in a file, with the keys that a run gives; its events."""
    events = fake_study.events(trials)
    store = EventStore(path)
    for e in events:
        name = {"proposed": f"trial {e['trial']}", "study": "study", "info": "info"}.get(e["kind"])
        key = f"certificate {e['artifact']}" if e["kind"] == "certified" else name
        body = {k: v for k, v in e.items() if k not in OWN}
        store.append(e["kind"], body, trial=e["trial"], key=key, when=e["time"])
    store.close()
    return read(path)


def read(path: Path) -> list[dict]:
    store = EventStore(path, writable=False)
    try:
        return list(store.read())
    finally:
        store.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    events = write(folder / "study.db")
    (folder / "run.yaml").write_text(yaml.safe_dump(StudyState().fold(events).begun.to_json()))
    return folder, events


@pytest.fixture
def study(sound, tmp_path):
    shutil.copytree(sound[0], tmp_path / "study")
    return tmp_path / "study", sound[1]


def changed(folder, statement, *values):
    with sqlite3.connect(folder / "study.db") as db:
        db.execute(statement, values)
    db.close()


def flips(study, n, seed):
    """Flip one bit after the other: ("same", "refused" or "wrong"; what repair made of it)."""
    folder, events = study
    rng, data = random.Random(seed), (folder / "study.db").read_bytes()
    told = []
    for _ in range(n):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        (folder / "study.db").write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        try:
            outcome = "same" if read(folder / "study.db") == events else "wrong"
        except StoreError as e:
            outcome = "refused"
            assert e.fix, e
        try:
            found = repair(folder)
        except StoreError:
            after = "beyond repair"
        else:
            after = "whole" if found.old is None else "repaired"
            kept = {(e["kind"], e["trial"], e["time"]): e for e in read(folder / "study.db")}
            mine = {(e["kind"], e["trial"], e["time"]): e for e in events}
            for name, event in kept.items():  # what it kept is as it was, or says what stands in
                same = {k: v for k, v in event.items() if k != "seq"} == {
                    k: v for k, v in mine.get(name, {}).items() if k != "seq"
                }
                assert same or event.get("reason") == REASON or event["kind"] in ("proposed", "certified", "study")
        told.append((outcome, after))
        for left in folder.glob("study.db*"):
            left.unlink()
    return told


def test_no_flipped_bit_passes_for_something_else(study):
    told = flips(study, 120, seed=1)
    assert {outcome for outcome, _ in told} <= {"same", "refused"}
    assert sum(after != "beyond repair" for _, after in told) > 0.9 * len(told)
    assert all(after != "whole" for outcome, after in told if outcome == "refused")


@pytest.mark.slow
def test_a_thousand_flipped_bits(study):
    told = flips(study, 1000, seed=2)
    assert {outcome for outcome, _ in told} <= {"same", "refused"}
    assert sum(after != "beyond repair" for _, after in told) > 0.9 * len(told)


def test_a_file_that_was_only_made_is_a_study_that_is_yet_to_begin(study):
    folder, _ = study
    (folder / "study.db").write_bytes(b"")
    with pytest.raises(StoreError, match="holds nothing, though"):
        read(folder / "study.db")
    (folder / "run.yaml").unlink()
    assert read(folder / "study.db") == []


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(study, share):
    folder, _ = study
    data = (folder / "study.db").read_bytes()
    (folder / "study.db").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StoreError):
        read(folder / "study.db")


@pytest.mark.parametrize(
    ("statement", "lost"),  # and how many rows are not sound then
    [
        ("UPDATE events SET body = replace(body, '{', '{ ') WHERE seq = 20", 1),
        ("UPDATE events SET trial = 4 WHERE seq = 20", 1),
        ("UPDATE events SET time = time + 1 WHERE seq = 20", 1),
        ("UPDATE events SET key = NULL WHERE seq = 1", 1),
        ("UPDATE events SET seal = NULL WHERE seq = 20", 0),
        ("UPDATE events SET seal = (SELECT seal FROM events WHERE seq = 19) WHERE seq = 20", 0),
        ("DELETE FROM events WHERE seq = 20", 2),  # and the next, whose seal goes on from it
        ("UPDATE events SET seq = 100000 WHERE seq = 20", 4),
        ("INSERT INTO events (study, kind, time, body) VALUES ('study', 'phase', 1.0, '{}')", 1),
    ],
)
def test_a_row_that_was_changed_removed_added_or_moved_shows(study, statement, lost):
    folder, _ = study
    changed(folder, statement)
    with pytest.raises(StoreError, match="not as it was written") as e:
        Study.open(folder)
    assert "featherweight repair" in e.value.fix and "events are sound" in e.value.got
    assert sum(not r.sound for r in survey(folder / "study.db")) == lost
    repair(folder)
    Study.open(folder)


def test_a_result_that_is_lost_is_run_again(study):
    folder, events = study
    number = next(e["trial"] for e in events if e["kind"] == "finished")
    changed(folder, "UPDATE events SET body = '{}' WHERE trial = ? AND kind = 'finished'", number)
    result = CliRunner().invoke(app, ["front", str(folder)])
    assert result.exit_code == 1 and f"finished of trial {number}" in result.stderr
    result = CliRunner().invoke(app, ["repair", str(folder)])
    assert result.exit_code == 0 and f"To run again: trials {number}." in result.stdout
    state = StudyState().fold(read(folder / "study.db"))
    assert [t.number for t in state.unfinished()] == [number]
    before = StudyState().fold(events)
    assert [t.entry for t in state.trials if t.number != number] == [
        t.entry for t in before.trials if t.number != number
    ]
    assert (folder / "study.db.damaged1").is_file()
    assert CliRunner().invoke(app, ["repair", str(folder)]).stdout.startswith("Nothing to repair")


def test_a_proposal_that_is_lost_is_told_from_its_result_or_failed(study):
    folder, events = study
    finished = next(e["trial"] for e in events if e["kind"] == "finished")
    failed = next(e["trial"] for e in events if e["kind"] == "failed")
    for number in (finished, failed):
        changed(folder, "UPDATE events SET body = '{}' WHERE trial = ? AND kind = 'proposed'", number)
    repair(folder)
    state, before = (StudyState().fold(e) for e in (read(folder / "study.db"), events))
    assert len(state.trials) == len(before.trials)
    assert state.trials[finished].entry == before.trials[finished].entry
    assert state.trials[failed].reason == REASON and state.trials[failed].state == "failed"


def test_a_look_that_is_lost_has_taken_its_share_of_the_level(study):
    folder, events = study
    before = StudyState().fold(e for e in events if e["kind"] != "certified").level
    changed(folder, "UPDATE events SET body = '{}' WHERE kind = 'certified'")
    repair(folder)
    state = StudyState().fold(read(folder / "study.db"))
    assert state.level < before and len(state.certificates) == 1 and state.best().certificate is None


def test_settings_come_from_run_yaml_and_without_them_nothing_is_repaired(study):
    folder, events = study
    changed(folder, "UPDATE events SET body = '{}' WHERE kind = 'study'")
    repair(folder)
    assert StudyState().fold(read(folder / "study.db")).begun == StudyState().fold(events).begun
    changed(folder, "UPDATE events SET body = '[]' WHERE kind = 'study'")
    (folder / "run.yaml").unlink()
    with pytest.raises(StoreError, match="cannot be repaired"):
        repair(folder)


def test_without_the_originals_measurement_nothing_is_repaired(study):
    folder, _ = study
    changed(folder, "UPDATE events SET body = '{}' WHERE kind = 'baseline'")
    with pytest.raises(StoreError, match="the original's measurement"):
        repair(folder)


def test_a_log_of_before_there_were_seals_is_read_and_gets_them(study):
    folder, events = study
    rewritten(folder / "study.db")
    data = (folder / "study.db").read_bytes()
    assert read(folder / "study.db") == events and (folder / "study.db").read_bytes() == data
    store = EventStore(folder / "study.db")
    assert list(store.read()) == events and store.append("phase", {"name": "again"})
    store.close()
    assert len(read(folder / "study.db")) == len(events) + 1
    changed(folder, "UPDATE events SET body = '{}' WHERE seq = 9")
    with pytest.raises(StoreError, match="not as it was written"):
        read(folder / "study.db")


def test_a_log_of_a_version_to_come_is_refused(study):
    changed(study[0], "PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="newer version"):
        read(study[0] / "study.db")


@pytest.mark.parametrize("name", ["q?1", "a%20b", "a b#c", "ä;&=x"])
def test_a_folder_is_the_one_that_is_named(name, tmp_path):
    write(tmp_path / name / "study.db", 1)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(Study.open(tmp_path / name).trials()) == 1


def test_every_row_of_a_body_is_json(sound):
    assert all(json.loads(r.fields["body"]) is not None for r in survey(sound[0] / "study.db"))


def test_a_look_leaves_nothing_and_sees_what_is_being_written(tmp_path):
    path = tmp_path / "study.db"
    store = EventStore(path)
    store.append("a")
    assert [e["kind"] for e in read(path)] == ["a"]  # not checkpointed yet
    store.append("b")
    assert [e["kind"] for e in read(path)] == ["a", "b"]
    store.close()
    assert [e["kind"] for e in read(path)] == ["a", "b"] and len(survey(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["study.db"]


def test_a_log_without_any_seal_is_none_of_this_version(study):
    changed(study[0], "UPDATE events SET seal = NULL")
    with pytest.raises(StoreError, match="not as it was written"):
        read(study[0] / "study.db")
    with pytest.raises(StoreError, match="cannot be repaired"):
        repair(study[0])


def test_a_trigger_in_a_log_is_not_pulled(study):
    folder, events = study
    changed(folder, "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events WHERE seq = 13; END")
    for writable in (True, False):
        with pytest.raises(StoreError, match="a trigger, 't'"):
            EventStore(folder / "study.db", writable=writable)
    assert repair(folder).kept == len(events) and read(folder / "study.db") == events


@pytest.mark.parametrize(
    "made",
    [
        "CREATE VIEW events AS WITH RECURSIVE c(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM c) SELECT seq, 's' AS "
        "study, NULL AS key, 'k' AS kind, 0 AS trial, 0.0 AS time, '{}' AS body, '' AS seal FROM c",
        "CREATE TABLE events (seq INTEGER PRIMARY KEY, study TEXT, key TEXT, kind TEXT, trial INTEGER, time FLOAT, "
        "body TEXT, seal TEXT AS (hex(zeroblob(400000000))))",
    ],
)
def test_a_log_that_computes_is_not_asked(made, tmp_path):
    with closing(sqlite3.connect(tmp_path / "study.db")) as db:
        db.execute(made)
        with suppress(sqlite3.DatabaseError):
            db.execute("INSERT INTO events (seq, study, body) VALUES (1, 'study', '{}')")
        db.commit()
    for writable in (True, False):
        with pytest.raises(StoreError, match="which no study makes"):
            EventStore(tmp_path / "study.db", writable=writable)
    with pytest.raises(StoreError, match="cannot be repaired"):
        repair(tmp_path)


def resealed(folder, change):
    """A log in which somebody changed the rows, each a list of its fields, and sealed all anew."""
    with closing(sqlite3.connect(folder / "study.db")) as db, db:
        rows = [list(row) for row in db.execute("SELECT * FROM events ORDER BY seq")]
        change({row[0]: row for row in rows})
        db.execute("DELETE FROM events")
        head = ""
        for row in rows:
            head = seal(head, *row[1:7])
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [*row[:7], head])


def put(kind, change):
    """Change what the first event of a kind says."""

    def work(rows):
        row = next(row for row in rows.values() if row[3] == kind)
        row[6] = json.dumps(change(json.loads(row[6])))

    return work


ODD = {
    "a result that is a word": put("finished", lambda b: b | {"entry": "x"}),
    "a result of nothing": put("finished", lambda b: b | {"entry": {}}),
    "no number": put("finished", lambda b: b | {"entry": b["entry"] | {"size_bytes": math.nan}}),
    "less than nothing": put("finished", lambda b: b | {"entry": b["entry"] | {"params": -1}}),
    "a label that is none": put("finished", lambda b: b | {"entry": b["entry"] | {"label": 3}}),
    "a filling of nobody": put("proposed", lambda b: {}),
    "info that is a list": put("info", lambda b: {"info": []}),
    "a certificate that is a word": put("certified", lambda b: b | {"certificate": "certified"}),
    "settings that are a word": put("study", lambda b: {"config": "x"}),
    "a trial of nobody": lambda rows: next(r for r in rows.values() if r[3] == "finished").__setitem__(4, None),
    "a trial below nothing": lambda rows: next(r for r in rows.values() if r[3] == "finished").__setitem__(4, -1),
    "a trial that there cannot be": lambda rows: next(r for r in rows.values() if r[3] == "proposed").__setitem__(
        4, 10**9
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_no_study_writes_is_an_error_that_names_the_event_and_is_repaired(name, study):
    """Though all seals are whole."""
    folder, events = study
    resealed(folder, ODD[name])
    result = CliRunner().invoke(app, ["front", str(folder)])
    assert result.exit_code == 1 and "bug" not in result.stderr and "repair" in result.stderr, result.stderr
    found = repair(folder)
    assert 1 <= len(found.lost) <= 2 and found.kept >= len(events) - 2
    assert CliRunner().invoke(app, ["front", str(folder)]).exit_code == 0
    assert repair(folder).lost == ()


def test_numbers_of_rows_that_jump_are_no_gap_if_the_seals_go_on(study):
    folder, events = study
    changed(folder, "UPDATE events SET seq = seq + 1000 WHERE seq > 20")
    assert len(read(folder / "study.db")) == len(events) and repair(folder).lost == ()


def test_a_log_that_lost_its_seals_is_no_older_one(study):
    folder, _ = study
    with closing(sqlite3.connect(folder / "study.db")) as db, db:
        db.execute("UPDATE events SET body = json_set(body, '$.at_s', 1.5)")  # as runs write it
        db.execute("UPDATE events SET body = replace(body, '\"at_s\":', '\"at_s\": '), seal = NULL")
        db.execute("PRAGMA user_version = 0")
    for writable in (True, False):
        with pytest.raises(StoreError, match="rows had seals"):
            EventStore(folder / "study.db", writable=writable)
    with pytest.raises(StoreError, match="cannot be repaired"):
        repair(folder)


def test_a_wal_of_another_database_is_moved_away(study):
    """A sound log is not lost with it."""
    study, _ = study
    before = read_state(study).front_json()
    other = sqlite3.connect(study.parent / "other.db")
    other.execute("pragma journal_mode=wal")
    other.execute("create table pupils (name)")
    other.executemany("insert into pupils values (?)", [("x" * 500,)] * 500)
    other.commit()
    wal = (study.parent / "other.db-wal").read_bytes()
    other.close()
    for text in (wal, b"no wal at all"):
        (study / "study.db-wal").write_bytes(text)
        found = repair(study)
        assert read_state(study).front_json() == before
        if found.old is not None:
            assert found.old.read_bytes() == text and "study.db-wal" in found.lost[0]
    assert list(study.glob("study.db.damaged*-wal"))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_log_that_is_no_file_is_named(kind, study):
    study, _ = study
    log = study / "study.db"
    log.unlink()
    made = {"pipe": lambda: os.mkfifo(log), "folder": log.mkdir, "device": lambda: log.symlink_to("/dev/null")}
    made[kind]()
    for command in (repair, read_state, Study.resume):
        with pytest.raises(StoreError, match=f"(?s)study.db is a .*{kind}"):
            command(study)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("baseline", lambda e: e["entry"]["recipe"].update(recipe=[0])),
        ("baseline", lambda e: e["entry"]["recipe"].update(recipe=-1)),
        ("baseline", lambda e: e["entry"].update(parity=[])),
        ("proposed", lambda e: e.update(recipe={"recipe": [{"prune": 3}]})),
        ("proposed", lambda e: e.update(features=0.5)),
        ("certified", lambda e: e["certificate"].update(max_drop="")),
        ("info", lambda e: e["info"]["splits"].update(classes=0.5)),
        ("info", lambda e: e["info"]["splits"].update(classes={"0": {"train": "x"}})),
        ("info", lambda e: e["info"]["splits"].update(sizes=[1])),
        ("info", lambda e: e["info"]["splits"].update(class_names=[3])),
        ("info", lambda e: e["info"].update(machine=0)),
    ],
)
def test_events_of_another_shape_are_no_studys(kind, change, study):
    """Whoever wrote the log sealed it."""
    study, _ = study
    with sqlite3.connect(study / "study.db") as db:
        query = "SELECT seq, body FROM events WHERE kind = ? LIMIT 1"
        ((seq, body),) = db.execute(query, (kind,)).fetchall()
    db.close()
    change(event := json.loads(body))
    rewritten(study / "study.db", ("UPDATE events SET body = ? WHERE seq = ?", json.dumps(event), seq))
    with pytest.raises(StoreError, match="says what no study writes"):
        Study.open(study)
