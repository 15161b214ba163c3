"""A plan and its JSON: what is stored is what has been stored since the first package, and what is
no plan is refused by name."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.errors import InputError, TargetError
from featherweight.models.package import Package
from featherweight.plan import LayerPlan, Plan, check_plan, required
from featherweight.transforms.mixed_precision import MixedPrecision
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from tests import toy


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


# Each step's question under seed 3 and its plan for `build` under seed 5,
# as they were written when plans were dicts.
STORED = {
    Quantize(skip=("0",)): (
        (
            '{"scheme": "int8-static", "bits": 8, "granularity": "channel", "group": 32, "symmetric": true, '
            '"embeddings": 8, "activations": "u8", "calibrate": "minmax", "samples": 256, "skip": ["0"], "seed": 3}'
        ),
        (
            '{"scheme": "int8-static", "bits": 8, "granularity": "channel", "group": 32, "symmetric": true, '
            '"embeddings": 8, "activations": "u8", "calibrate": "minmax", "samples": 256, "skip": ["0"], "seed": 5, '
            '"layers": {"0": {"bits": 32, "granularity": "channel", "group": 0, "symmetric": true}, '
            '"3": {"bits": 8, "granularity": "channel", "group": 0, "symmetric": true}}}'
        ),
    ),
    Quantize(scheme="int8-dynamic", activations="s8", calibrate="mse", samples=64): (
        (
            '{"scheme": "int8-dynamic", "bits": 8, "granularity": "channel", "group": 32, "symmetric": true, '
            '"embeddings": 8, "activations": "s8", "calibrate": "mse", "samples": 64, "skip": [], "seed": 3}'
        ),
        (
            '{"scheme": "int8-dynamic", "bits": 8, "granularity": "channel", "group": 32, "symmetric": true, '
            '"embeddings": 8, "activations": "s8", "calibrate": "mse", "samples": 64, "skip": [], "seed": 5, '
            '"layers": {"0": {"bits": 32, "granularity": "channel", "group": 0, "symmetric": true}, '
            '"3": {"bits": 8, "granularity": "channel", "group": 0, "symmetric": true}}}'
        ),
    ),
    Quantize(scheme="weight-only", bits=4, granularity="group", group=16, symmetric=False, embeddings=16): (
        (
            '{"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 16, "symmetric": false, '
            '"embeddings": 16, "activations": "u8", "calibrate": "minmax", "samples": 256, "skip": [], "seed": 3}'
        ),
        (
            '{"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 16, "symmetric": false, '
            '"embeddings": 16, "activations": "u8", "calibrate": "minmax", "samples": 256, "skip": [], "seed": 5, '
            '"layers": {"0": {"bits": 4, "granularity": "group", "group": 16, "symmetric": false}, '
            '"3": {"bits": 4, "granularity": "group", "group": 16, "symmetric": false}}}'
        ),
    ),
    Qat(epochs=0, samples=8, granularity="tensor", skip=("3",)): (
        (
            '{"scheme": "int8-static", "bits": 8, "granularity": "tensor", "group": 0, "symmetric": true, '
            '"embeddings": 8, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 3}'
        ),
        (
            '{"scheme": "int8-static", "bits": 8, "granularity": "tensor", "group": 0, "symmetric": true, '
            '"embeddings": 8, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 5, '
            '"layers": {"0": {"bits": 8, "granularity": "tensor", "group": 0, "symmetric": true}, '
            '"3": {"bits": 32, "granularity": "tensor", "group": 0, "symmetric": true}}}'
        ),
    ),
    MixedPrecision(samples=8, max_drop=1.0): (
        (
            '{"scheme": "int8-static", "bits": 8, "granularity": "channel", "group": 0, "symmetric": true, '
            '"embeddings": 8, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 3}'
        ),
        (
            '{"scheme": "int8-static", "bits": 8, "granularity": "channel", "group": 0, "symmetric": true, '
            '"embeddings": 32, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 5, '
            '"layers": {"0": {"bits": 32, "granularity": "channel", "group": 0, "symmetric": true}, '
            '"3": {"bits": 8, "granularity": "channel", "group": 0, "symmetric": true}}}'
        ),
    ),
    MixedPrecision(scheme="int8-dynamic", samples=8, max_drop=1.0): (
        (
            '{"scheme": "int8-dynamic", "bits": 8, "granularity": "channel", "group": 0, "symmetric": true, '
            '"embeddings": 8, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 3}'
        ),
        (
            '{"scheme": "int8-dynamic", "bits": 8, "granularity": "channel", "group": 0, "symmetric": true, '
            '"embeddings": 32, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 5, '
            '"layers": {"0": {"bits": 32, "granularity": "channel", "group": 0, "symmetric": true}, '
            '"3": {"bits": 8, "granularity": "channel", "group": 0, "symmetric": true}}}'
        ),
    ),
    MixedPrecision(
        scheme="weight-only",
        widths=(4,),
        save=0.8,
        samples=8,
        max_drop=1.0,
        granularity="group",
        group=16,
        symmetric=False,
    ): (
        (
            '{"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 16, "symmetric": false, '
            '"embeddings": 4, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 3}'
        ),
        (
            '{"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 16, "symmetric": false, '
            '"embeddings": 32, "activations": "u8", "calibrate": "minmax", "samples": 8, "seed": 5, '
            '"layers": {"0": {"bits": 4, "granularity": "group", "group": 16, "symmetric": false}, '
            '"3": {"bits": 4, "granularity": "group", "group": 16, "symmetric": false}}}'
        ),
    ),
}
BY_HAND = (
    '{"scheme": "weight-only", "bits": 8, "granularity": "channel", "group": 0, "symmetric": true, "embeddings": 32}'
)
WELL = json.loads(STORED[Quantize(skip=("0",))][1])


@pytest.mark.parametrize("step", STORED, ids=lambda step: f"{step.kind} {getattr(step, 'scheme', 'int8-static')}")
def test_the_json_of_every_step_is_what_it_has_been(step, tmp_path):
    question, decided = STORED[step]
    task = toy.task(build)
    made = step.apply(Package(task.build()), toy.context(task, seed=5))
    assert json.dumps(step.plan(3).to_json()) == question and json.dumps(made.plan.to_json()) == decided
    made.save(tmp_path, task.build)
    assert json.dumps(json.loads((tmp_path / "spec.json").read_text())["plan"]) == decided


@pytest.mark.parametrize("text", [text for both in STORED.values() for text in both] + [BY_HAND])
def test_a_package_stored_before_is_read_and_written_again_byte_for_byte(text, tmp_path):
    for folder in (tmp_path / "old", tmp_path / "new"):
        folder.mkdir()
        Package(build()).save(folder, build)
    spec = tmp_path / "old" / "spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"plan": json.loads(text)}, indent=1))
    loaded = Package.load(tmp_path / "old", build)
    assert (
        json.dumps(loaded.plan.to_json()) == text
        and loaded.plan == Plan.from_json(json.loads(text))
        and check_plan(loaded.plan) is None
    )
    loaded.save(tmp_path / "new", build)
    assert (tmp_path / "new" / "spec.json").read_bytes() == spec.read_bytes()


def test_a_layer_that_names_its_bits_only_takes_the_rest_from_the_plan():
    data = json.loads(
        STORED[Quantize(scheme="weight-only", bits=4, granularity="group", group=16, symmetric=False, embeddings=16)][1]
    )
    plan = Plan.from_json(
        data | {"layers": {"0": {"bits": 8}, "3": {"bits": 4, "granularity": "channel", "group": None}}}
    )
    assert plan.layers == {"0": LayerPlan(8, "group", 16, False), "3": LayerPlan(4, "channel", 0, False)}


# What was refused when plans were dicts, with the words that it was refused with.
REFUSED = [
    ({"scheme": "int4"}, "the plan's scheme is 'int4'; allowed: int8-static, int8-dynamic, weight-only"),
    ({"bits": 3}, "the plan's bits is 3; allowed: 4, 8, 16"),
    ({"bits": [8]}, "the plan's bits is [8]; allowed: 4, 8, 16"),
    ({"bits": 4}, "int8-static computes with 8 bits; the plan's bits is 4: use scheme 'weight-only' for other widths"),
    ({"granularity": "row"}, "the plan's granularity is 'row'; allowed: tensor, channel, group"),
    ({"granularity": "group", "group": 1}, "the plan's group is 1; allowed: a whole number of at least 2"),
    ({"granularity": "group", "group": None}, "the plan's group is None; allowed: a whole number of at least 2"),
    ({"symmetric": None}, "the plan's symmetric is None; allowed: True, False"),
    ({"embeddings": 2}, "the plan's embeddings is 2; allowed: 4, 8, 16, 32"),
    ({"activations": None}, "the plan's activations is None; allowed: u8, s8"),
    ({"calibrate": "guess"}, "the plan's calibrate is 'guess'; allowed: minmax, percentile, mse, entropy"),
    ({"samples": 0}, "the plan's samples is 0; allowed: a whole number of at least 1"),
    ({"samples": True}, "the plan's samples is True; allowed: a whole number of at least 1"),
    ({"skip": "head"}, "the plan's skip is 'head'; allowed: a list of module paths"),
    ({"skip": [1]}, "the plan's skip is [1]; allowed: a list of module paths"),
    ({"skip": None}, "the plan's skip is None; allowed: a list of module paths"),
    (
        {"layers": []},
        "the plan's layers are []; allowed: {path: {'bits': one of (4, 8, 16, 32), 'granularity': .., ..}}",
    ),
    (
        {"layers": None},
        "the plan's layers are None; allowed: {path: {'bits': one of (4, 8, 16, 32), 'granularity': .., ..}}",
    ),
    (
        {"layers": {"0": 8}},
        "the plan's layers are {'0': 8}; allowed: {path: {'bits': one of (4, 8, 16, 32), 'granularity': .., ..}}",
    ),
    (
        {"layers": {"0": {"bits": 5}}},
        (
            "the plan's layers are {'0': {'bits': 5}}; "
            "allowed: {path: {'bits': one of (4, 8, 16, 32), 'granularity': .., ..}}"
        ),
    ),
]
# What would have been an exception somewhere later.
REFUSED_TOO = [
    ({"group": "x"}, "the plan's group is 'x'; allowed: a whole number"),
    ({"seed": "x"}, "the plan's seed is 'x'; allowed: a whole number"),
    (
        {"layers": {"0": {"bits": 8, "granularity": "row"}}},
        "the plan's granularity of 0 is 'row'; allowed: tensor, channel, group",
    ),
    ({"layers": {"0": {"bits": 8, "symmetric": "no"}}}, "the plan's symmetric of 0 is 'no'; allowed: True, False"),
    (
        {"layers": {"0": {"bits": 8, "granularity": "group", "group": 1}}},
        "the plan's group of 0 is 1; allowed: a whole number of at least 2",
    ),
    (
        {"layers": {"0": {"bits": 8, "group": "x"}}},
        "the plan's group of 0 is 'x'; allowed: a whole number of at least 0",
    ),
    (
        {"layers": {"0": {"bits": 8, "zero": 1}}},
        "the plan's layer 0 has the keys ['zero']; allowed: bits, granularity, group, symmetric",
    ),
]


@pytest.mark.parametrize(("changes", "why"), REFUSED + REFUSED_TOO)
def test_json_that_is_not_well_formed_is_refused(changes, why):
    with pytest.raises(InputError, match="not well formed") as caught:
        Plan.from_json(WELL | changes)
    assert caught.value.got == why and caught.value.fix


@pytest.mark.parametrize(
    ("changes", "why"), [(c, why) for c, why in REFUSED + REFUSED_TOO if "layers" not in c and c != {"skip": None}]
)
def test_a_plan_that_is_not_well_formed_can_be_made_and_is_a_problem(changes, why):
    assert check_plan(replace(Plan.from_json(WELL), **changes)) == why


def test_wrong_layers_of_a_plan_are_a_problem():
    plan = replace(Plan.from_json(WELL), layers={"0": LayerPlan(5)})
    assert (
        "the plan's layers are {'0': {'bits': 5, 'granularity': 'channel', 'group': 0, 'symmetric': True}}; allowed"
        in check_plan(plan)
    )
    assert "the plan's group of 0 is 0" in check_plan(replace(plan, layers={"0": LayerPlan(8, "group")}))


@pytest.mark.parametrize("data", [None, [], "int8-static", 8, {"scheme": "weight-only", "width": 8}])
def test_what_is_no_plan_is_refused(data):
    with pytest.raises(InputError, match="no quantization plan") as caught:
        Plan.from_json(data)
    assert caught.value.got and caught.value.allowed and caught.value.fix


def test_a_dict_in_the_place_of_a_plan_is_refused():
    with pytest.raises(InputError, match="a package's plan is a Plan") as caught:
        Package(build()).edited(plan=WELL)
    assert "a dict" in caught.value.got and "Plan.from_json" in caught.value.fix
    with pytest.raises(InputError, match="LayerPlan"):
        Plan("weight-only", 8, "channel", 0, True, 8, layers={"0": {"bits": 8}})
    assert "the plan is a dict; allowed: a featherweight.plan.Plan" in check_plan(WELL)


def test_what_a_plan_leaves_out_is_missed_by_name():
    plan = Plan("weight-only", 8, "channel", 0, True, 8)
    with pytest.raises(InputError, match="activation ranges"):
        plan.ranges()
    with pytest.raises(InputError, match="its samples and its seed"):
        replace(plan, samples=8).draw()
    with pytest.raises(TargetError, match="without a plan"):
        required(None)
    assert replace(plan, samples=8, seed=0).draw() == (8, 0)
