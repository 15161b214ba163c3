"""Trials that pause and go on, end to end: real workers, real training."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import featherweight as fw
from featherweight.engine.messages import RungPlan
from featherweight.engine.runner import Runner
from featherweight.store.artifacts import ArtifactStore
from featherweight.store.events import EventStore
from featherweight.study.state import StudyState
from featherweight.train.checkpoint import Paused
from featherweight.train.loop import predict
from tests import toy
from tests.lean import BASELINES, reference_only

TINY = str(Path(__file__).parent.parent / "tasks" / "tiny.py")
RECIPE = fw.Recipe(
    fw.Prune(ratio=fw.Choice(0.0, 0.25, 0.5, 0.75), round_to=4, criterion="magnitude", allocation="uniform"),
    fw.Train(epochs=5, lr=1e-2, batch_size=16),
    fw.Maybe(fw.Quantize()),
)
ASHA = "asha(min_budget=1, eta=2)"  # rungs at 1, 2 and 4 of 5 epochs


def search(out, on_event=None, **more):
    settings = {
        "budget": fw.Budget(trials=4),
        "strategy": "grid",
        "workers": 1,
        "measure_seconds": 0.1,
        "minimize": ["params"],
    }
    return fw.optimize(TINY, RECIPE, out=out, stopper=ASHA, on_event=on_event, **{**settings, **more})


def log(out):
    store = EventStore(out / "study.db")
    try:
        return list(store.read())
    finally:
        store.close()


def trained(events):
    """(trial, epoch) of every epoch that a worker ran for a trial."""
    return [
        (e["trial"], e["epoch"]) for e in events if e["kind"] == "progress" and e["trial"] is not None and "loss" in e
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted study, and all that its listener heard."""
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BASELINES, reference_only)
        patch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path_factory.mktemp("shared")))
        return search(tmp_path_factory.mktemp("run"), heard.append), heard


def test_weak_trials_wait_and_promoted_ones_go_on_where_they_were(whole):
    study, heard = whole
    epochs = trained(heard)
    assert max(Counter(epochs).values()) == 1, "an epoch was trained twice"
    states = Counter(t["state"] for t in study.trials())
    assert states["complete"] >= 1 and states["stopped"] >= 1 and len(epochs) < 4 * 5
    paused = [t for t in study.trials() if t["paused"]]
    assert paused and all(
        t["state"] == "stopped" and t["entry"] is None and "asha stopped it after" in t["reason"] for t in paused
    )
    resumed = {e["trial"] for e in heard if e["kind"] == "paused"} & {
        e["trial"] for e in heard if e["kind"] == "finished"
    }
    assert resumed, "no paused trial went on to its end"


def test_the_log_holds_every_score_and_the_history_knows_them(whole):
    study, _ = whole
    state = StudyState().fold(log(study.out))
    told = [e for e in log(study.out) if e["kind"] in ("reported", "paused")]
    assert {(e["trial"], e["epoch"]) for e in told} == {(t.number, epoch) for t in state.trials for epoch in t.reports}
    assert all(set(t.reports) <= {1, 2, 4} and 1 in t.reports for t in state.trials if not t.reused == t.steps)
    assert all(-1 <= score <= 0 for t in state.trials for score in t.reports.values())  # minus the accuracy
    assert all(t.propose_s > 0 for t in state.trials)
    assert not state.unfinished()


def test_only_trials_that_wait_keep_a_checkpoint(whole):
    study, _ = whole
    kept = {int(p.stem) for p in (study.out / "checkpoints").iterdir()}
    assert kept == {t["number"] for t in study.trials() if t["paused"]}


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("one_baseline")
@pytest.mark.parametrize("moment", ["paused", pytest.param("reported", marks=pytest.mark.slow)])
def test_a_study_that_dies_at_a_rung_goes_on_as_if_it_had_not(whole, tmp_path, moment):
    def die(event):
        heard.append(event)
        if event["kind"] == moment and event["trial"] == (1 if moment == "paused" else event["trial"]):
            raise Killed

    heard, study = [], whole[0]
    with pytest.raises(Killed):
        search(tmp_path, die)
    resumed = search(tmp_path, heard.append)
    assert [t["filling"] for t in resumed.trials()] == [t["filling"] for t in study.trials()]
    assert [t["state"] for t in resumed.trials()] == [t["state"] for t in study.trials()]
    assert [t["reports"] for t in resumed.trials()] == [t["reports"] for t in study.trials()]
    entries = [[t["entry"] and t["entry"]["sha256"] for t in s.trials()] for s in (resumed, study)]
    assert entries[0] == entries[1], "training that was cut off gave another model"


@pytest.mark.usefixtures("one_baseline")
def test_a_larger_budget_goes_on_with_what_waits(whole, tmp_path):
    first = search(tmp_path, budget=fw.Budget(trials=2))
    assert sum(t["state"] == "complete" for t in first.trials()) == 1  # the best of two
    more = search(tmp_path, budget=fw.Budget(trials=4))
    assert len(more.trials()) == 4 and [t["filling"] for t in more.trials()] == [
        t["filling"] for t in whole[0].trials()
    ]


@pytest.mark.usefixtures("one_baseline")
def test_without_a_stopper_nobody_is_asked(tmp_path):
    heard = []
    recipe = fw.Recipe(fw.Train(epochs=fw.Choice(1, 2), lr=1e-2, batch_size=16))
    study = fw.optimize(
        TINY,
        recipe,
        out=tmp_path,
        budget=fw.Budget(trials=2),
        strategy="grid",
        measure_seconds=0.1,
        minimize=["params"],
        on_event=heard.append,
    )
    assert not [e for e in heard if e["kind"] in ("reported", "paused")] and not (tmp_path / "checkpoints").exists()
    assert all(t["state"] == "complete" and t["reports"] == {} for t in study.trials())


@pytest.mark.parametrize(
    "first",
    [
        (fw.Train(epochs=3, lr=1e-3, batch_size=16),),
        # projections are trained along
        (fw.Distill(epochs=3, lr=1e-3, batch_size=16, features=1.0),),
        # blocks do not pause
        (fw.DistillBlocks(epochs=2, lr=1e-3, batch_size=16), fw.Train(epochs=3, lr=1e-3, batch_size=16)),
    ],
    ids=["train", "hints", "blocks"],
)
def test_a_runner_pauses_the_first_training_that_can_and_no_other(tmp_path, first):
    """Neither the baseline's training nor a second one; and what comes out is what an
    unasked runner makes."""
    recipe = fw.Recipe(*first, fw.Train(epochs=4, lr=1e-3, batch_size=16, momentum=0.8))
    told, t = [], toy.task(toy.residual, epochs=5)
    go = iter([False, True])

    def ask(epoch, of, score):
        told.append((epoch, of))
        return next(go)

    runner = Runner(t, ArtifactStore(tmp_path / "store"), 0, ask=ask)
    plan = RungPlan((1, 2), (), str(tmp_path / "c.pt"))
    with pytest.raises(Paused):
        runner.model(recipe, runner.rungs(plan))
    package, _ = runner.model(recipe, runner.rungs(dataclasses.replace(plan, reported=(1,))))
    plain, _ = Runner(t, ArtifactStore(tmp_path / "other"), 0).model(recipe)
    assert told == [(1, 3), (2, 3)]
    for name, value in plain.module.state_dict().items():
        assert value.equal(package.module.state_dict()[name]), name


def test_a_score_is_the_metric_on_the_validation_split_less_is_better(tmp_path):
    t = toy.task(toy.plain)
    runner, module = Runner(t, ArtifactStore(tmp_path), 0), toy.plain()
    valid = t.splits().valid
    right = np.mean(predict(module, valid).argmax(1) == valid.batch(np.arange(len(valid)))[1])
    assert runner.score(module) == pytest.approx(-right)
    assert runner.rungs({}) is None
