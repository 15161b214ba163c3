import math

import numpy as np
import pytest

from featherweight.report.importance import MIN_TRIALS, Bags, floor, groups, importance, main_effect
from featherweight.space import Choice, Float, Int, Maybe, Order, Space
from featherweight.space.encode import Encoding


def drawn(space, n, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def effects(space, f, n=20_000):
    """Main effects of the function itself, without an ensemble."""
    fillings = drawn(space, n)
    x = Encoding(space)
    rows = x.rows(fillings)
    predicted = np.array([[f(v) for v in fillings]])
    return {
        h.path: main_effect(predicted, groups(h.path, h.domain, fillings, rows[:, x.start[h.path]]))[0]
        for h in space.holes
    }


def test_main_effects_of_the_ishigami_function_are_the_published_ones():
    """Ishigami and Homma 1990; first-order Sobol indices 0.3139, 0.4424 and 0 for a = 7, b = 0.1
    (Saltelli et al., "Sensitivity analysis", 2000)."""
    space = Space((Float(-math.pi, math.pi), Float(-math.pi, math.pi), Float(-math.pi, math.pi)))

    def ishigami(v):
        return math.sin(v["[0]"]) + 7 * math.sin(v["[1]"]) ** 2 + 0.1 * v["[2]"] ** 4 * math.sin(v["[0]"])

    found = effects(space, ishigami)
    assert found == pytest.approx({"[0]": 0.3139, "[1]": 0.4424, "[2]": 0.0}, abs=0.03)


def test_main_effects_are_brute_force_on_a_finite_space():
    space = Space((Int(0, 3), Choice("a", "b", "c"), Choice(1, 2)))
    every = [space.at(i) for i in range(int(space.size))]
    weights = {"a": 0.0, "b": 2.0, "c": 7.0}
    y = np.array([v["[0]"] * 3.0 + weights[v["[1]"]] + v["[0]"] * weights[v["[1]"]] for v in every])
    rows, x = Encoding(space).rows(every * 50), Encoding(space)
    for hole in space.holes:
        values = [v[hole.path] for v in every]
        means = {u: np.mean([b for a, b in zip(values, y, strict=True) if a == u]) for u in values}
        wanted = np.var([means[u] for u in values]) / np.var(y)
        labels = groups(hole.path, hole.domain, every * 50, rows[:, x.start[hole.path]])
        assert main_effect(np.tile(y, 50)[None], labels)[0] == pytest.approx(wanted, abs=0.002)


def conditional():
    return Space((Maybe(Float(0.0, 1.0)), Float(0.0, 1.0)))


def test_what_being_there_explains_belongs_to_the_hole_that_decides_it():
    space = conditional()
    assert [h.path for h in space.holes] == ["[0]", "[0].value", "[1]"]
    there = effects(space, lambda v: 5.0 * v["[0]"])
    assert there["[0]"] == pytest.approx(1.0) and there["[0].value"] < 1e-9 and there["[1]"] < 0.01
    value = effects(space, lambda v: v.get("[0].value", 0.5))
    assert value["[0].value"] > 0.95 and value["[0]"] < 0.01


def test_groups_keep_kinds_apart_and_leave_out_the_dead():
    space = Space((Choice(1, 1.0, True), Order("a", "b", "c", "d"), Maybe(Int(1, 100))))
    fillings = drawn(space, 500)
    x = Encoding(space)
    rows = x.rows(fillings)
    labels = {h.path: groups(h.path, h.domain, fillings, rows[:, x.start[h.path]]) for h in space.holes}
    assert len(set(labels["[0]"])) == 3
    assert len(set(labels["[1]"])) == 12  # the first two of four
    inner = labels["[2].value"]
    assert (
        all((g == -1) == ("[2].value" not in f) for g, f in zip(inner, fillings, strict=True))
        and 12 <= len(set(inner)) <= 17
    )


def test_the_ensemble_finds_what_matters_and_says_how_sure_it_is():
    space = Space((Float(1e-4, 1e-1, log=True), Choice("a", "b"), Int(1, 9)))
    fillings = drawn(space, 300, seed=1)
    rng = np.random.default_rng(2)
    y = [abs(math.log10(f["[0]"]) + 2.5) + 0.3 * (f["[1]"] == "a") + rng.normal(0, 0.05) for f in fillings]
    found = importance(space, fillings, y, "error", seed=0)
    assert found.r2 > 0.85 and [s.path for s in found.shares] == ["[0]", "[1]", "[2]"]
    assert all(0 <= s.low <= s.share + 1e-9 <= s.high + 1e-9 <= 1 + 1e-9 for s in found.shares)
    truth = effects(space, lambda f: abs(math.log10(f["[0]"]) + 2.5) + 0.3 * (f["[1]"] == "a"))
    assert {s.path: s.share for s in found.shares} == pytest.approx(truth, abs=0.1)
    assert found.rest == pytest.approx(1 - sum(s.share for s in found.shares), abs=1e-9)
    assert importance(space, fillings, y, "error", seed=0) == found


def test_more_trials_give_a_narrower_interval_and_a_better_fit():
    space = Space((Float(0.0, 1.0), Float(0.0, 1.0)))
    fillings = drawn(space, 600)
    y = [math.sin(6 * f["[0]"]) + f["[1]"] for f in fillings]
    few, many = (importance(space, fillings[:n], y[:n], "x", 0) for n in (40, 600))
    assert many.r2 > few.r2
    assert many.shares[0].high - many.shares[0].low < few.shares[0].high - few.shares[0].low


def test_nothing_is_claimed_of_noise():
    space = Space((Float(0.0, 1.0), Choice("a", "b", "c"), Int(1, 5)))
    rng = np.random.default_rng(0)
    claimed = 0
    for i in range(20):
        fillings = drawn(space, 15 + 3 * i, seed=i)
        claimed += bool(importance(space, fillings, list(rng.normal(size=len(fillings))), f"noise {i}", 0).shares)
    assert claimed <= 2


@pytest.mark.parametrize("n", [0, 1, MIN_TRIALS - 1])
def test_too_few_trials(n):
    space = Space((Float(0.0, 1.0),))
    fillings = drawn(space, n)
    found = importance(space, fillings, [f["[0]"] for f in fillings], "x", 0)
    assert (found.n, found.r2, found.shares) == (n, None, ())


def test_a_constant_objective_and_a_space_without_holes():
    space = Space((Float(0.0, 1.0),))
    found = importance(space, drawn(space, 30), [0.1] * 30, "x", 0)
    assert found.r2 is None and found.shares == ()
    assert importance(Space(()), [{}] * 30, list(range(30)), "x", 0).shares == ()


def test_out_of_bag_r2_is_that_of_a_loop():
    space = Space((Float(0.0, 1.0), Float(0.0, 1.0)))
    fillings = drawn(space, 40)
    y = np.array([f["[0]"] ** 2 for f in fillings])
    x = Encoding(space).rows(fillings)
    bags = Bags(x, y, 5)
    guesses = []
    for i in range(40):
        out = [f.ask(x[i : i + 1]).mean.mean() for f, d in zip(bags.forests, bags.drawn, strict=True) if i not in d]
        guesses.append(np.mean(out))
    assert bags.r2 == pytest.approx(1 - ((y - guesses) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def test_the_floor_falls_with_the_number_of_trials():
    assert floor(10) == pytest.approx(0.316, abs=0.001) and floor(10_000) == 0.1
