"""The verbs with a fake study behind them: what they ask of it, what they print, how they end."""

import json
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import featherweight.study.calls
import featherweight.study.study
import featherweight.task.kinds
from featherweight import cli
from featherweight.errors import InputError, StoreError, TargetError
from featherweight.limits import Budget, Constraint
from featherweight.recipe import Recipe
from featherweight.store.artifacts import ArtifactStore
from featherweight.study.config import Config
from featherweight.task.load import load_task
from tests.report.fake_study import config, events, infeasible, study

TASK = """
import featherweight as fw
task = fw.Task("my digits", model=lambda: None, data=lambda: None)
"""


def run(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(w) for w in words])


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task file in the current folder, which is a fresh one."""
    (tmp_path / "digits.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return "digits.py"


@pytest.fixture
def asked(monkeypatch):
    """What `optimize` was called with; it tells the listener a whole study and returns it."""
    calls = []

    def optimize(task, recipe=None, *, on_event, **kwargs):
        calls.append({"task": task, "recipe": recipe, **kwargs})
        for event in events(12):
            on_event(event)
        return study(12)

    monkeypatch.setattr(featherweight.study.calls, "optimize", optimize)
    return calls


def test_search_asks_for_a_search(task, monkeypatch):
    calls = []

    def search(task, *, on_event, **kwargs):
        calls.append(kwargs)
        return study(12)

    monkeypatch.setattr(featherweight.study.calls, "search", search)
    options = [
        "--max-params",
        "100k",
        "--max-latency",
        "2ms",
        "--stopper",
        "asha(eta=2)",
        "--proxy",
        "naswot:0.25",
        "--stall",
        "5",
        "--compress",
    ]
    result = run("search", task, *options, "--guess", '{"train.lr": 0.01}@2', "--guess", '{"train.epochs": 3}')
    assert result.exit_code == 0, result.output
    asked = calls[0]
    assert asked["constraints"] == [Constraint("latency", 2.0), Constraint("params", 1e5)]
    assert asked["stopper"] == "asha(eta=2)" and asked["proxy"] == "naswot:0.25" and asked["compress"] is True
    assert asked["budget"] == Budget(trials=40, stall=5)
    assert [(dict(g.values), g.weight) for g in asked["guesses"]] == [
        ({"train.lr": 0.01}, 2.0),
        ({"train.epochs": 3}, 1.0),
    ]
    assert asked["out"] == Path("runs/my-digits-search")


@pytest.mark.parametrize("text", ["lr=3", "3", "[1]"])
def test_a_guess_that_is_no_json_object_is_refused(task, text):
    result = run("search", task, "--guess", text, "--trials", "1")
    assert result.exit_code == 2 and "JSON[@WEIGHT]" in result.stderr


def test_options_become_arguments(task, asked):
    result = run(
        "optimize",
        task,
        "--max-drop",
        "0.02",
        "--max-latency",
        "0.7x",
        "--max-size",
        "300KB",
        "--minimize",
        "latency, macs",
        "--strategy",
        "tpe",
        "--target",
        "openvino:bf16,onnxruntime",
        "--threads",
        "2",
        "--batch",
        "4",
        "--trials",
        "7",
        "--minutes",
        "3",
        "--trial-minutes",
        "1",
        "--trial-memory-gb",
        "2",
        "--seed",
        "5",
        "--workers",
        "3",
        "--no-reuse",
        "--out",
        "runs/x",
    )
    assert result.exit_code == 0, result.output
    call = asked[0]
    assert call.pop("task").name == "my digits"
    assert call == {
        "recipe": None,
        "constraints": [Constraint("drop", 0.02), Constraint("latency", 0.7, True), Constraint("size", 300_000.0)],
        "minimize": ("latency", "macs"),
        "strategy": "tpe",
        "target": "openvino:bf16,onnxruntime",
        "threads": 2,
        "batch": 4,
        "seed": 5,
        "workers": 3,
        "reuse": False,
        "force": False,
        "budget": Budget(trials=7, minutes=3.0, trial_minutes=1.0, trial_memory_gb=2.0),
        "out": Path("runs/x"),
    }


def test_defaults(task, asked):
    assert run("optimize", task).exit_code == 0
    assert asked[0]["out"] == Path("runs/my-digits")
    assert asked[0]["budget"] == Budget(trials=40)
    assert asked[0]["constraints"] == []  # the study adds the accuracy floor
    assert {"strategy", "target", "threads", "seed", "workers", "reuse", "minimize"} & set(asked[0]) == set()


def test_minutes_alone_leave_the_trials_open(task, asked):
    run("optimize", task, "--minutes", "2")
    assert asked[0]["budget"] == Budget(minutes=2.0)


def test_output_in_words_and_progress_on_stderr(task, asked):
    Path("runs/my-digits/best").mkdir(parents=True)
    result = run("optimize", task)
    assert "faster than the original (95 % interval" in result.stdout
    assert "* best" in result.stdout and "Next: featherweight export runs/my-digits" in result.stdout
    assert "trial 0:" in result.stderr and "trial 0:" not in result.stdout


def test_json_prints_the_front_only(task, asked):
    result = run("optimize", task, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(study(12).front_json()))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--strategy", "gredy"], "greedy, grid"),
        (["--target", "onnx"], "onnxruntime, openvino"),
        (["--minimize", "speed"], "latency, size"),
        (["--max-latency", "3"], "0.5x"),
        (["--max-size", "-1KB"], "0.5x"),
        (["--trials", "0"], "positive"),
        (["--threads", "0"], "at least 1"),
        (["--minimize", ","], "latency"),
        (["--recipe", "gone.yaml"], "JSON or YAML"),
        (["--text-column", "x"], "--text-column"),
        (["--task", "nonsense"], "FILE.py"),
    ],
)
def test_wrong_options_name_what_is_allowed(task, asked, words, named):
    result = run("optimize", task, *words)
    assert result.exit_code == 2
    assert named in result.stderr and "Traceback" not in result.stderr
    assert asked == []


def test_wrong_tasks(task, asked):
    for words in (["nothing.py"], ["digits.py:other"], [], ["--task", "nonsense"], ["--task", "text-classification"]):
        result = run("optimize", *words)
        assert result.exit_code == 2 and "Traceback" not in result.stderr, words
    assert "text-classification" in run("optimize", "--task", "nonsense").stderr


def test_recipe_file(task, asked):
    Path("r.json").write_text('{"recipe": [{"prune": {"ratio": {"float": {"low": 0, "high": 0.5}}}}]}')
    assert run("optimize", task, "--recipe", "r.json").exit_code == 0
    assert isinstance(asked[0]["recipe"], Recipe) and len(asked[0]["recipe"].space()) == 1
    Path("r.yaml").write_text("recipe: [")
    assert run("optimize", task, "--recipe", "r.yaml").exit_code == 2


def test_run_yaml_is_run_again_and_options_go_before_it(task, asked):
    saved = config() | {"task": {"file": str(Path(task).resolve()), "name": "task"}, "seed": 9}
    Path("run.yaml").write_text(yaml.safe_dump(saved))
    assert run("optimize", "run.yaml").exit_code == 2  # needs --out
    again = ("run.yaml", "--out", "again", "--max-size", "0.25x", "--trials", "5")
    assert run("optimize", *again).exit_code == 2  # names a file that no run of this user's has run
    assert run("optimize", *again, "--trust").exit_code == 0
    call = asked[0]
    assert call["seed"] == 9 and call["task"].name == "my digits" and call["out"] == Path("again")
    assert call["constraints"] == [
        Constraint("drop", 0.01),
        Constraint("latency", 0.7, True),
        Constraint("size", 0.25, True),
    ]
    assert call["budget"] == Budget(trials=5, minutes=3.0)
    Path("bad.yaml").write_text("a: [")
    Path("other.yaml").write_text("a: 1")
    for name in ("bad.yaml", "other.yaml", "gone.yaml"):
        assert run("optimize", name, "--out", "again").exit_code == 2


def test_the_command_search_stays_one_with_an_optimization_s_file(task, monkeypatch):
    """Its recipe does not begin with Build, so it is refused where a search's recipe is checked."""
    saved = config() | {"task": {"file": str(Path(task).resolve()), "name": "task"}}
    Path("run.yaml").write_text(json.dumps(saved))  # JSON is YAML
    result = run("search", "run.yaml", "--trust", "--proxy", "naswot", "--dry-run")
    assert result.exit_code == 2 and "begins with Build" in result.stderr


def test_built_in_kind(task, asked, monkeypatch):
    seen = {}

    def make_task(name, /, **options):
        seen.update({"name": name, **options})
        return load_task(task)

    monkeypatch.setattr(featherweight.task.kinds, "make_task", make_task)
    assert (
        run(
            "optimize",
            "--task",
            "text-classification",
            "--model",
            "m",
            "--data",
            "d.csv",
            "--text-column",
            "t",
            "--task-option",
            "epochs=3",
        ).exit_code
        == 0
    )
    assert seen == {"name": "text-classification", "model": "m", "data": "d.csv", "text_column": "t", "epochs": 3}
    assert run("optimize", "--task", "text-classification", "--task-option", "epochs").exit_code == 2


PLAN = {
    "space": [{"path": "prune.ratio", "domain": "a [number]", "when": [["quantize", True]]}],
    "size": "inf",
    "first_s": 15.0,
    "baseline_s": 20.0,
    "baselines": 3,
    "trial_s": 12.0,
    "trials": 10,
    "search_s": 120.0,
    "polish_s": 20.0,
    "end_s": 11.0,
    "sum_s": 171.0,
    "minutes": None,
    "within": None,
    "total_s": 171.0,
    "noticed": ["the test split is small"],
    "floor": False,
    "proof": None,
    "memory_bytes": 430_000_000,
    "how": "3 steps were timed",
}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minutes": 2.0, "within": 4}, "ends it after 2 min 00 s: time for about 4 of 10 trials"),
        ({"minutes": 0.2, "within": 0}, "12 s will not even do to make and measure the original"),
        ({"minutes": 0.5, "within": 0}, "30 s will hardly do for a single trial, which takes about 12 s"),
    ],
)
def test_a_dry_run_says_what_the_minutes_will_not_do_for(task, monkeypatch, given, said):
    monkeypatch.setattr(featherweight.study.calls, "dry_run", lambda task, **kwargs: PLAN | given)
    assert said in run("optimize", task, "--dry-run").stdout
    monkeypatch.setattr(featherweight.study.calls, "dry_run", lambda task, **kwargs: PLAN)
    assert said not in run("optimize", task, "--dry-run").stdout


def test_minutes_count_from_the_command(task, monkeypatch):
    """Loading the task is part of it."""
    from featherweight.study import clock

    seen = []
    monkeypatch.setattr(featherweight.study.calls, "optimize", lambda *a, **k: seen.append(clock.begun()) or study(3))
    before = time.monotonic()
    run("optimize", task)
    assert before <= seen[0] < time.monotonic() and clock.begun() > seen[0]


def test_dry_run(task, monkeypatch):
    plan = PLAN
    monkeypatch.setattr(featherweight.study.calls, "dry_run", lambda task, **kwargs: plan)
    result = run("optimize", task, "--dry-run")
    assert result.exit_code == 0
    for text in (
        "prune.ratio",
        "a [number]",
        "quantize = True",
        "without end",
        "The test split is small.",
        "20 s for 3 baselines (15 s of it for the first), 2 min 00 s for 10 trials of 12 s each, 20 s for the "
        "finalists, 11 s for certificates and the last timings: 2 min 51 s in all; 430 MB",
    ):
        assert text in result.stdout
    assert json.loads(run("optimize", task, "--dry-run", "--json").stdout) == plan
    assert not Path("runs").exists()


def raising(error):
    def optimize(*args, **kwargs):
        raise error

    return optimize


@pytest.mark.parametrize(
    ("error", "code"),
    [(TargetError("it broke", got="this", allowed="that", fix="do so"), 1), (InputError("bad", fix="do so"), 2)],
)
def test_errors_are_told_with_their_fix(task, monkeypatch, error, code):
    monkeypatch.setattr(featherweight.study.calls, "optimize", raising(error))
    result = run("optimize", task)
    assert result.exit_code == code and "fix: do so" in result.stderr and "Traceback" not in result.stderr
    result = run("optimize", task, "--json")
    assert result.exit_code == code and json.loads(result.stdout)["error"]["fix"] == "do so"
    assert "Traceback" in run("optimize", task, "--debug").stderr


def test_a_bug_is_one_line_with_the_place_of_the_traceback(task, monkeypatch, tmp_path):
    monkeypatch.setattr(featherweight.study.calls, "optimize", raising(ZeroDivisionError("oh [no]")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = run("optimize", task)
    assert result.exit_code == 1 and "This is a bug in Featherweight; run again with --debug" in result.stderr
    assert "Traceback" not in result.stderr and "oh [no]" in result.stderr
    saved = next(tmp_path.glob("featherweight-error-*.txt"))
    assert str(saved) in result.stderr and "ZeroDivisionError" in saved.read_text()
    assert json.loads(run("optimize", task, "--json").stdout)["error"]["type"] == "Bug"
    assert "Traceback" in run("optimize", task, "--debug").stderr


def test_interrupted(task, monkeypatch):
    monkeypatch.setattr(featherweight.study.calls, "optimize", raising(KeyboardInterrupt()))
    assert run("optimize", task).exit_code == 130

    def cleanly(*args, on_event, **kwargs):
        on_event({"kind": "warning", "trial": None, "text": "interrupted: finishing with what there is"})
        return study(12)

    monkeypatch.setattr(featherweight.study.calls, "optimize", cleanly)
    result = run("optimize", task)
    assert result.exit_code == 130 and "Found:" in result.stdout


def test_nothing_feasible_is_exit_code_3(task, monkeypatch):
    monkeypatch.setattr(featherweight.study.calls, "optimize", lambda *a, **k: infeasible())
    result = run("optimize", task)
    assert result.exit_code == 3 and "The nearest is" in result.stdout and "Next: featherweight resume" in result.stdout


class Opened:
    """`Study.open` of a study that is there."""

    @classmethod
    def open(cls, out):
        if not Path(out).is_dir():
            raise StoreError("there is no study in this folder", got=str(out), fix="name another")
        found = study(12)
        found.out = Path(out)
        found.export = lambda to, trial=None: _exported(Path(to), trial)
        return found


def _exported(to, trial):
    to.mkdir()
    (to / "MODEL_CARD.md").write_text(str(trial))
    return to


@pytest.fixture
def opened(monkeypatch, tmp_path):
    monkeypatch.setattr(featherweight.study.study, "Study", Opened)
    return tmp_path


def test_front(opened):
    result = run("front", opened)
    assert result.exit_code == 0 and "Found:" in result.stdout
    assert json.loads(run("front", opened, "--json").stdout)["format"] == 1
    assert run("front", opened / "gone").exit_code == 1


def test_trial(opened):
    result = run("trial", opened, "3")
    assert result.exit_code == 0 and result.stdout.startswith("Trial 3:") and "It printed nothing." in result.stdout
    (opened / "logs").mkdir()
    (opened / "logs" / "trial-3.log").write_text("\n".join(f"line {i} [bold]" for i in range(300)))
    said = run("trial", opened, "3").stdout
    assert "the last 200 lines" in said and "  line 299 [bold]" in said and "line 99 " not in said
    assert json.loads(run("trial", opened, "3", "--json").stdout)["number"] == 3
    assert run("trial", opened, "99").exit_code == 2 and run("trial", opened, "x").exit_code == 2


def test_report(opened):
    assert run("report", opened).exit_code == 0
    assert f"featherweight optimize {opened}/run.yaml" in (opened / "report.html").read_text()
    result = run("report", opened, "--to", opened / "other.html", "--json")
    assert json.loads(result.stdout)["report"] == str(opened / "other.html") and (opened / "other.html").exists()


def test_export(opened):
    result = run("export", opened, "--to", opened / "new", "--trial", "3")
    assert result.exit_code == 0 and (opened / "new" / "MODEL_CARD.md").read_text() == "3"
    assert "How to load and run it" in result.stdout
    assert json.loads(run("export", opened, "--to", opened / "b", "--json").stdout)["files"] == ["MODEL_CARD.md"]
    assert run("export", opened).exit_code == 2


def test_resume(opened, monkeypatch):
    calls = []

    def resume(out, *, budget=None, on_event=None, trust=False):
        calls.append((out, budget))
        return study(12)

    monkeypatch.setattr(featherweight.study.calls, "resume", resume)
    monkeypatch.setattr("featherweight.study.reading.read_config", lambda out: Config.from_json(config()))
    assert run("resume", opened).exit_code == 0
    assert run("resume", opened, "--trials", "80").exit_code == 0
    assert calls == [(opened, None), (opened, Budget(trials=80, minutes=3.0))]


def test_cache(tmp_path, monkeypatch):
    store = ArtifactStore()
    store.put("ab" * 32, lambda folder: (folder / "x").write_bytes(b"1" * 5000))
    shown = json.loads(run("cache", "--json").stdout)
    assert shown["entries"] == 1 and shown["bytes"] >= 5000
    assert run("cache", "--limit", "5GB").exit_code == 0
    assert ArtifactStore().limit_bytes == 5 * 10**9
    result = run("cache", "--clear")
    assert result.exit_code == 0 and "Freed" in result.stdout and "0 entries" in result.stdout
    for wrong in ("0.5x", "many", "-3"):
        assert run("cache", "--limit", wrong).exit_code == 2


def test_usage_errors_are_json_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["featherweight", "optimize", "x.py", "--trials", "many", "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "--trials" in json.loads(capsys.readouterr().out)["error"]["what"]


def test_exit_codes_of_main_with_json(monkeypatch, capsys):
    for words, code in ((["search", "--json"], 2), (["cache", "--json"], 0)):
        monkeypatch.setattr(sys, "argv", ["featherweight", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
        assert json.loads(capsys.readouterr().out)


def test_version_and_help():
    assert run("--version").stdout.startswith("featherweight ")
    text = run("--help").stdout
    for verb in ("optimize", "search", "front", "report", "export", "measure", "resume", "cache", "doctor"):
        assert verb in text
        assert run(verb, "--help").exit_code == 0
    assert "130 interrupted" in text


def test_help_tells_defaults():
    assert "[default:" in run("search", "--help").stdout and "[default:" in run("report", "--help").stdout
