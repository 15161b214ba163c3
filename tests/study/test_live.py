import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from featherweight.store.events import EventStore
from featherweight.study.live import LiveView, step_text
from tests.report.fake_study import events


def view(out, terminal=False, width=110):
    return LiveView(Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False), out)


def drawn(v):
    console = Console(file=io.StringIO(), width=v.console.width)
    console.print(v.render())
    return console.file.getvalue()


def test_one_line_an_event_where_there_is_no_terminal(tmp_path):
    with view(tmp_path) as v:
        for e in events(30):
            v(e)
    lines = v.console.file.getvalue().splitlines()
    assert sum("trial 0:" in line for line in lines) == 1
    assert any("failed: killed by signal SIGSEGV" in line for line in lines)
    assert any("certified: prune(" in line for line in lines)
    assert sum("baseline '" in line for line in lines) == 4
    assert "\x1b[" not in v.console.file.getvalue()


def test_status_counts_what_the_study_counts(tmp_path):
    v = view(tmp_path)
    log = events(30)
    for e in log:
        v(e)
    states = [r.state for r in v.state.trials]
    text = v.status()
    assert f"trial 30 of 40, {states.count('complete')} measured, {states.count('failed')} failed" in text
    assert f"{v.state.reused} of {v.state.steps} steps reused" in text


def test_time_left_follows_the_budget(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("featherweight.study.live.time", clock)
    v = view(tmp_path)
    for e in events(3):
        v(e)
    v({"kind": "budget", "trial": None, "spent_s": 60.0, "of_s": 180})
    assert "2 min 00 s left of 3 min 00 s" in v.status()
    assert v.share() == pytest.approx(60 / 180)
    clock.now += 30.0  # it goes on between two words of the study
    assert "1 min 30 s left of 3 min 00 s" in v.status() and v.share() == pytest.approx(90 / 180)
    v({"kind": "budget", "trial": None, "spent_s": 500.0, "of_s": 180})
    assert "0 s left" in v.status() and v.share() == 1.0


def test_view_shows_steps_front_and_that_ctrl_c_was_heard(tmp_path):
    v = view(tmp_path, terminal=True)
    log = events(20)
    for e in log[:-1]:
        v(e)
    v({"kind": "progress", "trial": 19, "step": "train", "epoch": 2, "of": 5})
    text = drawn(v)
    assert "trial 19: train, epoch 2 of 5" in text and "The front so far" in text and "Ctrl-C" not in text
    v({"kind": "warning", "trial": None, "text": "interrupted: finishing with what there is"})
    assert v.interrupted and "Ctrl-C was heard" in drawn(v)


@pytest.mark.parametrize("terminal", [True, False])
def test_limits_that_cannot_be_checked_before_training_are_said(tmp_path, terminal):
    v = view(tmp_path, terminal)
    with v:
        v(
            {
                "kind": "unchecked",
                "trial": None,
                "step": "new_step",
                "text": "params cannot be checked before training",
                "time": 1.0,
            }
        )
    assert "params cannot be checked before training" in v.console.file.getvalue()


def test_before_anything_is_known(tmp_path):
    v = view(tmp_path)
    assert "Starting" in drawn(v) and v.share() == 0.0
    v(
        {
            "kind": "proposed",
            "trial": 0,
            "filling": {},
            "note": {},
            "recipe": {"recipe": []},
            "target": "onnxruntime",
            "time": 1.0,
        }
    )
    v({"kind": "failed", "trial": 0, "reason": "[/] odd markup", "seconds": 1.0, "time": 2.0})
    assert "[/] odd markup" in v.console.file.getvalue()


def test_a_study_that_goes_on_shows_what_was_there(tmp_path):
    store = EventStore(tmp_path / "study.db")
    for e in events(10):
        store.append(e["kind"], {k: x for k, x in e.items() if k not in ("kind", "trial", "time")}, trial=e["trial"])
    store.close()
    with view(tmp_path) as v:
        assert len(v.state.trials) == 10
        assert "The front so far" in drawn(v)


def test_live_view_starts_and_stops_in_a_terminal(tmp_path):
    v = view(tmp_path, terminal=True)
    with v:
        for e in events(5):
            v(e)
    assert v._live is not None and not v._live.is_started


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error")])
def test_a_study_goes_on_when_nobody_reads_what_it_says(error, tmp_path):
    """As behind `| head`, or when its terminal was closed."""

    class Closed(io.StringIO):
        def write(self, text):
            raise error

    v = LiveView(Console(file=Closed()), tmp_path)
    with v:
        for e in events(5):
            v(e)
    assert len(v.state.trials) == 5 and v.console.quiet


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"step": "train", "epoch": 2, "of": 5, "loss": 0.5}, "train, epoch 2 of 5, loss 0.5"),
        ({"step": "export"}, "export"),
        ({}, "starting"),
    ],
)
def test_step_text(event, text):
    assert step_text(event) == text
