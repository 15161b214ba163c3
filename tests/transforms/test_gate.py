"""Gates: the knob goes as far as the floor allows, and no further; on a net whose drop at each
setting is known exactly."""

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.errors import InputError, RecipeError
from featherweight.measure.metric import Metric
from featherweight.models.package import Package
from featherweight.plan import Plan as Planned
from featherweight.recipe import Made, Recipe, Transform
from featherweight.space import Choice, Float, Int, Maybe, param
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import given
from featherweight.task.task import Task
from featherweight.train.loop import predict
from featherweight.transforms.distill import Distill
from featherweight.transforms.drop_blocks import DropBlocks
from featherweight.transforms.gate import Gate
from featherweight.transforms.gate.knob import bisect, rungs
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.shared.drop import baseline_scores, evaluate_drop
from featherweight.transforms.train import Train
from tests import toy

N = 200


class Threshold(nn.Module):
    """Right on every sample x >= `at`, wrong below it. `at` is the share of samples
    that it gets wrong."""

    def __init__(self):
        super().__init__()
        self.register_buffer("at", torch.zeros(()))
        self.idle = nn.Linear(1, 1)

    def forward(self, x):
        right = (x[:, 0] >= self.at).float()
        return torch.stack([right, 1 - right], 1)


def samples(n=N):
    return ArraySplit({"x": ((np.arange(n) + 0.5) / n).astype("float32")[:, None]}, np.zeros(n, dtype=np.int64))


def task(**more):
    return Task(name="threshold", model=Threshold, data=lambda: given(samples(), samples(), samples()), **more)


def context(seed=0, **more):
    t = task(**more)
    return toy.context(t, seed, model=Package(t.build()))


@dataclasses.dataclass(frozen=True)
class Hurt(Transform):
    """Makes the model wrong on a share of what it got right (`ratio`), on so many samples more
    (`count`), or on a share in all (`whole`)."""

    ratio: float = param(0.0, legal=Float(0.0, 1.0), doc="share of what is left")
    count: int = param(0, legal=Int(0, N), doc="samples")
    whole: Any = param(None, doc="share in all")
    made: str = param("", doc="what it says it makes")

    @property
    def makes(self):
        return frozenset([Made(self.made)] if self.made else [])

    @property
    def refuses(self):
        return {Made.INTEGER_WEIGHTS: "of the test"}

    def apply(self, model, context):
        module = copy.deepcopy(model.module)
        at = 1 - (1 - float(module.at)) * (1 - self.ratio) + self.count / N
        module.at.fill_(at if self.whole is None else float(self.whole))
        return model.edited(module=module).noted(step=self.kind)


@dataclasses.dataclass(frozen=True)
class Heal(Transform):
    """Gives back a share of all samples."""

    by: float = param(0.05, doc="share of all samples")

    def apply(self, model, context):
        module = copy.deepcopy(model.module)
        module.at.sub_(self.by).clamp_(min=0)
        return model.edited(module=module).noted(step=self.kind)


def applied(gate, c=None):
    c = c or context()
    done = gate.apply(c.teacher(None), c)
    assert len(done.notes) == 1 and done.notes[0]["step"] == "gate"
    return float(done.module.at), done.notes[0]


@pytest.mark.parametrize("limit", range(12))
@pytest.mark.parametrize("tries", [2, 3, 20])
def test_bisection_of_whole_numbers_against_trying_all(limit, tries):
    asked = []

    def holds(k):
        asked.append(k)
        return k <= limit

    found = bisect(holds, 2, 10, tries, whole=True)
    assert len(asked) <= tries and len(set(asked)) == len(asked)
    best = max((k for k in range(2, 11) if k <= limit), default=None)
    assert (
        found == best
        if tries == 20
        else found in {None, *range(2, limit + 1)} and (found is None) <= (best is None or tries < 20)
    )
    assert found is None or found == max(k for k in asked if k <= limit)


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.37, 0.99, 1.0])
def test_bisection_is_as_fine_as_it_says(limit):
    found = bisect(lambda v: v <= limit, 0.0, 1.0, 12, whole=False)
    assert limit - 2.0**-10 <= found <= limit


def test_nothing_holds():
    assert bisect(lambda v: False, 0.0, 1.0, 5, whole=False) is None
    assert bisect(lambda v: False, 3, 3, 5, whole=True) is None


def test_steps_of_what_is_left_take_equal_shares():
    ladder = rungs(0.0, 0.8, 4, "left", whole=False)
    assert [s for _, s in ladder] == pytest.approx([1 - 0.2**0.25] * 4)
    left = 1.0
    for total, setting in ladder:
        left *= 1 - setting
        assert left == pytest.approx(1 - total)
    assert ladder[-1][0] == 0.8
    low = rungs(0.5, 0.8, 2, "left", whole=False)
    assert low[0] == (0.5, 0.5) and [t for t, _ in low] == pytest.approx([0.5, 1 - 0.5 * 0.4**0.5, 0.8])


def test_steps_that_add_up_and_steps_that_are_the_whole():
    assert rungs(0, 5, 3, "sum", whole=True) == [(2, 2), (3, 1), (5, 2)]
    assert rungs(0, 2, 5, "sum", whole=True) == [(1, 1), (2, 1)]
    assert rungs(0.0, 0.6, 2, "whole", whole=False) == [(0.3, 0.3), (0.6, 0.6)]
    assert rungs(0.0, 0.0, 3, "left", whole=False) == []


def test_the_largest_ratio_that_holds():
    at, note = applied(Gate(Hurt(ratio=0.8), max_drop=0.1, steps=12))
    assert 0.1 - 0.8 / 2**10 - 1 / N <= at <= 0.1 + 1 / N
    assert note["kept"] == pytest.approx(at) and note["held"]
    assert note["kept"] == max(p["setting"] for p in note["probes"] if p["held"])
    assert len(note["probes"]) <= 12 and note["probes"][0]["setting"] == 0.8 and not note["probes"][0]["held"]
    assert {"setting", "held", "sure", "drop", "low", "high", "n"} == set(note["probes"][0])
    assert note["probes"][0]["n"] < N  # a drop of 0.8 is seen at once


def test_if_the_strongest_holds_nothing_else_is_tried():
    at, note = applied(Gate(Hurt(ratio=0.05), max_drop=0.2))
    assert at == pytest.approx(0.05) and [p["setting"] for p in note["probes"]] == [0.05]


@pytest.mark.parametrize("how", ["bisect", "step"])
def test_whole_numbers(how):
    at, note = applied(Gate(Hurt(), knob="count", high=40, how=how, steps=40, max_drop=0.05))
    assert note["kept"] == 10 and at == pytest.approx(10 / N)


def test_settings_from_a_list():
    at, note = applied(Gate(Hurt(), knob="whole", values=(0.0, 0.02, 0.1, 0.5), max_drop=0.1))
    assert note["kept"] == 0.1 and at == pytest.approx(0.1)
    at, note = applied(Gate(Hurt(), knob="whole", values=(0.0, 0.02, 0.1, 0.5), max_drop=0.1, how="step"))
    assert note["kept"] == 0.1 and [p["setting"] for p in note["probes"]] == [0.0, 0.02, 0.1, 0.5]


def test_steps_stop_at_the_first_that_breaks_the_floor_and_keep_the_last_that_held():
    at, note = applied(Gate(Hurt(ratio=0.8), how="step", steps=8, max_drop=0.5))
    reached = [1 - 0.2 ** (i / 8) for i in range(1, 9)]
    # 0.18, 0.33, 0.45, 0.55
    assert [p["setting"] for p in note["probes"]] == pytest.approx(reached[:4])
    assert [p["held"] for p in note["probes"]] == [True, True, True, False]
    assert at == pytest.approx(reached[2]) and note["kept"] == pytest.approx(reached[2])


def test_recovery_between_steps_goes_further():
    without, _ = applied(Gate(Hurt(ratio=0.5), how="step", steps=5, max_drop=0.2))
    at, note = applied(Gate(Hurt(ratio=0.5), how="step", steps=5, max_drop=0.2, recover=Recipe(Heal(0.1))))
    assert note["kept"] == 0.5 and at < 0.2 < 0.24 < note["kept"]
    assert without < 0.2 and [n["step"] for n in note["inside"]] == ["hurt", "heal"] * 5


def test_zeroed_weights_are_counted_in_all():
    _, note = applied(Gate(Hurt(made="zero weights"), knob="ratio", high=0.5, how="step", steps=2, max_drop=1.0))
    assert note["kept"] == 0.5
    at, _ = applied(Gate(Hurt(made="zero weights"), knob="ratio", high=0.5, how="step", steps=2, max_drop=1.0))
    # this transform takes 0.25 and then 0.5 of what is left
    assert at == pytest.approx(1 - 0.75 * 0.5)


@pytest.mark.parametrize("how", ["bisect", "step"])
def test_if_the_mildest_breaks_the_floor_the_model_stays_and_the_note_says_so(how):
    c = context()
    gate = Gate(Hurt(ratio=0.9), low=0.5, how=how, max_drop=0.1)
    done = gate.apply(c.teacher(None), c)
    note = done.notes[0]
    assert done.module is c.teacher(None).module and float(done.module.at) == 0
    assert note["kept"] is None and note["held"] and note["incoming"]["drop"] == 0 and "as it came in" in note["why"]
    assert not any(p["held"] for p in note["probes"]) and 0.5 in [p["setting"] for p in note["probes"]]


def test_a_model_that_came_in_broken_is_not_called_held():
    c = context()
    broken = Hurt(ratio=0.5).apply(c.teacher(None), c)
    done = Gate(Hurt(ratio=0.3), max_drop=0.1).apply(broken, c)
    assert done.module is broken.module and not done.notes[-1]["held"] and done.notes[-1]["incoming"]["drop"] >= 0.3
    # 0.1 of all is 0.2 of what is left
    kept = Gate(Hurt(ratio=0.3), max_drop=0.1, reference="input").apply(broken, c)
    assert 0.55 < float(kept.module.at) < 0.61 and kept.notes[-1]["held"]


def test_a_knob_of_one_step_of_a_recipe():
    gate = Gate(Recipe(Hurt(count=2), Hurt(count=50)), knob="hurt_2.count", max_drop=0.05, steps=12)
    at, note = applied(gate)
    assert note["kept"] == 8 and at == pytest.approx(10 / N)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Gate(Hurt(), knob="size"), "names no field"),
        (lambda: Gate(Recipe(Hurt(), Hurt()), knob="ratio"), "names several field"),
        (lambda: Gate(Hurt(), knob="made"), "is no number"),
        (lambda: Gate(Hurt(ratio=0.2), low=0.5), "no such range"),
        (lambda: Gate(Hurt(), knob="count", high=2.5), "no such range"),
        (lambda: Gate(Hurt(), high=1.5), "out of its range"),
        (lambda: Gate(Hurt(ratio=1.0), how="step"), "in steps of what is left"),
        (lambda: Gate(Quantize(), knob="samples", low=1, how="step"), "already|cannot follow"),
        (lambda: Gate(Hurt(), recover=Recipe(Quantize(), Train())), "cannot follow"),
        (lambda: Gate(0.5), "is no step"),
        (lambda: Gate(Hurt(), how="sideways"), "out of its range"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(make, match):
    with pytest.raises((InputError, RecipeError), match=match):
        make()


def test_a_gate_without_a_transform():
    with pytest.raises(InputError, match="needs a transform"):
        Gate().apply(None, context())


def test_it_makes_and_refuses_what_its_steps_do():
    gate = Gate(Quantize(), knob="samples", low=1, high=8, recover=None)
    assert gate.makes == {"integer weights"}
    assert Gate(Hurt(made="zero weights"), recover=Train()).makes == {"zero weights"}
    with pytest.raises(RecipeError, match="cannot follow"):
        Recipe(Quantize(), Gate(Hurt())).check()
    with pytest.raises(RecipeError, match="cannot follow"):
        Recipe(gate, Train()).check()


def test_json_hash_and_holes():
    for gate in (
        Gate(DropBlocks(drop=3), knob="drop", recover=Recipe(Distill(epochs=1))),
        Gate(Recipe(Quantize()), knob="quantize.skip", values=(("a", "b"), ("a",), ())),
    ):
        again = Recipe.from_json(json.loads(json.dumps(Recipe(gate).to_json())))
        assert (
            again == Recipe(gate)
            and again.hash == Recipe(gate).hash != Recipe(Gate(DropBlocks(drop=2), knob="drop")).hash
        )
    space = Recipe(Gate(DropBlocks(drop=Int(1, 4)), knob="drop", recover=Maybe(Train()), how=Choice("bisect", "step")))
    filled = space.fill({"gate.transform.drop": 2, "gate.recover": False, "gate.how": "step"})
    assert filled.steps[0] == Gate(DropBlocks(drop=2), knob="drop", how="step")


def test_the_same_seed_gives_the_same_probes_and_another_another_order():
    gate = Gate(Hurt(ratio=0.8), max_drop=0.1, steps=6)
    assert applied(gate)[1] == applied(gate)[1]
    assert applied(gate)[1]["probes"] != applied(gate, context(seed=1))[1]["probes"]


def drop_of(share, metric="accuracy", max_drop=0.1):
    c = context(metric=metric)
    base = baseline_scores(c.teacher(None).module, c)
    return evaluate_drop(Hurt(ratio=share).apply(c.teacher(None), c).module, base, c, max_drop)


def test_the_drop_is_the_metric_s():
    v = drop_of(0.105)
    assert v.n == N and v.drop == pytest.approx(0.105) and not v.held and not v.sure
    early = drop_of(0.9)
    assert early.n < N and early.sure and not early.held


def test_a_metric_without_bounds_or_without_samples_sees_the_whole_split():
    v = drop_of(0.9, metric="nll")  # lower is better: the drop is the rise
    assert v.n == N and not v.sure and not v.held and v.drop == pytest.approx(0.9, abs=1e-6)
    f1 = drop_of(0.9, metric="macro_f1")
    assert f1.n == N and not f1.sure and f1.drop == pytest.approx(1 - (2 * 0.1 / 1.1) / 2)
    loose = Metric("mine", lambda o, t: o[:, 0], None, True)
    assert drop_of(0.9, metric=loose).n == N
    sure = Metric("mine", lambda o, t: o[:, 0], None, True, zero_one=True)
    assert drop_of(0.9, metric=sure).n < N


def test_blocks_that_do_nothing_are_dropped_and_no_other():
    """A real transform: of three blocks two give back what they are given;
    at no loss at all, exactly these two go."""

    def build():
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            *(toy.Block(4, 4, 1) for _ in range(3)),
            nn.Flatten(),
            nn.Linear(256, 4),
        )
        for i in (2, 4):
            nn.init.zeros_(net[i].norm2.weight)  # relu(0 + x) = x, for what comes out of a relu
        return net

    t = toy.task(build)
    net = t.build()
    c = toy.context(t, model=Package(net))
    done = Gate(DropBlocks(drop=2), knob="drop", max_drop=0.0).apply(Package(net), c)
    assert done.notes[-1]["kept"] == 2 and done.notes[-1]["inside"][0]["dropped"] == [["", 2], ["", 4]]
    np.testing.assert_array_equal(predict(done.module, t.splits().valid), predict(net, t.splits().valid))
    assert [e["edit"] for e in done.edits] == ["keep_blocks"] and len(net) == 7


@dataclasses.dataclass(frozen=True)
class Plan(Transform):
    """Weights of so many bits, on the grid of the largest."""

    bits: int = param(8, doc="of a weight")

    def apply(self, model, context):
        plan = Planned("weight-only", self.bits, "channel", group=0, symmetric=True, embeddings=32)
        return model.edited(plan=dataclasses.replace(plan, layers={"0": plan.whole})).noted(step=self.kind)


def test_a_plan_is_judged_as_it_computes():
    """The class hangs on weights of +-0.3 beside ones of 10: 8 bits tell them apart
    (steps of 10/127), 4 bits round them to 0 (10/7)."""

    def build():
        net = nn.Sequential(nn.Linear(2, 2, bias=False))
        net[0].weight.data = torch.tensor([[10.0, 0.3], [10.0, -0.3]])
        return net

    y = np.arange(100) % 2
    split = ArraySplit({"x": np.stack([np.ones(100), 1 - 2 * y], 1).astype("float32")}, y)
    t = Task(name="fine", model=build, data=lambda: given(split, split, split))
    package = Package(t.build())
    c = toy.context(t, model=package)
    done = Gate(Plan(), knob="bits", values=(8, 4), max_drop=0.0).apply(package, c)
    probes = done.notes[-1]["probes"]
    assert done.plan.bits == 8 and done.notes[-1]["kept"] == 8
    assert [(p["setting"], p["held"]) for p in probes] == [(4, False), (8, True)]
    assert torch.equal(done.module[0].weight, package.module[0].weight)
