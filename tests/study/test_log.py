"""What is told where nobody listens."""

import logging

import numpy as np

from featherweight.study.log import logged
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
