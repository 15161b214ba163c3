"""A study from end to end: results, resuming, kills, refusals."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import featherweight as fw
from featherweight.errors import InputError, RecipeError, StoreError
from featherweight.store.artifacts import sha256_file
from featherweight.store.events import EventStore
from featherweight.study import baselines
from featherweight.study.request import configure
from featherweight.study.state import StudyState
from tests import simulated, toy
from tests.waiting import GENEROUS_S, logged, until

TINY = str(Path(__file__).parents[1] / "tasks" / "tiny.py")
FAST = {
    "measure_seconds": 0.2,
    "minimize": ["params", "size"],
    "strategy": "greedy",
    "seed": 1,
    "constraints": [fw.max_drop(0.05)],
}
ENTRY = {
    "label",
    "trial",
    "recipe",
    "feasible",
    "violations",
    "metric",
    "certificate",
    "latency_ms",
    "speedup",
    "size_bytes",
    "peak_memory_bytes",
    "params",
    "macs",
    "artifact",
    "sha256",
}


def run(out, trials, **more):
    return fw.optimize(TINY, out=out, **{"budget": fw.Budget(trials=trials), **FAST, **more})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    before = os.environ.get("FEATHERWEIGHT_CACHE")
    os.environ["FEATHERWEIGHT_CACHE"] = str(tmp_path_factory.mktemp("shared"))
    try:
        return run(tmp_path_factory.mktemp("run"), 8)
    finally:
        os.environ.pop("FEATHERWEIGHT_CACHE") if before is None else os.environ.update(FEATHERWEIGHT_CACHE=before)


def test_front_json_has_the_promised_form(study):
    front = json.loads((study.out / "front.json").read_text())
    assert front["format"] == 1 and front["task"] == "tiny" and front["trials"]["complete"] == 8
    for e in [front["baseline"], *front["baselines"], *front["front"], front["best"]]:
        assert e.keys() >= ENTRY
        assert (
            e["metric"]["split"] == "valid" and e["metric"]["ci95"][0] <= e["metric"]["value"] <= e["metric"]["ci95"][1]
        )
        assert e["latency_ms"].keys() >= {"median", "p90", "n"} and e["speedup"].keys() >= {"ratio", "ci95"}
    assert [b["label"] for b in front["baselines"]][:1] == ["baseline"] and front["baseline"]["speedup"]["ratio"] == 1
    assert {"plain int8", "random cutting"} <= {b["label"] for b in front["baselines"]} | set(front["failed_baselines"])
    assert front["cache"]["reused"] > 0 and front["budget"]["spent_s"] > 0


def test_the_best_is_feasible_smaller_and_has_a_certificate_from_the_test_split(study):
    best = study.front_json()["best"]
    assert best["feasible"] and best["params"] < study.front_json()["baseline"]["params"]
    assert (
        best["certificate"]["split"] == "test" and best["certificate"]["n"] == study.info()["splits"]["sizes"]["test"]
    )
    assert best["certificate"]["verdict"] in ("certified", "refuted", "not certifiable")


def test_no_filling_is_tried_twice(study):
    keys = [json.dumps(t["filling"], sort_keys=True) for t in study.trials()]
    assert len(set(keys)) == len(keys) == 8


def test_best_holds_a_file_that_runs_and_what_it_was_made_from(study, tmp_path):
    import onnxruntime as ort

    best = study.out / "best"
    manifest = json.loads((best / "manifest.json").read_text())
    assert {"model.onnx", "model/model.safetensors", "model/spec.json", "recipe.json", "MODEL_CARD.md"} <= set(
        manifest["files"]
    )
    assert all(sha256_file(best / name) == digest for name, digest in manifest["files"].items())
    session = ort.InferenceSession(str(best / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": np.zeros((3, 1, 8, 8), "float32")})[0].shape == (3, 4)
    exported = study.export(tmp_path / "out")
    assert (exported / "model.onnx").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="not empty"):
        study.export(tmp_path / "full")
    with pytest.raises(InputError, match="is a file"):
        study.export(tmp_path / "full" / "mine.txt")
    with pytest.raises(InputError, match="no artifact"):
        study.export(tmp_path / "other", trial=99)
    for label, entry in study.state.baselines.items():  # as it is what others are compared with
        made = json.loads((study.export(tmp_path / label.replace(" ", "-"), label) / "manifest.json").read_text())
        assert made["sha256"] == entry.sha256
    assert (study.export(tmp_path / "shown", "random cutting (3 epochs)") / "manifest.json").is_file()
    with pytest.raises(InputError, match="no such baseline") as e:
        study.export(tmp_path / "none", "int7")
    assert "'baseline'" in e.value.allowed


def test_a_trial_is_shown_with_what_it_printed(study):
    log = study.out / "logs" / "trial-2.log"
    log.write_bytes(b"epoch 1\r\n\x1b[31mred\xff\n")
    try:
        told = study.trial(2)
    finally:
        log.unlink()
    assert told["number"] == 2 and told["printed"] == "epoch 1\n?[31mred\ufffd\n"
    assert told["lines"][0].startswith("Trial 2: complete in") and any("prune.ratio = " in x for x in told["lines"])
    assert any(line.startswith("Limits: ") for line in told["lines"]) and "accuracy" in " ".join(told["lines"])
    with pytest.raises(InputError, match="no such trial") as e:
        study.trial(99)
    assert e.value.allowed == "0 to 7"


def test_the_report_is_one_file_without_network(study):
    loads = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag, attrs):
            loads.extend(
                v
                for k, v in attrs
                if k in ("src", "href", "srcset", "data") and tag != "a" and v and not v.startswith(("data:", "#"))
            )

    page = (study.out / "report.html").read_text()
    Finder().feed(page)
    assert "tiny" in page and not loads


def test_a_finished_study_opens_and_the_same_call_again_runs_nothing(study, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    opened = fw.Study.open(study.out)
    assert opened.front_json()["best"] == study.front_json()["best"]
    assert list(opened.front["label"]) == list(study.front["label"])
    events = []
    again = fw.optimize(TINY, budget=fw.Budget(trials=8), out=study.out, on_event=events.append, **FAST)
    assert not [e for e in events if e["kind"] in ("proposed", "started", "finished", "baseline", "certified")]
    assert again.trials() == study.trials()


def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    run(tmp_path, 3)
    resumed = fw.Study.resume(tmp_path, budget=fw.Budget(trials=8))
    assert [t["filling"] for t in resumed.trials()] == [t["filling"] for t in study.trials()]
    assert [t["entry"]["sha256"] for t in resumed.trials()] == [t["entry"]["sha256"] for t in study.trials()]


def test_other_settings_in_the_same_folder_are_refused(study):
    with pytest.raises(StoreError, match="other settings"):
        run(study.out, 8, seed=5)
    with pytest.raises(StoreError, match="strategy"):
        run(study.out, 8, strategy="random")


@pytest.mark.usefixtures("one_baseline")
def test_nothing_feasible_returns_the_nearest_and_names_the_constraint(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    done = run(tmp_path, 2, constraints=[fw.max_drop(0.05), fw.max_params(10)])
    front = done.front_json()
    assert front["best"] is None and front["front"] == [] and done.best is None
    assert (
        front["nearest"]["violations"][0]["constraint"] == "params <= 10"
        and front["nearest"]["violations"][0]["excess"] > 0
    )
    assert (tmp_path / "best" / "model.onnx").exists() and done.nearest is not None


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"strategy": "magic"}, "magic"),
        ({"minimize": ["speed"]}, "objective"),
        ({"minimize": []}, "minimize"),
        ({"target": "abacus"}, "abacus"),
        ({"target": "onnxruntime:fp32:threads=none"}, "not understood"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(tmp_path, wrong, match):
    with pytest.raises(InputError, match=match):
        run(tmp_path / "x", 2, **wrong)
    assert not (tmp_path / "x").exists()


def test_an_illegal_order_is_refused_with_the_legal_one(tmp_path):
    with pytest.raises(RecipeError, match="prune -> quantize"):
        fw.optimize(TINY, fw.Recipe(fw.Quantize(), fw.Prune()), budget=fw.Budget(trials=2), out=tmp_path / "x", **FAST)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_baseline")
def test_an_order_hole_tries_legal_orders_and_records_why_others_are_refused(tmp_path):
    recipe = fw.Recipe(fw.Order(fw.Prune(ratio=0.5, round_to=4, criterion="magnitude"), fw.Quantize()))
    trials = fw.optimize(
        TINY, recipe, budget=fw.Budget(trials=5), out=tmp_path, **{**FAST, "strategy": "grid"}
    ).trials()
    assert sorted(t["state"] for t in trials) == ["complete", "failed"]
    assert "cannot follow quantize" in next(t["reason"] for t in trials if t["state"] == "failed")


@pytest.mark.usefixtures("one_baseline")
def test_a_refused_trial_is_not_taken_from_the_budget(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    recipe = fw.Recipe(fw.Order(fw.Prune(ratio=fw.Choice(0.25, 0.5), round_to=4, criterion="magnitude"), fw.Quantize()))
    trials = fw.optimize(
        TINY, recipe, budget=fw.Budget(trials=2), out=tmp_path, **{**FAST, "strategy": "grid"}
    ).trials()
    assert sum(t["state"] == "complete" for t in trials) == 2
    refused = [t for t in trials if t["state"] == "failed"]
    assert refused and all("cannot follow quantize" in t["reason"] for t in refused)


@pytest.mark.usefixtures("one_baseline")
def test_a_task_that_no_file_names_works_too(tmp_path):
    task = toy.task(toy.plain)
    recipe = fw.Recipe(fw.Prune(ratio=0.5, round_to=4, criterion="magnitude"))
    study = fw.optimize(task, recipe, budget=fw.Budget(trials=1), out=tmp_path, reuse=False, **FAST)
    assert study.front_json()["trials"]["complete"] == 1 and study.front_json()["cache"]["reused"] == 0
    with pytest.raises(InputError, match="made in a program"):
        fw.Study.resume(tmp_path)


@pytest.mark.slow
def test_without_reuse_every_step_is_computed(tmp_path):
    study = run(tmp_path, 2, reuse=False)
    assert study.front_json()["trials"]["complete"] == 2 and study.front_json()["cache"]["reused"] == 0


SCRIPT = """
import sys, featherweight as fw
from tests import lean
lean.start(lean.reference_only)
fw.optimize(sys.argv[1], budget=fw.Budget(trials=int(sys.argv[3])), out=sys.argv[2], measure_seconds=0.2,
            minimize=["params", "size"], strategy="greedy", constraints=[fw.max_drop(0.05)])
"""


def start(out, trials):
    command = [sys.executable, "-c", SCRIPT, TINY, str(out), str(trials)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])


def check_log(out, trials):
    """No finished trial lost, repeated or stuck."""
    store = EventStore(out / "study.db")
    events = list(store.read())
    store.close()
    finished = Counter(e["trial"] for e in events if e["kind"] in ("finished", "failed"))
    assert finished == Counter(range(trials)), "lost or repeated"
    assert not StudyState().fold(events).unfinished(), "stuck"


@pytest.mark.parametrize(("kills", "trials"), [(2, 8), pytest.param(20, 24, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_loses_and_repeats_no_finished_trial(tmp_path, kills, trials):
    rng, log = random.Random(kills), tmp_path / "study.db"
    for _ in range(kills):
        process, enough = start(tmp_path, trials), logged(log) + rng.randint(2, 12)
        until(lambda process=process, enough=enough: logged(log) >= enough or process.poll() is not None, "progress")
        time.sleep(rng.uniform(0, 0.5))  # in the middle of what comes next
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    process = start(tmp_path, trials)
    _, err = process.communicate(timeout=GENEROUS_S)
    assert process.returncode == 0, err.decode()[-2000:]
    check_log(tmp_path, trials)


def test_ctrl_c_once_finishes_with_what_there_is(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    process = start(tmp_path, 500)
    until(lambda: logged(tmp_path / "study.db", "finished") or process.poll() is not None, "finished trial")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=GENEROUS_S)
    assert process.returncode == 0, err.decode()[-2000:]
    front = json.loads((tmp_path / "front.json").read_text())
    assert front["trials"]["complete"] >= 1 and front["trials"]["stopped"] <= 1 and (tmp_path / "report.html").exists()


def test_a_script_that_runs_again_exports_again(study, tmp_path):
    first = study.best.export(tmp_path / "out")
    assert study.best.export(tmp_path / "out") == first
    assert (first / "model" / "model.safetensors").stat().st_mode & 0o044  # others can read it
    (first / "README.md").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        study.best.export(tmp_path / "out")


@pytest.mark.slow
def test_baselines_that_an_interrupt_left_out_are_heard_of_when_the_study_goes_on(study, tmp_path, monkeypatch):
    """What the strategy is told is logged once, so not before they are all measured."""
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])

    measured = baselines._measure_first

    def interrupted(jobs, *how):
        measured(jobs, *how)
        jobs.stop.asked = True

    with monkeypatch.context() as patched:
        patched.setattr(baselines, "_measure_first", interrupted)
        early = run(tmp_path, 8)
    assert len(early.state.baselines) == 1 and early.state.warm is None
    later = run(tmp_path, 8)
    assert later.state.warm["guesses"] == study.state.warm["guesses"]
    assert len(later.state.warm["earlier"]) == len(study.state.warm["earlier"]) > 1


def test_two_searches_in_one_folder_are_refused(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    process = start(tmp_path, 500)
    try:
        until(lambda: _started(tmp_path) or process.poll() is not None, "worker")
        with pytest.raises(StoreError, match="another search"):
            run(tmp_path, 501)
        assert fw_events(tmp_path).count("budget") == 0, "the refused run wrote into the other's log"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def fw_events(out):
    store = EventStore(out / "study.db")
    try:
        return [e["kind"] for e in store.read()]
    finally:
        store.close()


def _started(out):
    return (out / "logs").exists() and any((out / "logs").iterdir())


@pytest.mark.usefixtures("one_baseline")
def test_a_plan_that_the_target_cannot_realise_is_refused_before_anything_runs(study, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", study.config["store"])
    recipe = fw.Recipe(
        fw.Prune(ratio=0.5, round_to=4, criterion="magnitude"), fw.Quantize(scheme="int8-dynamic", granularity="tensor")
    )
    trial = fw.optimize(TINY, recipe, budget=fw.Budget(trials=1), out=tmp_path, target="openvino", **FAST).trials()[0]
    assert trial["state"] == "failed" and trial["seconds"] == 0 and "per channel" in trial["reason"]


def test_a_budget_too_short_for_the_baseline_says_so(tmp_path, monkeypatch):
    with pytest.raises(fw.FeatherweightError, match="raise the budget's minutes"):
        timed(tmp_path, monkeypatch, takes(trial=2.0), minutes=0.02)


def takes(trial=2.0, certificate=1.8, hangs=()):
    """Seconds of a simulated job. hangs: kinds of jobs, or numbers of trials, that never end."""

    def seconds(job):
        if job.kind in hangs or getattr(job, "trial", None) in hangs:
            return simulated.HANGS
        return {"trial": trial, "certify": certificate, "package": 0.5}[job.kind]

    return seconds


def timed(out, monkeypatch, seconds, minutes=1.0, workers=1, start_s=0.0, **more):
    """(study, its engine, its events, when it began and when it ended) on a simulated clock."""
    clock, heard, engines = simulated.Clock(), [], []

    def engine(setup, workers, memory_bytes, logs):
        engines.append(simulated.Engine(clock, workers, seconds, start_s))
        return engines[0]

    for name in simulated.CLOCKS:
        monkeypatch.setattr(name, clock)
    monkeypatch.setattr(simulated.ENGINE, engine)
    began = clock.now
    study = run(out, 500, budget=fw.Budget(minutes=minutes), workers=workers, on_event=heard.append, **more)
    return study, engines[0], heard, began, clock.now


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(takes(), id="as predicted"),
        pytest.param(takes(trial=7.0), id="long trials"),
        pytest.param(takes(trial=0.7), id="short trials"),
        pytest.param(takes(certificate=9.0), id="dear certificates"),
        pytest.param(takes(hangs=(2,)), id="a trial hangs"),
        pytest.param(takes(hangs=("certify",)), id="certificates hang"),
        pytest.param(takes(trial=1.0, certificate=3.0, hangs=(1, "certify")), id="both hang"),
    ],
)
def test_the_minutes_hold(tmp_path, monkeypatch, seconds, workers):
    """Certificate and package included; and they are used, and there is something
    to show for them."""
    study, engine, heard, began, ended = timed(tmp_path, monkeypatch, seconds, workers=workers)
    front = study.front_json()
    assert ended - began <= 60 * 1.05 and front["budget"]["spent_s"] == pytest.approx(ended - began, abs=0.01)
    assert front["trials"]["complete"] > 0 and front["best"]["feasible"]
    # the space has no more
    exhausted = front["trials"]["complete"] + front["trials"]["failed"] >= 30
    assert exhausted or ended - began >= 60 * 0.7
    assert all(when + timeout_s <= began + 60.0 for when, job, timeout_s in engine.submitted if job.kind == "trial")
    assert all(
        t["reason"] == "the search's share of the time was up" for t in study.trials() if t["state"] == "stopped"
    )


@pytest.mark.parametrize("trial", [2.0, 11.0, 25.0])
def test_the_minutes_hold_where_workers_start_slowly(tmp_path, monkeypatch, trial):
    """Also after a trial that is ended with the search, whose worker goes with it."""
    study, _, _, began, ended = timed(tmp_path, monkeypatch, takes(trial=trial), minutes=3.0, start_s=15.0)
    front = study.front_json()
    assert ended - began <= 180 * 1.05 and front["best"]["certificate"]["verdict"] == "certified"


def test_time_is_kept_for_the_certificates(tmp_path, monkeypatch):
    """As much as the baseline's latency foretells: 8 looks and two more, each a process and 80
    samples of 10 ms."""
    study, engine, heard, began, _ = timed(tmp_path, monkeypatch, takes(trial=6.0, certificate=1.8), polish=0.0)
    trials = [
        (when - began, timeout_s)
        for when, job, timeout_s in engine.submitted
        if job.kind == "trial" and job.trial is not None and job.outputs  # not the winner's last race
    ]
    reserve = min(8.0 + 10 * (1.2 + 0.01 * study.info()["splits"]["sizes"]["test"]), 15.0)
    assert reserve == 15.0  # a quarter of the minutes at most
    assert all(when + timeout_s == pytest.approx(60.0 - reserve) for when, timeout_s in trials)
    # none begins that has no hope of ending
    assert all(60.0 - reserve - when > 0.7 * 6.0 + 1.0 for when, _ in trials[1:])
    assert [e for e in heard if e["kind"] == "certified"] and not [
        e for e in heard if e["kind"] == "warning" and not e["text"].startswith("no time")
    ]
    assert study.front_json()["best"]["certificate"]["verdict"] == "certified"


def test_a_missing_certificate_says_why(tmp_path, monkeypatch):
    study, *_ = timed(tmp_path, monkeypatch, takes(hangs=("certify",)))
    front = json.loads((tmp_path / "front.json").read_text())
    assert front["best"]["certificate"] is None and front["uncertified"] == "the time was up" and front["finished"]
    assert "because the time was up" in (tmp_path / "best" / "MODEL_CARD.md").read_text()
    assert fw.Study.open(tmp_path).front_json() == front  # the terminal tells what the files do


def test_only_what_happens_is_announced(tmp_path, monkeypatch):
    _, _, heard, *_ = timed(tmp_path, monkeypatch, takes(trial=6.0))
    kinds = [(e["kind"], e.get("name")) for e in heard if e["kind"] not in ("budget", "progress", "open")]
    assert ("phase", "search") in kinds
    idle = [
        name
        for (kind, name), (after, _) in zip(kinds, kinds[1:], strict=False)
        if kind == "phase" and name in ("search", "polish", "baseline") and after == "phase"
    ]
    assert not idle


def test_the_time_before_the_first_event_counts(tmp_path, monkeypatch):
    """Loading, pacing: the minutes hold from the call on."""
    clock = simulated.Clock()

    def slow(*args):
        clock.now += 20.0
        return configure(*args)

    monkeypatch.setattr("featherweight.study.calls.configure", slow)
    for name in simulated.CLOCKS:
        monkeypatch.setattr(name, clock)
    monkeypatch.setattr(simulated.ENGINE, lambda setup, workers, memory, logs: simulated.Engine(clock, 1, takes()))
    began = clock.now
    study = run(tmp_path, 500, budget=fw.Budget(minutes=1.0), workers=1)
    assert 20.0 < clock.now - began <= 60 * 1.05
    assert study.front_json()["budget"]["spent_s"] == pytest.approx(clock.now - began, abs=0.01)
    assert study.info()["phases_s"]["start"] == pytest.approx(20.0)
