import json
import math

import pytest

from featherweight.errors import FeatherweightError, InputError, MissingExtra
from featherweight.records import Entry, History, Trial
from featherweight.registry import class_name, find, names
from featherweight.seeding import derive, generator
from featherweight.space.space import key


def test_history_counts_and_finds():
    history = History([Trial(0, {"a": 1}), Trial(1, {"a": 2, "b": 3}), Trial(2, {"a": 1})])
    assert len(history) == 3 and history.distinct == 2 and [t.number for t in history] == [0, 1, 2]
    assert history.seen({"b": 3, "a": 2}) and not history.seen({"a": 3}) and not history.seen({})
    assert history.seen_key(key({"a": 1}))
    assert history[1].filling == {"a": 2, "b": 3}
    history[1].state = "complete"
    assert history.complete() == [history[1]]


def test_history_keeps_its_numbers():
    with pytest.raises(ValueError):
        History([Trial(1, {})])
    empty = History()
    assert len(empty) == 0 and empty.distinct == 0 and not empty.seen({}) and list(empty) == []


def test_keys_tell_types_apart():
    assert len({key({"a": v}) for v in (1, 1.0, True, "1", None, "true")}) == 6
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})


def test_score_key():
    good, worse = Trial(0, {}, "complete", (0.5, 0.5)), Trial(1, {}, "complete", (0.5, 0.9))
    broken, open_ = Trial(2, {}, "complete", (0.1, 0.1), violation=0.2), Trial(3, {})
    assert sorted([open_, broken, worse, good], key=lambda t: t.score_key) == [good, worse, broken, open_]
    assert good.score_key == (0.0, pytest.approx(math.log(0.5)))
    assert Trial(4, {}, "complete", (0.0,)).score_key[1] == pytest.approx(math.log(1e-12))
    assert Trial(5, {}, "complete", ()).score_key == (0.0, 0.0)


def test_trials_have_as_many_objectives_as_the_first():
    two = Trial(3, {}, "complete", (0.5, 0.9))
    assert two.objectives(0) == two.objectives(2) == 2 and Trial(4, {}).objectives(0) == 0
    with pytest.raises(InputError, match="trial 3 has another number of objectives than the first") as error:
        two.objectives(1)
    assert (error.value.got, error.value.allowed) == (2, 1)


def entry(**more):
    base = {
        "label": "x",
        "trial": 3,
        "recipe": {"recipe": []},
        "target": "onnxruntime",
        "metric": {
            "name": "accuracy",
            "value": 0.9,
            "ci95": [0.8, 1.0],
            "n": 9,
            "higher_is_better": True,
            "split": "valid",
        },
        "latency_ms": {"median": 2.0, "p90": 3.0, "n": 9, "cpu_median": 1.9, "load": 0.1},
        "speedup": {"ratio": 4.0, "ci95": [3.9, 4.1], "clock": "cpu", "n": 9},
        "size_bytes": 10,
        "peak_memory_bytes": 20,
        "params": 30,
        "macs": 40,
        "artifact": "a",
        "sha256": "s",
    }
    return Entry.from_json({**base, **more})


def test_entry_round_trip():
    e = entry(filling={"a": 1}, certificate={"verdict": "certified"})
    assert Entry.from_json(json.loads(json.dumps(e.to_json()))) == e


def test_quantities():
    assert entry().quantities == {
        "metric": 0.9,
        "error": -0.9,
        "latency": 0.25,
        "latency_ms": 2.0,
        "size": 10.0,
        "memory": 20.0,
        "params": 30.0,
        "macs": 40.0,
    }
    assert (
        entry(metric={"name": "nll", "value": 3.0, "ci95": None, "n": 9, "higher_is_better": False}).quantities["error"]
        == 3.0
    )


def test_seeds_are_the_same_everywhere():
    assert derive(0, "propose", 1) == derive(0, "propose", "1") == 5970714835566147361
    assert len({derive(s, *n) for s in (0, 1) for n in ((), ("a",), ("a", "b"), ("ab",), ("b", "a"))}) == 10
    assert all(0 <= derive(i) < 2**63 for i in range(50))
    assert generator(3, "x").random() == generator(3, "x").random() != generator(3, "y").random()


def test_errors_say_got_allowed_and_fix():
    assert str(InputError("no", got=1, allowed="2", fix="3")) == "no\n  got: 1\n  allowed: 2\n  fix: 3"
    assert str(InputError("no")) == "no" and isinstance(MissingExtra("openvino", "openvino"), FeatherweightError)
    assert "featherweight[llm]" in str(MissingExtra("transformers", "llm"))


def test_methods_are_found_by_file_name():
    assert class_name("drop_blocks") == "DropBlocks" and class_name("nsga2") == "Nsga2"
    assert {"greedy", "random"} <= set(names("strategies")) and not {"base", "_optuna", "common"} & set(
        names("strategies")
    )
    assert find("strategies", "grid").__name__ == "Grid"
    with pytest.raises(InputError, match="nothing in strategies is called 'magic'") as e:
        find("strategies", "magic")
    assert "greedy" in str(e.value)
