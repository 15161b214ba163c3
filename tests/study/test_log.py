"""What is told where nobody listens."""

import logging
from types import SimpleNamespace

import numpy as np

from featherweight.store.events import EventStore
from featherweight.study.log import Log, logged
from featherweight.study.state import StudyState
from tests.report import fake_study


def test_warnings_and_measurements_go_to_pythons_log(caplog):
    caplog.set_level(logging.INFO, "featherweight")
    entry = fake_study.entry(np.random.default_rng(0), 3, "prune", 0.95, 2.0, 1000).to_json()
    logged({"kind": "warning", "trial": None, "text": "interrupted: finishing"})
    logged({"kind": "finished", "trial": 3, "entry": entry})
    logged({"kind": "failed", "trial": 4, "reason": "out of memory"})
    logged({"kind": "certified", "trial": 3, "entry": entry, "certificate": {"verdict": "refuted"}})
    logged({"kind": "progress", "trial": 3, "step": "train"})
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "interrupted: finishing"),
        ("INFO", "trial 3: prune: accuracy 0.95 on validation, 2.00x, 1000 bytes"),
        ("INFO", "trial 4: failed: out of memory"),
        ("INFO", "trial 3: prune: refuted"),
    ]


def test_time_spent_does_not_follow_the_wall_clock(tmp_path, monkeypatch):
    """Which is set ten hours forward, and back, in the middle of a run."""
    wall, own = iter([1e9, 1e9 + 1, 1e9 + 36_000, 1e9 - 36_000, 1e9 + 4, 1e9 + 5] * 3), iter([0.0, 1.0, 2.5, 4.0, 7.0])
    clock = SimpleNamespace(time=lambda: next(wall), monotonic=lambda: next(own))
    monkeypatch.setattr("featherweight.study.log.time", clock)
    monkeypatch.setattr("featherweight.store.events.time", clock)
    log = Log(EventStore(tmp_path / "study.db"), lambda event: None)
    log.record("open", {"before_s": 3.0})
    for name in ("baseline", "search", "report"):
        log.record("phase", {"name": name})
    assert log.state.spent_s == 9.0 and log.state.phases["search"] == 3.0
    log.close()
    store = EventStore(tmp_path / "study.db", writable=False)
    assert StudyState().fold(store.read()).spent_s == 9.0
    store.close()


def test_studies_of_before_tell_time_by_the_wall(tmp_path):
    told = [
        {"kind": "open", "trial": None, "time": 100.0},
        {"kind": "phase", "name": "a", "trial": None, "time": 104.0},
    ]
    assert StudyState().fold(told).spent_s == 4.0
