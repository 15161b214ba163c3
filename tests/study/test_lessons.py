"""What the baselines speak for, as guesses of the space."""

import math
from types import SimpleNamespace

import featherweight as fw
from featherweight.recipe import Candidate
from featherweight.recipes import encoder, ptq
from featherweight.space import Space
from featherweight.study.lessons import guesses, observations

RUNTIMES = fw.Choice("onnxruntime", "openvino")


def told(recipe, *measured, target=RUNTIMES):
    """The values guessed, after baselines with (label, recipe, target, speedup, violations)."""
    found = {
        label: SimpleNamespace(recipe=fw.Recipe(*steps).to_json(), target=on, speedup=speed, violations=broken)
        for label, steps, on, speed, broken in measured
    }
    state = SimpleNamespace(baselines=found, score=lambda e: -math.log(e.speedup))
    return [g.values for g in guesses(state, Space(Candidate(recipe, target)))]


ORIGINAL = ("baseline", [], "onnxruntime", 1.0, [])
STATIC = ("plain int8", [fw.Quantize()], "onnxruntime", 1.3, [])
DYNAMIC = ("plain dynamic int8", [fw.Quantize(scheme="int8-dynamic")], "onnxruntime", 1.5, [])
ELSEWHERE = ("plain int8 on openvino", [fw.Quantize()], "openvino", 0.8, [])


def test_the_best_plain_quantization_is_guessed_with_its_runtime():
    dynamic = {"quantize": True, "quantize.scheme": "int8-dynamic", "target": "onnxruntime"}
    assert told(encoder(), ORIGINAL, STATIC, DYNAMIC, ELSEWHERE) == [dynamic]
    static = {**dynamic, "quantize.scheme": "int8-static"}
    assert told(encoder(), ORIGINAL, STATIC, ELSEWHERE) == [static]
    slow = ("plain dynamic int8", [fw.Quantize(scheme="int8-dynamic")], "onnxruntime", 0.9, [])
    assert told(encoder(), ORIGINAL, slow, ELSEWHERE) == []


def test_the_runtime_of_the_fastest_original_is_guessed_too():
    faster = ("original on openvino", [], "openvino", 1.1, [])
    dynamic = {"quantize": True, "quantize.scheme": "int8-dynamic", "target": "onnxruntime"}
    assert told(encoder(), ORIGINAL, faster, DYNAMIC) == [{"target": "openvino"}, dynamic]


def test_what_breaks_the_floor_is_not_guessed():
    broken = (*DYNAMIC[:4], [{"constraint": "drop", "chance": 0.1}])
    static = {"quantize": True, "quantize.scheme": "int8-static", "target": "onnxruntime"}
    assert told(encoder(), ORIGINAL, STATIC, broken) == [static]


def test_a_fixed_scheme_that_is_another_one_is_not_taken_for_it():
    recipe = fw.Recipe(fw.Prune(ratio=fw.Float(0.0, 0.5)), fw.Maybe(fw.Quantize(scheme="weight-only")))
    assert told(recipe, ORIGINAL, STATIC) == []


def test_branches_that_exclude_each_other_are_not_guessed_together():
    each = [fw.Recipe(step, fw.Maybe(fw.Quantize())) for step in (fw.Prune(ratio=fw.Float(0.0, 0.5)), fw.Factorize())]
    assert told(fw.Recipe(fw.Choice(*each)), ORIGINAL, STATIC, target="onnxruntime") == []


def test_the_branch_with_the_scheme_is_guessed_where_steps_are_chosen():
    assert told(ptq(), ORIGINAL, DYNAMIC, target="onnxruntime") == [{"choice": "quantize_2"}]


def seen(recipe, *measured, target=RUNTIMES):
    """The fillings of observations, by the speedup with which each came."""
    found = {
        label: SimpleNamespace(recipe=fw.Recipe(*steps).to_json(), target=on, speedup=speed)
        for label, steps, on, speed, _ in measured
    }
    state = SimpleNamespace(baselines=found, measured=lambda e: ((1 / e.speedup,), 0.0))
    return {round(1 / o["values"][0], 6): o["filling"] for o in observations(state, Space(Candidate(recipe, target)))}


def test_the_original_and_its_plain_quantizations_are_trials_that_cut_nothing():
    got = seen(encoder(), ORIGINAL, STATIC, DYNAMIC, ELSEWHERE)
    assert sorted(got) == [0.8, 1.0, 1.3, 1.5]
    assert all(f["drop_blocks.drop"] == 0 and f["prune.ratio"] == 0 for f in got.values())
    assert [f.get("quantize.scheme") for _, f in sorted(got.items())] == [
        "int8-static",
        None,
        "int8-static",
        "int8-dynamic",
    ]
    assert [f["target"] for _, f in sorted(got.items())] == ["openvino", *["onnxruntime"] * 3]


def test_what_no_filling_of_the_space_gives_is_no_trial_of_it():
    cuts = fw.Recipe(fw.Prune(ratio=fw.Float(0.2, 0.5)), fw.Distill(epochs=1), fw.Maybe(fw.Quantize()))
    assert seen(cuts, ORIGINAL, STATIC) == {}  # something is always cut
    other = fw.Recipe(fw.Prune(ratio=fw.Choice(0.0, 0.5)), fw.Maybe(fw.Quantize(scheme="weight-only")))
    assert list(seen(other, ORIGINAL, STATIC)) == [1.0]
    assert seen(encoder(), ELSEWHERE, target="onnxruntime") == {}
