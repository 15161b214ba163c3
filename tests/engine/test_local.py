"""Limits and deaths of trials, end to end: real workers, real models."""

import time
from pathlib import Path

import pytest

import featherweight as fw
from featherweight.engine.local import LocalEngine
from featherweight.engine.messages import PackageJob, Setup

TASKS = Path(__file__).parent.parent / "tasks"


class HurriedClock:
    """Stands in for the `time` module: an hour more has passed as soon as the file is there."""

    def __init__(self, file):
        self.file = file

    def monotonic(self):
        return time.monotonic() + 3600.0 * self.file.exists()


@pytest.mark.usefixtures("one_baseline")
def test_a_trial_that_dies_is_a_failed_trial_with_its_reason_and_the_search_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MOODY_HANGS", str(tmp_path / "hangs"))
    monkeypatch.setattr("featherweight.engine.local.time", HurriedClock(tmp_path / "hangs"))
    recipe = fw.Recipe(
        fw.Prune(ratio=fw.Choice(0.25, 0.5, 0.75, 0.0), allocation="uniform", round_to=4, criterion="magnitude")
    )
    budget = fw.Budget(trials=4, trial_minutes=50, trial_memory_gb=3)
    study = fw.optimize(
        str(TASKS / "moody.py"),
        recipe,
        budget=budget,
        strategy="grid",
        out=tmp_path / "run",
        workers=1,
        measure_seconds=0.2,
        minimize=["params"],
        force=True,  # its weights were never trained
    )
    by_ratio = {t["filling"]["prune.ratio"]: t for t in study.trials()}
    assert {r: t["state"] for r, t in by_ratio.items()} == {
        0.25: "failed",
        0.5: "failed",
        0.75: "failed",
        0.0: "complete",
    }
    assert "SIGSEGV" in by_ratio[0.25]["reason"]
    assert "time limit: it was still running after 3000 s" in by_ratio[0.5]["reason"]
    assert "memory limit" in by_ratio[0.75]["reason"] and "3.00 GB are allowed" in by_ratio[0.75]["reason"]
    assert study.front_json()["trials"] == {"complete": 1, "failed": 3, "stopped": 0}


@pytest.mark.usefixtures("one_baseline")
def test_a_raise_in_the_users_code_is_named_with_its_line(tmp_path):
    (tmp_path / "raises.py").write_text(
        (TASKS / "tiny.py")
        .read_text()
        .replace(
            "recipe = fw.Recipe",
            """
class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 16, 3), nn.Linear(16, 4)

    def forward(self, image):
        if self.conv.out_channels < 16:
            raise ValueError("too narrow for me")
        return self.out(self.conv(image).mean((2, 3)))


recipe = fw.Recipe""",
        )
        .replace("model=net", "model=Picky")
    )
    recipe = fw.Recipe(fw.Prune(ratio=fw.Choice(0.5, 0.0), round_to=4, criterion="magnitude"))
    study = fw.optimize(
        str(tmp_path / "raises.py"),
        recipe,
        budget=fw.Budget(trials=2),
        strategy="grid",
        out=tmp_path / "run",
        measure_seconds=0.2,
    )
    failed = [t for t in study.trials() if t["state"] == "failed"]
    assert len(failed) == 1 and "too narrow for me" in failed[0]["reason"]


def test_a_task_that_changed_meanwhile_is_refused(tmp_path):
    task, other = {"file": str(TASKS / "tiny.py"), "name": "task"}, "of another file"
    setup = Setup(task=task, seed=0, device="cpu", threads=1, store=str(tmp_path / "s"), reuse=True, fingerprint=other)
    engine = LocalEngine(setup, 1, 4_000_000_000, tmp_path / "logs")
    try:
        engine.submit(PackageJob(id=7, recipe=[], to=str(tmp_path / "m")), 900)
        outcome = first(engine)
    finally:
        engine.close()
    assert outcome.kind == "failed" and outcome.id == 7 and "changed while the search was running" in outcome.reason


def first(engine):
    for _ in range(1800):
        for message in engine.wait(0.5):
            if message.kind != "progress":
                return message
    raise AssertionError("no outcome")
