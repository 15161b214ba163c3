import copy
import shlex

import pytest

from featherweight.proof.chance import attainable, outlook, provable
from featherweight.records import Paired
from featherweight.report import words
from featherweight.report.ahead import next_command
from featherweight.report.provable import proof
from featherweight.report.rows import constraint_text, label, listing, recipe_steps, verdict_text, violation_text
from featherweight.report.table import cells
from tests.report.fake_study import infeasible, study
from tests.study.test_certify import counted


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


@pytest.mark.parametrize(
    ("verdict", "wanted"),
    [
        (
            "certified",
            "on 717 test samples that the search never saw, accuracy is 97.5 %, proven to be at least 96.2 %, ",
        ),
        (
            "refuted",
            "Refuted: on 717 test samples that the search never saw, accuracy is 97.5 %, where 96.0 % is asked",
        ),
        ("not certifiable", "(about 900 more)"),
    ],
)
def test_a_certificate_of_the_metric_itself(front, verdict, wanted):
    front["best"]["certificate"] |= {"verdict": verdict, "needs": "about 900 more", "n": 717}
    front["best"]["certificate"] |= {"min_metric": 0.96, "value": 0.975, "lower": 0.962, "max_drop": None}
    assert wanted in text(front)


def test_what_test_can_prove_of_a_floor_of_the_metric():
    said = proof(attainable(717, 0.97), "accuracy")
    assert said.startswith("With 717 test samples, accuracy of 97.0 % can be certified for a candidate whose true ")
    seen = Paired(0.02, 600, 0.14, 12, 0, best=1.0)
    assert "; one as good as the original (98.0 % on valid) needs about " in proof(
        attainable(717, 0.97, [seen]), "accuracy"
    )
    assert "can not be certified for any candidate" in proof(attainable(20, 0.97), "accuracy")


def test_nothing_feasible_names_the_nearest_and_what_it_breaks():
    front = infeasible().front_json()
    assert front["best"] is None
    said = text(front)
    assert said.startswith("Nothing that the search tried meets every limit. The nearest is prune(")
    assert "where at most 2.00 KB is allowed" in said
    assert not words.feasible(front)
    front["finished"] = True  # 20 of 40 trials, so the minutes were its end
    assert next_command(front, "runs/my digits") == "featherweight resume 'runs/my digits' --minutes 6"
    front["ended"] = "no candidate that may run was found among the last 20 proposals; the last one: params <= 10"
    # more of the same finds nothing
    assert next_command(front, "runs/x").startswith("loosen the limits")


def test_a_search_that_does_not_beat_the_baselines_says_so(front):
    top = next(e for e in front["baselines"] if e["label"] == "plain int8")
    front |= {"best": None, "nearest": None, "front": [top]}
    said = text(front)
    assert said.startswith("The search did not beat the baselines")
    assert "plain int8" in said
    assert words.feasible(front)


def test_nothing_measured(front):
    front |= {"best": None, "nearest": None, "front": []}
    front["trials"] = {"complete": 0, "failed": 3, "stopped": 0}
    assert text(front).startswith("No candidate was measured") and "see the failures" in text(front)
    front |= {"trials": {"complete": 0, "failed": 0, "stopped": 1}, "finished": True}
    assert "the minutes were up before a trial had ended" in text(front) and "see the failures" not in text(front)
    assert not words.feasible(front)


def test_next_command_exports_the_best(front):
    assert next_command(front, "runs/my") == "featherweight resume runs/my"  # killed before best/ was written
    front["finished"] = True
    assert shlex.split(next_command(front, "runs/my digits")) == [
        "featherweight",
        "export",
        "runs/my digits",
        "--to",
        "my digits-best",
    ]
    front["best"]["certificate"]["verdict"] = "refuted"
    assert next_command(front, "runs/x").startswith("featherweight resume runs/x --trials 80 --minutes 6")


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


SLOW = {
    "feasible": False,
    "metric": {"name": "accuracy", "value": 0.95},
    "speedup": {"ratio": 1 / 0.79, "ci95": [1 / 0.82, 1 / 0.76]},
    "latency_ms": {"median": 7.9},
}


@pytest.mark.parametrize(
    ("violation", "short", "full"),
    [
        (
            {"constraint": "latency <= 0.8x", "value": 0.82, "bound": 0.8},
            "latency 0.79x, up to 0.82x with 95 %, allowed 0.80x",
            "latency is 0.79x the original's, up to 0.82x with 95 %, where at most 0.80x the original's is allowed",
        ),
        (
            {"constraint": "latency <= 8 ms", "value": 8.2, "bound": 8.0},
            "latency 7.90 ms, up to 8.20 ms with 95 %, allowed 8.00 ms",
            "latency is 7.90 ms, up to 8.20 ms with 95 %, where at most 8.00 ms is allowed",
        ),
        (
            {"constraint": "latency <= 0.8x", "value": 0.802, "bound": 0.8},
            "latency 0.79x, up to just over 0.80x with 95 %, allowed 0.80x",
            "latency is 0.79x the original's, up to just over 0.80x with 95 %, "
            "where at most 0.80x the original's is allowed",
        ),
        (
            {"constraint": "size <= 100 bytes", "value": 200.0, "bound": 100.0},
            "size 200 B, allowed 100 B",
            "size is 200 B where at most 100 B is allowed",
        ),
    ],
)
def test_a_latency_is_told_as_measured_and_as_judged(violation, short, full):
    entry = {**SLOW, "violations": [{**violation, "excess": 0.1}]}
    assert verdict_text(entry) == f"broken: {short}" and violation_text(violation, entry) == full


@pytest.mark.parametrize(
    ("chance", "shown"), [(0.47, "47 %"), (0.4968, "49.7 %"), (0.49999, "just under 50 %"), (0.0, "0.0 %")]
)
def test_a_floor_that_cannot_be_proven_never_reads_like_one_that_is_met(chance, shown):
    violation = {"constraint": "drop <= 0.01", "value": 0.0, "bound": 0.01, "excess": 0.1}
    violation |= {"chance": chance, "confidence": 0.5}
    entry = {**study().front_json()["best"], "feasible": False, "violations": [violation], "certificate": None}
    entry["chance"] = chance
    said = verdict_text(entry, 228)
    assert said == f"not proven: drop 0 points, not provable with 228 test samples (chance {shown}, 50 % asked)"
    assert cells(entry, None)[-1] == f"chance {shown}"


def test_what_is_not_certifiable_says_how_many_samples_it_needs(front):
    needs = "about 900 more test samples to certify it, going by these"
    front["best"]["certificate"] |= {"verdict": "not certifiable", "needs": needs}
    assert cells(front["best"], None)[-1] == "not certifiable: needs about 900 more test samples"


@pytest.mark.parametrize("lost", [(8, 8), (60, 50)])
def test_what_test_can_prove_agrees_with_candidates_that_differ_less(lost):
    seen = Paired.from_json(counted(*lost, n=1000))
    told = outlook(228, 0.02, [seen])
    said = proof(told, "accuracy")
    assert "the middle one of those measured" in said and "cannot be expected" not in said
    if told["provable"] < 0:
        assert "only if it is better than the original by" in said and "decides under" in said
        # what is called certifiable is, and nothing beyond it
        assert provable(0.99 * told["even"], 228, 0.02) >= 0 > provable(1.05 * told["even"] + 1e-3, 228, 0.02)
    else:
        assert "if its true drop is under about" in said


def test_why_there_is_no_certificate_and_what_to_do(front):
    front["best"]["certificate"], front["budget"]["spent_s"] = None, 100.0
    front |= {"uncertified": "the time was up", "finished": True}
    assert "because the time was up." in text(front)
    assert next_command(front, "out") == "featherweight resume out --minutes 6"
    front |= {"uncertified": "the study was interrupted", "finished": False}
    assert next_command(front, "out") == "featherweight resume out"


def test_a_budget_is_never_made_smaller():
    front = infeasible().front_json()
    front |= {"finished": False, "trials": {"complete": 8, "failed": 2, "stopped": 0}}
    front["budget"] |= {"trials": 30, "minutes": None}
    assert next_command(front, "out") == "featherweight resume out"
    front["trials"] |= {"complete": 28}
    assert next_command(front, "out") == "featherweight resume out --trials 60"
    front |= {"finished": True, "trials": {"complete": 8, "failed": 0, "stopped": 0}}  # the space has no more
    assert next_command(front, "out").startswith("loosen the limits")
    front |= {"ended": "the last 5 trials brought nothing"}
    front["budget"] |= {"stall": 5}
    assert next_command(front, "out") == "featherweight resume out --stall 10"


def test_a_baseline_that_is_nearer_is_named():
    front = infeasible().front_json()
    plain = next(e for e in front["baselines"] if e["label"] == "plain int8")
    plain["feasible"], plain["violations"] = False, [{**v, "excess": 0.0} for v in front["nearest"]["violations"]]
    assert "The baseline plain int8 is as near or nearer" in text(front)
    for e in front["baselines"]:
        e["violations"] = [{**v, "excess": 1e6} for v in front["nearest"]["violations"]]
    assert "as near or nearer" not in text(front)


def test_epochs_stand_beside_what_is_compared(front):
    cut = next(e for e in front["baselines"] if e["label"] == "random cutting")
    cut["recipe"] = {"recipe": [{"prune": {"ratio": 0.5}}, {"distill": {"epochs": 1}}]}
    front["best"]["recipe"] = {"recipe": [{"distill": {"epochs": 4}}, {"distill": {"epochs": 9}}]}
    assert label(cut) == "random cutting (1 epoch)"
    front["baselines"] = [front["baseline"], {**cut, "feasible": True}]
    assert "is random cutting (1 epoch; the best had 13 epochs)" in text(front)


def test_how_the_best_is_picked_is_said_once(front):
    assert text(front).count("the geometric mean of latency and size") == 0
    assert text(front).count("least geometric mean of latency and size, relative to the original") == 1
    assert "compared by latency, size and error" in text(front)


def test_one_trial_is_no_trials(front):
    front["trials"] = {"complete": 1, "failed": 0, "stopped": 0}
    assert "1 trial measured" in text(front)


def test_a_baseline_that_is_the_best_is_not_called_found(front):
    searched = copy.deepcopy(front["best"])
    plain = {**searched, "trial": None, "label": "plain int8", "size_bytes": searched["size_bytes"] // 3}
    front |= {
        "best": plain,
        "front": [searched, plain],
        "baselines": [*front["baselines"], plain],
        "searched": searched,
    }
    said = text(front)
    assert said.startswith("The search did not beat what needs no search: plain int8 on onnxruntime, ")
    assert f"The best that it found: {searched['label']}, " in said and "Without a search" not in said
    assert ("best", plain) in listing(front)
    front |= {"front": [plain], "searched": None, "nearest": infeasible().front_json()["nearest"]}
    assert "Of its candidates none meets every limit; nearest is " in text(front)
    front["trials"]["complete"] = 0
    assert "No candidate was measured (" in text(front)


def test_a_net_that_is_worse_than_the_fixed_one_by_what_is_minimized_does_not_beat_it(front):
    front["minimize"], front["baseline"]["feasible"] = ["error", "latency"], True
    front["best"]["metric"]["value"] -= 0.3
    assert text(front).startswith("The search did not beat the original: ")


def test_a_run_that_did_not_end_says_so(front):
    assert "last run" not in text(front | {"finished": True})
    front |= {"finished": False, "best": None, "nearest": None, "trials": {"complete": 0, "failed": 0}}
    assert text(front).count("was interrupted") == 2 and "did not beat" not in text(front)
    assert text(front | {"running": True}).count("the study still runs") == 1 and "front" in next_command(
        front | {"running": True}, "o"
    )
    front["broken_off"] = "the original is no better than guessing"
    said = text(front)
    assert said.count("the original is no better than guessing") == 2 and "interrupted" not in said


def test_what_only_lacks_a_proof_is_not_called_broken():
    drop = {"constraint": "drop <= 0.01", "value": 0.02, "bound": 0.01, "excess": 1.0}
    chance = {"chance": 0.2, "confidence": 0.5}
    entry = {"feasible": False, "metric": {"name": "accuracy"}, "violations": [{**drop, **chance}]}
    assert verdict_text(entry).startswith("broken: drop 2 points, allowed")
    entry["violations"] = [{**drop, **chance, "value": 0.005}]
    assert verdict_text(entry).startswith("not proven: drop 0.5 points")
    entry["violations"].append({"constraint": "size <= 100 bytes", "value": 200.0, "bound": 100.0, "excess": 1.0})
    assert verdict_text(entry).startswith("broken: drop 0.5 points")


def test_no_command_goes_on_with_a_study_of_a_program(front):
    front |= {"best": None, "finished": True, "trials": {"complete": 4}, "budget": {"trials": 4, "minutes": None}}
    assert next_command(front, "runs/a b") == "featherweight resume 'runs/a b' --trials 8"
    said = next_command({**front, "call": "search"}, "runs/a b")
    assert said.startswith("call fw.search again") and "but trials=8:" in said
    assert "and budget" not in next_command({**front, "call": "optimize", "finished": False, "trials": {}}, "runs")


def test_what_so_few_samples_hide_is_said_where_nothing_can_be_proven():
    told = outlook(88, 0.05, [Paired(0.0004, 88, 0.003, cost=6.0)])
    said = proof(told, "mse")
    assert "so must any other be, for failures that none of so few samples shows may cost 0.20" in said
    enough = proof(outlook(88, 0.5, [Paired(0.0004, 88, 0.003, cost=6.0)]), "mse")
    assert "none of so few" not in enough


def test_more_trials_are_not_advised_where_only_samples_are_lacking(front):
    drop = {"constraint": "drop <= 0.05", "value": 0.0004, "bound": 0.05, "excess": 1.0, "chance": 0.0}
    nearest = {**front["best"], "violations": [{**drop, "confidence": 0.5}], "feasible": False}
    front |= {"best": None, "nearest": nearest, "proof": outlook(88, 0.05, [Paired(0.0, 88, 0.003, cost=6.0)])}
    assert next_command(front, "out").startswith("give the test split more samples")
    front["proof"] = outlook(88_000, 0.05, [Paired(0.0, 88, 0.003, cost=6.0)])
    assert "featherweight" in next_command(front, "out")


def test_a_speed_that_was_not_measured_again_is_said_to_be_lucky(front):
    assert "lucky" not in text(front | {"retimed": True}) and "lucky" in text(front | {"retimed": False})


def test_the_nearest_is_not_said_to_break_what_it_only_cannot_prove():
    front = infeasible().front_json()
    assert "which breaks them least" in text(front)
    drop = {"constraint": "drop <= 0.01", "value": 0.004, "bound": 0.01, "excess": 1.0, "chance": 0.2}
    front["nearest"]["violations"] = [{**drop, "confidence": 0.5}]
    said = text(front)
    assert "which keeps within them and cannot be proven to: accuracy is 0.4 points worse, and 1 point is" in said
