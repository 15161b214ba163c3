"""Quantize: its plan, the weights that it rounds itself, and the settings that it refuses."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight import machine
from featherweight.errors import InputError, RecipeError
from featherweight.models.package import Package
from featherweight.models.quant.grid import Grid, nearest
from featherweight.models.quant.layers import decide, grid_of
from featherweight.plan import LayerPlan, check_plan
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.testing import check_transform
from featherweight.train.loop import predict
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import toy


@functools.cache
def trained_on(model):
    t = toy.task(model)
    return Train(epochs=3, lr=3e-3, batch_size=16).apply(Package(t.build()), toy.context(t))


def trained(model=toy.residual):
    return trained_on(model)


def apply(quantize, package=None, model=toy.residual):
    return quantize.apply(package or trained(model), toy.context(toy.task(model)))


def error(package, of):
    """Mean squared difference of the outputs on the validation split."""
    split = toy.task().splits().valid
    return float(((predict(package.module, split) - predict(of.module, split)) ** 2).mean())


SETTINGS = [
    {"rounding": "gptq"},
    {"rounding": "gptq", "order": True, "symmetric": False, "granularity": "tensor"},
    {"range": "mse", "correct_bias": True, "granularity": "tensor"},
    {"equalize": "cle"},
    {"equalize": "smooth", "scheme": "int8-static"},
    {"equalize": "cle", "range": "mse", "correct_bias": True},
    {"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 16, "rounding": "gptq"},
    {"scheme": "weight-only", "bits": 4, "range": "mse", "symmetric": False, "granularity": "group"},
    {"scheme": "weight-only", "bits": 16},
]


@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_every_way_conforms(fields):
    check_transform(Quantize(**{"samples": 32, **fields}), toy.task())


def test_plain_rounding_is_left_to_the_target():
    package = apply(Quantize(scheme="int8-dynamic", skip=("8",)))
    assert package.module is trained().module and package.scales == {} and not Quantize().stored
    assert (
        package.plan.scheme == "int8-dynamic"
        and package.plan.layers["8"].bits == 32
        and package.plan.layers["0"].bits == 32
    )
    assert (
        check_plan(package.plan) is None and check_plan(Quantize().plan()) is None and Quantize().plan().layers is None
    )


@pytest.mark.parametrize("fields", SETTINGS[:8], ids=str)
def test_rounded_weights_lie_on_the_grids_that_the_plan_describes(fields):
    step = Quantize(samples=32, **fields)
    package = apply(step)
    grids = {p: grid_of(v, step.scheme != "weight-only", machine.saturates()) for p, v in package.plan.layers.items()}
    assert check_plan(package.plan) is None and bool(package.scales) == step.rounds and step.stored
    for path, grid in grids.items():
        if step.rounds:
            w, s = package.module.get_parameter(f"{path}.weight"), package.scales[f"{path}.weight.scale"]
            z = package.scales[f"{path}.weight.zero"] if not grid.symmetric else torch.zeros_like(s)
            assert torch.equal(nearest(w, s, z, grid), w.detach())
    assert len(package.scales) == (len(grids) * (1 if step.symmetric else 2) if step.rounds else 0)


def test_saturating_processors_get_seven_bit_codes(monkeypatch):
    for saturates, most in ((True, 63), (False, 127)):
        monkeypatch.setattr(machine, "saturates", lambda value=saturates: value)
        step = Quantize(range="mse", samples=8)
        package = apply(step)
        codes = package.module[8].weight.detach() / package.scales["8.weight.scale"].unsqueeze(1)
        assert float(codes.abs().max()) == pytest.approx(most) and package.plan.layers["8"].bits == 8
        assert step.depends == f"saturates={saturates}"
    assert Quantize().depends == "" and Quantize(scheme="weight-only", rounding="gptq").depends == ""


def test_gptq_and_the_searched_range_lower_the_error_of_four_bits():
    four = {"scheme": "weight-only", "bits": 4, "samples": 64}
    full = trained()
    plain = copy.deepcopy(full.module)
    with torch.no_grad():
        for m in plain.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                s = m.weight.flatten(1).abs().amax(1) / 7
                m.weight.copy_(nearest(m.weight, s, torch.zeros_like(s), Grid(4)))
    nearest_error = error(full.edited(module=plain), full)
    assert error(apply(Quantize(rounding="gptq", range="mse", **four)), full) < 0.6 * nearest_error
    assert error(apply(Quantize(rounding="gptq", **four)), full) < nearest_error


def test_bias_correction_brings_the_mean_output_back():
    full, split = trained(), toy.task().splits().train
    four = {"scheme": "weight-only", "bits": 4, "range": "mse", "samples": 1000}
    want = predict(full.module, split).mean(0)
    with_it, without = (
        abs(predict(apply(Quantize(correct_bias=on, **four)).module, split).mean(0) - want).max()
        for on in (True, False)
    )
    assert with_it < 0.5 * without  # not nothing: corrected means still pass through activations


@pytest.mark.parametrize("fields", [{"rounding": "gptq"}, {"equalize": "cle", "range": "mse"}], ids=str)
def test_pruned_weights_stay_zero(fields):
    module = copy.deepcopy(trained().module)
    with torch.no_grad():
        module[8].weight[:, ::2] = 0
        module[3].conv1.weight[:, :, 1] = 0
    zeros = {n: module.get_parameter(n).detach() == 0 for n in ("8.weight", "3.conv1.weight")}
    package = Package(module, sparse=tuple(zeros))
    done = apply(Quantize(samples=32, **fields), package)
    assert (
        all(bool((done.module.get_parameter(n)[z] == 0).all()) for n, z in zeros.items())
        and done.sparse == package.sparse
    )


@pytest.mark.parametrize("equalize", ["cle", "smooth"])
def test_equalizing_leaves_the_function_and_says_what_it_did(equalize):
    full = trained()
    package = apply(Quantize(equalize=equalize, samples=32))
    assert error(package, full) < 1e-8 and package.module is not full.module
    assert package.notes[-1]["equalized"] == 3 and "add" in package.notes[-1]["unequalized"]["3.conv2"]


def test_awq_rounds_linear_layers():
    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.b, self.c = nn.LayerNorm(64), nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 4)

        def forward(self, image):
            return self.c(torch.relu(self.b(torch.relu(self.a(self.norm(image.flatten(1)))))))

    four = {"scheme": "weight-only", "bits": 4, "granularity": "group", "samples": 64}
    package = apply(Quantize(equalize="awq", **four), model=Mlp)
    assert set(package.notes[-1]["powers"]) == {"norm", "a", "b"} and len(package.scales) == 3
    w, s = package.module.b.weight, package.scales["b.weight.scale"]
    assert torch.equal(nearest(w, s, torch.zeros_like(s), Grid(4, "group", 32)), w.detach())
    check_transform(Quantize(equalize="awq", **four), toy.task(Mlp))


def test_what_cannot_be_equalized_is_refused():
    with pytest.raises(InputError, match="nothing to equalize"):
        apply(Quantize(scheme="weight-only", equalize="awq", samples=8))
    one = functools.partial(nn.Sequential, nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(InputError, match="the model's output"):
        apply(Quantize(equalize="cle", samples=8), model=one)


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 4},
        {"scheme": "int8-dynamic", "bits": 16},
        {"granularity": "group"},
        {"scheme": "weight-only", "bits": 16, "rounding": "gptq"},
        {"scheme": "weight-only", "bits": 16, "range": "mse"},
        {"scheme": "weight-only", "equalize": "smooth"},
        {"equalize": "awq"},
        {"order": True},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused_early(fields):
    with pytest.raises(InputError, match="do not go together"):
        Quantize(**fields).plan()
    with pytest.raises(InputError, match="do not go together"):
        Quantize(**fields).apply(None, toy.context())


def test_the_layers_of_a_plan_are_all_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inner, self.norm = (
                nn.Embedding(5, 4),
                nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1)),
                nn.LayerNorm(4),
            )

    plan = Quantize(
        scheme="weight-only", bits=4, granularity="group", group=64, embeddings=16, skip=("inner.1",)
    ).plan()
    layers = decide(Net(), plan)
    assert set(layers) == {"table", "inner.0", "inner.1"}
    assert layers["table"] == LayerPlan(16, "channel", 0, True)
    assert layers["inner.0"] == LayerPlan(4, "group", 64, True) and layers["inner.1"].bits == 32
    assert {v.bits for v in decide(Net(), replace(plan, skip=("inner", "table"))).values()} == {32}
    with pytest.raises(InputError, match="not in the model"):
        decide(Net(), replace(plan, skip=("inne",)))
    assert decide(nn.ReLU(), replace(plan, skip=())) == {}


class Tied(nn.Module):
    """A table, and an output layer that shares its weight; two layers that share another one."""

    def __init__(self):
        super().__init__()
        self.head, self.table = nn.Linear(16, 12, bias=False), nn.Embedding(12, 16)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.head.weight, self.b.weight = self.table.weight, self.a.weight

    def forward(self, ids):
        return self.head(torch.relu(self.b(torch.relu(self.a(self.table(ids)[:, 0])))))


def test_layers_that_share_a_weight_are_one_entry():
    plan = Quantize(scheme="weight-only", bits=4, granularity="group", group=8, embeddings=8).plan()
    assert decide(Tied(), plan) == {"table": LayerPlan(8, "channel", 0), "a": LayerPlan(4, "group", 8)}
    for skipped in ("head", "table"):
        assert decide(Tied(), replace(plan, skip=(skipped, "b"))) == {
            "table": LayerPlan(32, "channel", 0),
            "a": LayerPlan(32, "group", 8),
        }


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("scheme", ["weight-only", "int8-static", "int8-dynamic"])
def test_a_tied_table_and_its_output_layer_are_stored_alike(scheme, runtime, tmp_path):
    if runtime == "openvino":
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")
    torch.manual_seed(0)
    net, ids = Tied().eval(), torch.arange(48)[:, None] % 12
    plan = Quantize(scheme=scheme).plan()
    package = Package(net, plan=replace(plan, layers=decide(net, plan)))
    target = Target(runtime)
    notes = target.load_runtime().export(package, {"ids": ids[:1]}, {"ids": ids}, target, tmp_path)
    held = notes["coverage"]["layers"]
    assert set(held) == {"table", "head", "a", "b"} and held["table"].startswith("int8, stored")
    # OpenVINO names the last layer otherwise
    assert all(how.startswith("int8") for path, how in held.items() if runtime == "onnxruntime" or path != "head")
    assert notes["parity"]["sqnr_db"] > 25


@pytest.mark.parametrize("late", [Prune(), Train(), Quantize()])
def test_nothing_that_moves_weights_follows(late):
    with pytest.raises(RecipeError, match="cannot follow quantize"):
        Recipe(Quantize(), late).check()


@pytest.mark.parametrize(
    "fields",
    [{"rounding": "gptq"}, {"equalize": "cle"}, {"equalize": "smooth"}, {"range": "mse"}, {"correct_bias": True}],
    ids=str,
)
def test_a_batch_norm_without_statistics_cannot_be_folded(fields):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with pytest.raises(InputError, match="got: 1: their output depends on the whole batch"):
        Quantize(samples=8, **fields).apply(Package(net.eval()), toy.context())
