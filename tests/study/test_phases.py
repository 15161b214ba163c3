"""What a search does around its trials, each with a real worker and a tiny net: screens, supernets,
stoppers with several workers, early ends."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import featherweight as fw
from featherweight.errors import InputError
from featherweight.study.baselines import baseline_candidates
from featherweight.study.config import Settings
from featherweight.study.process import Stop, interruptible
from featherweight.study.request import check_supernet, configure
from featherweight.task.load import load_task
from tests.lean import BASELINES
from tests.waiting import GENEROUS_S

TASKS = Path(__file__).parents[1] / "tasks"
NET = fw.ConvNet(in_channels=1, classes=4, stem=8, depths=(1,), widths=(fw.Int(8, 16, step=8),))
SPACE = fw.Recipe(fw.Build(net=NET), fw.Train(epochs=fw.Choice(1, 2), lr=fw.Choice(1e-3, 1e-2, 3e-2)))
OPEN = fw.Choice("skip_connect", "nor_conv_3x3")
CELL = fw.Cell(1, 4, 4, 1, "nor_conv_3x3", OPEN, "none", "skip_connect", "none", OPEN)
CELLS = fw.Recipe(fw.Build(net=CELL), fw.Train(epochs=2, lr=1e-2))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("shared"))


@pytest.fixture(autouse=True)
def quick(shared, own_store, monkeypatch):
    """The studies of this file train their baseline once, and measure it on one runtime."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", shared)
    few = lambda c, space: baseline_candidates(c, space)[: 1 + len(c.extra_baselines)]  # noqa: E731
    monkeypatch.setattr("featherweight.study.baselines.baseline_candidates", few)


def run(out, recipe=SPACE, task="bare.py", trials=2, **more):
    budget = fw.Budget(trials=trials, **{k: more.pop(k) for k in ("enough", "stall") if k in more})
    return fw.search(
        str(TASKS / task),
        recipe,
        out=out,
        budget=budget,
        **{"measure_seconds": 0.1, "strategy": "random", "workers": 1, **more},
    )


def test_a_latency_that_no_net_can_have_is_heard_before_training_and_ends_the_search(tmp_path):
    study = run(tmp_path, constraints=[fw.max_latency("1us")], trials=1)
    rows, history = study.state.trials, study.state.trials
    assert len(rows) == 2  # a screen that refuses is no trial, twice a trial of the budget
    for row in rows:
        assert (
            row.state == "failed"
            and row.reason.startswith("over the limits before training: latency")
            and row.cost_s > 0
        )
        assert history[row.number].violation > 0 and history[row.number].values is None
    assert study.best is None and study.nearest is None and (tmp_path / "report.html").is_file()
    with fw.Study.resume(tmp_path).out.joinpath("front.json").open() as f:
        assert '"failed": 2' in f.read()  # nor does it begin anew when it goes on


def test_a_limit_that_no_description_holds_ends_the_search_with_the_reason(tmp_path):
    study = run(
        tmp_path,
        fw.Recipe(fw.Build(net=NET), fw.Train(lr=fw.Float(1e-3, 1e-1))),
        constraints=[fw.max_params(10)],
        trials=30,
    )
    assert len(study.state.trials) == 20 and all(r.cost_s == 0 for r in study.state.trials)
    assert "params <= 10" in study.front_json()["ended"]


def test_a_limit_that_cannot_be_checked_before_training_is_said_once(tmp_path):
    heard = []
    recipe = SPACE + fw.Prune(ratio=0.5, round_to=1, criterion="magnitude")
    study = run(tmp_path, recipe, constraints=[fw.max_params(10**6)], on_event=heard.append)
    said = [e for e in heard if e["kind"] == "unchecked"]
    assert len(study.state.trials) == 2 and len(said) == 1 and said[0]["step"] == "prune"
    assert (
        said[0]["text"].startswith("params cannot be checked before training where prune is used so")
        and "(first in trial 0)" in said[0]["text"]
    )
    heard.clear()
    fw.Study.resume(tmp_path, budget=fw.Budget(trials=3), on_event=heard.append)
    assert any(e["kind"] == "finished" for e in heard) and not any(e["kind"] == "unchecked" for e in heard)


def test_a_model_of_the_task_is_the_baseline_and_the_fixed_net_stands_beside_it(tmp_path):
    def both(config, space):
        return [c for c in baseline_candidates(config, space) if c[0] in ("baseline", "fixed net")]

    with patch(BASELINES, both):
        study = run(tmp_path, task="tiny.py", trials=1)
    front = study.front_json()
    assert front["reference"] == "original" and {"baseline", "fixed net"} <= set(study.state.baselines)
    assert study.state.baselines["fixed net"].params != study.state.baseline.params


@pytest.mark.slow
def test_enough_ends_the_search_and_a_larger_wish_goes_on(tmp_path):
    study = run(tmp_path, trials=3, enough=0.0)
    assert [r.state for r in study.state.trials] == ["complete"] and "reached 0" in study.state.ended
    more = fw.Study.resume(tmp_path, budget=fw.Budget(trials=2))
    assert [r.state for r in more.state.trials] == ["complete"] * 2 and more.state.ended is None


@pytest.mark.slow  # `enough` goes the same way; the rule itself is in test_ends.py
def test_stall_ends_the_search(tmp_path):
    recipe = fw.Recipe(
        fw.Build(net=fw.ConvNet(1, 4, 8, depths=(1,), widths=(8,))), fw.Train(epochs=1, lr=fw.Float(1e-3, 1e-1))
    )
    study = run(tmp_path, recipe, minimize=["params"], trials=5, stall=1)  # all have as many
    assert len(study.state.trials) == 2 and "last 1 trials brought nothing" in study.state.ended


@pytest.mark.parametrize(
    ("method", "strategy"), [("oneshot", "oneshot"), pytest.param("gumbel", "random", marks=pytest.mark.slow)]
)
def test_what_a_supernet_ranked_is_tried_first(tmp_path, method, strategy):
    study = run(tmp_path, CELLS, supernet=method, strategy=strategy)
    ranked = study.state.relaxed["ranked"]
    assert 1 <= len(ranked) <= 4 and all(set(f) == {"build.net.op_2_0", "build.net.op_3_2"} for f in ranked)
    assert [r.filling for r in study.state.trials] == ranked[:2]
    again = fw.Study.resume(tmp_path, budget=fw.Budget(trials=3))
    # trained once, and still known
    assert again.state.relaxed == study.state.relaxed and again.state.trials[2].filling not in ranked[:2]


def test_what_no_supernet_can_hold_is_refused_before_it_runs(tmp_path):
    with pytest.raises(InputError, match="oneshot"):
        run(tmp_path / "a", supernet="darts")
    with pytest.raises(InputError, match="with holes"):
        check_supernet("oneshot", fw.Recipe(fw.Build(net=fw.ConvNet(1, 4, 8)), fw.Train()))
    with pytest.raises(InputError, match="begins with Build"):
        check_supernet("oneshot", fw.Recipe(fw.Choice(fw.Build(net=NET), fw.Build(net=CELL)), fw.Train()))
    with pytest.raises(InputError, match="operations"):
        check_supernet("gumbel", fw.Recipe(fw.Build(net=fw.Cell(1, 4, fw.Choice(4, 8), 1, op_2_0=OPEN)), fw.Train()))
    check_supernet("gumbel", CELLS)
    assert not (tmp_path / "a").exists()


INTERRUPTED = """
import os, signal, sys
import featherweight as fw

signal.signal(getattr(signal, sys.argv[3]), signal.SIG_DFL)  # though these tests run under nohup

def listen(event):
    if event["kind"] == "phase" and event["name"] == "baseline":
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))

try:
    fw.search(sys.argv[1], out=sys.argv[2], budget=fw.Budget(trials=1), strategy="random", on_event=listen)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_an_interrupt_before_the_baseline_is_measured_ends_as_an_interrupt(name, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(TASKS / "bare.py"), str(tmp_path), name]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=GENEROUS_S)
    assert ended.returncode == 0 and ended.stdout.split() == ["interrupted"], ended.stderr[-2000:]


def test_a_hang_up_that_is_to_be_outlived_is(monkeypatch):
    """As under nohup."""
    monkeypatch.setattr(signal, "getsignal", lambda s: signal.SIG_IGN)
    asked = []
    monkeypatch.setattr(signal, "signal", lambda s, handler: asked.append(s))
    with interruptible(Stop(), print):
        assert asked == [signal.SIGINT, signal.SIGTERM]


@pytest.mark.slow
def test_two_workers_share_a_stopper(tmp_path):
    recipe = fw.Recipe(fw.Build(net=NET), fw.Train(epochs=4, lr=fw.Float(1e-4, 1e-1, log=True)))
    study = run(tmp_path, recipe, trials=4, workers=2, stopper="asha(eta=2)")
    rows = study.state.trials
    assert len(rows) == 4 and all(1 in r.reports for r in rows) and {r.state for r in rows} <= {"complete", "stopped"}
    assert any(r.state == "complete" for r in rows) and all(r.paused for r in rows if r.state == "stopped")
    best = min(rows, key=lambda r: r.reports[1])
    assert 2 in best.reports  # the better half goes on, continued and not anew


def test_a_stopper_may_look_after_a_fraction_of_the_data(tmp_path):
    recipe = fw.Recipe(fw.Build(net=NET), fw.Train(epochs=1, lr=fw.Float(1e-4, 1e-1, log=True), batch_size=16))
    study = run(tmp_path, recipe, trials=4, stopper="asha(eta=2, min_budget=0.25)")
    rows = study.state.trials
    assert (
        all(0.25 in r.reports and set(r.reports) <= {0.25, 0.5} for r in rows)
        and len({r.reports[0.25] for r in rows}) > 1
    )
    assert any(r.state == "complete" and 0.5 in r.reports for r in rows)
    stopped = [r for r in rows if r.state == "stopped"]
    assert stopped and all(r.paused and "asha stopped it after 0." in r.reason for r in stopped)


def test_a_floor_needs_a_metric_where_more_is_better():
    task = load_task(str(TASKS / "bare.py"))
    floor = Settings(mode="search", recipe=SPACE, budget=fw.Budget(trials=1), constraints=(fw.min_metric(0.5),))
    configure(task, floor)
    with pytest.raises(InputError, match="less is better"):
        configure(dataclasses.replace(task, metric="nll"), floor)
