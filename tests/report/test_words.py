import copy
import shlex

import pytest

from featherweight.report import words
from featherweight.report.rows import constraint_text, listing, recipe_steps, verdict_text
from tests.report.fake_study import infeasible, study


@pytest.fixture
def front():
    return study().front_json()


def text(front):
    return "\n".join(words.summary(front))


def test_a_proven_speedup_is_called_faster(front):
    assert "faster than the original (95 % interval" in text(front)


@pytest.mark.parametrize(
    ("ratio", "ci95", "wanted", "refused"),
    [
        (1.4, [0.99, 1.8], "no difference shown", "faster"),
        (1.4, [1.0, 1.8], "no difference shown", "faster"),
        (0.6, [0.5, 0.7], "slower", "faster"),
        (0.9, [0.8, 1.1], "no difference shown", "slower"),
        (1.4, None, "no difference shown", "faster"),
    ],
)
def test_faster_only_if_the_interval_leaves_out_one(front, ratio, ci95, wanted, refused):
    front["best"]["speedup"] = {"ratio": ratio, "ci95": ci95, "clock": "cpu", "n": 30}
    assert wanted in text(front)
    assert refused not in text(front)


@pytest.mark.parametrize("verdict", ["certified", "refuted", "not certifiable", None])
def test_certified_only_if_the_certificate_says_so(front, verdict):
    if verdict is None:
        front["best"]["certificate"] = None
    else:
        front["best"]["certificate"] |= {"verdict": verdict, "needs": "about 900 more test samples to certify it"}
    said = text(front)
    assert ("Certified" in said) == (verdict == "certified")
    assert ("Refuted" in said) == (verdict == "refuted")
    assert ("about 900 more test samples" in said) == (verdict == "not certifiable")


def test_nothing_feasible_names_the_nearest_and_what_it_breaks():
    front = infeasible().front_json()
    assert front["best"] is None
    said = text(front)
    assert said.startswith("Nothing that the search tried meets every limit. The nearest is prune(")
    assert "where at most 2.00 KB is allowed" in said
    assert not words.feasible(front)
    assert words.next_command(front, "runs/my digits").startswith("featherweight resume 'runs/my digits' --trials 40")
    front["ended"] = "no candidate that may run was found among the last 20 proposals; the last one: params <= 10"
    # more of the same finds nothing
    assert words.next_command(front, "runs/x").startswith("loosen the limits")


def test_a_search_that_does_not_beat_the_baselines_says_so(front):
    top = next(e for e in front["baselines"] if e["label"] == "plain int8")
    front |= {"best": None, "nearest": None, "front": [top]}
    said = text(front)
    assert said.startswith("The search did not beat the baselines")
    assert "plain int8" in said
    assert words.feasible(front)


def test_nothing_measured(front):
    front |= {"best": None, "nearest": None, "front": []}
    assert text(front).startswith("No candidate was measured")
    assert not words.feasible(front)


def test_next_command_exports_the_best(front):
    assert shlex.split(words.next_command(front, "runs/my digits")) == [
        "featherweight",
        "export",
        "runs/my digits",
        "--to",
        "my digits-best",
    ]
    front["best"]["certificate"]["verdict"] = "refuted"
    assert words.next_command(front, "runs/x").startswith("featherweight resume runs/x --trials 80 --minutes 6")


def test_constraints_in_words():
    assert (
        constraint_text({"quantity": "drop", "bound": 0.01, "relative": False}, "accuracy")
        == "accuracy drop at most 1 point"
    )
    assert (
        constraint_text({"quantity": "latency", "bound": 0.7, "relative": True})
        == "latency at most 0.70x the original's"
    )
    assert constraint_text({"quantity": "latency", "bound": 2.0, "relative": False}) == "latency at most 2.00 ms"
    assert (
        constraint_text({"quantity": "metric", "bound": 0.9, "relative": False}, "accuracy")
        == "accuracy at least 90.0 %"
    )


def test_every_entry_is_listed_once_with_the_original_first(front):
    listed = listing(front)
    assert [r for r, _ in listed][0] == "original"
    assert len({(e["label"], e["trial"], e["target"]) for _, e in listed}) == len(listed)
    assert sum(role == "best" for role, _ in listed) == 1
    assert {e["label"] for e in front["baselines"]} <= {e["label"] for _, e in listed}


def test_metric_where_lower_is_better(front):
    front = copy.deepcopy(front)
    for e in [front["baseline"], front["best"]]:
        e["metric"] |= {"name": "mse", "higher_is_better": False}
    front["baseline"]["metric"]["value"], front["best"]["metric"]["value"] = 0.20, 0.25
    assert "mse 0.25 on the valid split (0.05 worse)" in text(front)


def test_recipe_in_words():
    assert recipe_steps({"recipe": []}) == ["The original model, as it is"]
    steps = recipe_steps(
        {
            "recipe": [
                {"prune": {"ratio": 0.5, "round_to": 8, "skip": None}},
                {"own_step": {"teacher": {"recipe": [{"train": {"epochs": 2}}]}}},
            ]
        }
    )
    assert "ratio 0.5, round to 8" in steps[0] and "skip" not in steps[0]
    assert steps[1].startswith("Own step: teacher (Train the weights: epochs 2)")


def test_verdict_names_what_is_broken():
    assert (
        verdict_text(
            {
                "feasible": False,
                "violations": [{"constraint": "size <= 0.5x", "value": 6.0, "bound": 5.0, "excess": 0.2}],
            }
        )
        == "broken: size 6 B, allowed 5 B"
    )
