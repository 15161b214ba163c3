"""Whether what a study says of its entries follows from what it last measured of them."""

import dataclasses
import json
from pathlib import Path

import pytest

from featherweight.errors import InputError, StoreError
from featherweight.limits import Budget, max_drop, max_latency
from featherweight.records import Speedup
from featherweight.report import words as told_in
from featherweight.report.ahead import next_command
from featherweight.store.artifacts import sha256_file
from featherweight.study.calls import _check_same
from featherweight.study.config import Settings
from featherweight.study.known import artifact_id
from featherweight.study.request import configure
from featherweight.study.state import StudyState
from featherweight.task.load import load_task
from tests.report import fake_study

RECIPE = {"recipe": [{"prune": {"ratio": 0.5}}]}


def log(*speeds):
    """The events of a study whose trials, all of one graph, were measured as so fast."""
    settings = fake_study.config(limits=[max_drop(0.01), max_latency("0.8x")])
    out = [{"kind": "study", "config": settings}, {"kind": "info", "info": fake_study.info()}, {"kind": "open"}]
    out += [{"kind": "baseline", "entry": entry(None, "baseline", 1.0, None), "steps": 1, "reused": 0}]
    for number, speed in enumerate(speeds):
        out += [
            {"kind": "proposed", "trial": number, "filling": {}, "note": {}, "recipe": RECIPE, "target": "onnxruntime"},
            {
                "kind": "finished",
                "trial": number,
                "entry": entry(number, f"candidate {number}", speed),
                "steps": 1,
                "reused": 0,
                "seconds": 1.0,
            },
        ]
    return [{"trial": None, "time": 1000.0 + i, **e} for i, e in enumerate(out)]


def entry(trial, label, speed, graph="g"):
    rng = fake_study.np.random.default_rng(0 if trial is None else trial)
    made = fake_study.entry(rng, trial, label, 0.9889, speed, 300_000).to_json()
    made["speedup"]["ci95"] = [speed * 0.99, speed * 1.01] if trial is not None else [1.0, 1.0]
    return {**made, "graph": graph}


def agrees(state):
    """Each entry is judged by the speed that is printed beside it."""
    for e in state.found():
        slow = 1.0 / e.speedup.ci95[0]
        broken = [v["value"] for v in e.violations if v["constraint"].startswith("latency")]
        assert broken == ([pytest.approx(slow)] if slow > 0.8 else []) and e.feasible == (slow <= 0.8)


def test_a_measurement_that_counts_for_others_judges_them_again():
    first = StudyState().fold(log(1.1))
    assert not first.found()[0].feasible
    agrees(first)
    both = StudyState().fold(log(1.1, 1.9))
    assert len({e.speedup.ratio for e in both.found()}) == 1
    agrees(both)
    many = StudyState().fold(log(*[1.1] * 15, *[2.5] * 10))  # more than are put together
    agrees(many)


def test_a_last_race_judges_all_of_its_graph_and_never_the_original():
    state = StudyState().fold(log(1.9))
    raced = entry(0, "candidate 0", 1.05)
    told = {"artifact": artifact_id(state.found()[0]), "latency_ms": raced["latency_ms"], "speedup": raced["speedup"]}
    state.apply({"kind": "raced", "trial": 0, "time": 2000.0, **told})
    agrees(state)
    assert not state.found()[0].feasible
    assert state.baseline.speedup == Speedup(1.0, (1.0, 1.0), "cpu", 64)


def test_time_counts_from_the_call_and_all_runs_together():
    events = log(1.9)
    at = next(i for i, e in enumerate(events) if e["kind"] == "open")
    spent = StudyState().fold(events).spent_s
    early = StudyState().fold([*events[:at], {**events[at], "before_s": 12.0}, *events[at + 1 :]])
    assert early.spent_s == spent + 12.0 and early.phases["start"] == 12.0
    end = events[-1]["time"]
    early.apply({"kind": "results", "interrupted": False, "trial": None, "time": end + 3.0})
    told = early.front_json()["budget"]["spent_s"]
    assert told == spent + 15.0 and early.finished
    early.apply({"kind": "close", "spent_s": 0.0, "trial": None, "time": end + 5.0})
    assert early.front_json()["budget"]["spent_s"] == told  # all that was written says so
    early.apply({"kind": "open", "before_s": 4.0, "trial": None, "time": end + 900.0})
    assert early.front_json()["budget"]["spent_s"] == spent + 17.0 + 4.0 and not early.finished


def test_an_interrupted_run_is_not_finished():
    state = StudyState().fold(log(1.9))
    state.apply({"kind": "results", "interrupted": True, "trial": None, "time": 2000.0})
    assert state.front_json()["finished"] is False


def test_a_front_without_entries_has_its_columns():
    found = fake_study.study(0, settings=fake_study.config(limits=[max_latency("0.01x")]))
    assert found.best is None and found.front.empty
    assert {"label", "accuracy", "speedup", "size_bytes", "certificate"} <= set(found.front.columns)
    assert list(found.front.columns) == list(fake_study.study().front.columns)


def test_a_best_folder_that_was_removed_is_written_again_by_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the study's folder is named as from here
    found = fake_study.study()
    assert found.best is not None
    with pytest.raises(InputError, match="is not there") as e:
        found.best.export(tmp_path / "to")
    assert "featherweight resume" in e.value.fix
    with pytest.raises(InputError, match="no best candidate"):
        fake_study.study(0, settings=fake_study.config(limits=[max_latency("0.01x")])).export(tmp_path / "to")


def test_a_best_folder_of_another_candidate_is_not_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = fake_study.study()
    folder = found.out / "best"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"")
    found.best.entry.sha256 = sha256_file(folder / "model.onnx")
    told = {"target": "onnxruntime", "inputs": {"x": {}}, "files": {"model.onnx": found.best.entry.sha256}}
    for sha, words in (("other", "another one than its folder holds"), (found.best.entry.sha256, None)):
        (folder / "manifest.json").write_text(json.dumps(told | {"sha256": sha}))
        if words is None:
            assert (found.export(tmp_path / "to") / "manifest.json").exists()
            continue
        with pytest.raises(InputError, match=words) as e:
            found.export(tmp_path / "to")
        assert "featherweight resume" in e.value.fix


def test_another_training_of_the_original_is_another_study(tmp_path):
    tiny = Path(__file__).parents[1] / "tasks" / "tiny.py"
    made = []
    for epochs in (4, 30):
        (tmp_path / "tiny.py").write_text(tiny.read_text().replace("epochs=4", f"epochs={epochs}"))
        task = load_task(str(tmp_path / "tiny.py"))
        made.append(configure(task, Settings.of("optimize", task.recipe, budget=Budget(trials=1))))
    assert "original" in made[0].differences(made[1])
    made = [dataclasses.replace(c, fingerprint="f") for c in made]  # a task made in a program may have the same
    with pytest.raises(StoreError, match="other settings") as e:
        _check_same(*made, tmp_path)
    assert e.value.got.endswith("where these were different: the task's baseline (how it is trained)")


def test_a_study_goes_on_with_the_targets_that_it_was_begun_with(tmp_path):
    """What was installed since does not make it another study; what was taken away does."""
    task = load_task(str(Path(__file__).parents[1] / "tasks" / "tiny.py"))
    now = configure(task, Settings.of("optimize", task.recipe, budget=Budget(trials=1), target="auto"))
    fewer = dataclasses.replace(now.target, choice="onnxruntime", runtimes=("onnxruntime",), originals=("onnxruntime",))
    gone = dataclasses.replace(now.target, originals=(*now.target.originals, "elsewhere"))
    settings = Settings.of("optimize", task.recipe, budget=Budget(trials=2), target="auto")
    for target, kept in [(fewer, True), (gone, False)]:
        before = dataclasses.replace(now, target=target)
        after = configure(task, settings, before)
        assert (after.target == target) is kept and ("target" not in before.differences(after)) is kept
    with pytest.raises(StoreError) as e:
        _check_same(before, after, tmp_path)
    runs = ", ".join(dict.fromkeys((*now.target.runtimes, *now.target.originals)))
    assert f"what target auto finds installed ({runs}, elsewhere; now {runs})" in e.value.got


def test_what_differs_is_said_with_both_values(tmp_path):
    before = fake_study.study().state.begun
    found = dataclasses.replace(before.target, runtimes=("onnxruntime", "torch"), originals=("onnxruntime", "torch"))
    for changes, words in [
        ({"seed": 7}, f"seed ({before.seed}; now 7)"),
        ({"target": dataclasses.replace(before.target, text="torch")}, "target (onnxruntime; now torch)"),
        ({"target": found}, "what target onnxruntime finds installed (onnxruntime, openvino; now onnxruntime, torch)"),
        ({"mode": "search", "fingerprint": "f"}, "mode (optimize; now search)"),
    ]:
        with pytest.raises(StoreError) as e:
            _check_same(before, dataclasses.replace(before, **changes), tmp_path)
        assert words in e.value.got


def without_limits(*speeds, contends=True, minutes=2.0):
    """As `log`, of a study that asks for nothing."""
    events = log(*speeds)
    events[0]["config"] |= {"constraints": [], "minimize": ["latency"]}
    events[0]["config"]["budget"] |= {"minutes": minutes}
    events[2]["contends"] = contends
    return events


def test_where_nothing_is_better_than_the_original_it_is_the_best():
    state = StudyState().fold(without_limits(0.53, 0.9))
    assert state.best() is state.baseline and state.leader().trial in (0, 1)
    front = state.front_json()
    assert front["best"]["label"] == "baseline" and front["retimed"] is None
    said = told_in.summary(front)
    assert said[0].startswith("Nothing that was measured is better than the original, by latency")
    assert "The best that the search found scores 1." in said[1]
    assert told_in.feasible(front) and next_command(front, "runs/x").startswith("featherweight resume")
    better = StudyState().fold(without_limits(1.9))
    assert (
        better.best() is better.found()[0] and "better than the original" not in told_in.summary(better.front_json())[0]
    )


def test_a_study_of_before_has_the_best_that_it_had_until_it_goes_on():
    events = without_limits(0.53, contends=False)
    state = StudyState().fold(events)
    assert state.best() is state.found()[0]
    state.apply({"kind": "open", "trial": None, "time": 5000.0, "contends": True})
    assert state.best() is state.baseline


def test_an_original_that_breaks_the_limits_is_no_best():
    state = StudyState().fold(log(1.5))
    state.contends = True
    assert not state.baseline.feasible and state.best() is state.found()[0]


def test_without_a_trial_it_says_how_many_minutes_would_do():
    state = StudyState().fold(without_limits())
    assert state.best() is None
    front = state.front_json() | {"finished": True}
    needed = front["needed_minutes"]
    assert needed > 2 and f"about {needed} minutes would do" in told_in.summary(front)[0]
    assert not told_in.feasible(front) and next_command(front | {"call": None}, "runs/x").endswith(
        f"--minutes {max(4, needed):g}"
    )
    assert StudyState().fold(without_limits(1.5)).front_json()["needed_minutes"] is None


def test_a_speed_that_was_timed_for_the_choice_alone_says_so():
    state = StudyState().fold(without_limits(1.9))
    found = state.found()[0]
    told = {"latency_ms": found.latency_ms.to_json(), "speedup": found.speedup.to_json()}
    body = {"kind": "raced", "artifact": artifact_id(found), "trial": 0, "time": 2000.0, **told}
    front = lambda: state.front_json() | {"finished": True}  # noqa: E731
    assert "not measured again after" in told_in.lucky(front())[0]
    state.apply({**body, "last": False})
    assert "for the choice of the best" in told_in.lucky(front())[0]
    state.apply({**body, "last": True})
    assert told_in.lucky(front()) == []
