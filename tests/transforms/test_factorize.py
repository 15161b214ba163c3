import copy

import pytest
import torch
from torch import nn

from featherweight.errors import InputError, RecipeError, StoreError
from featherweight.measure.ops import macs, params
from featherweight.models.lowrank import decompose
from featherweight.models.package import Package
from featherweight.models.surgery import edit, factorized
from featherweight.recipe import Recipe
from featherweight.testing import check_transform
from featherweight.transforms.drop_blocks import DropBlocks
from featherweight.transforms.factorize import Factorize, _fill
from featherweight.transforms.factorize import ranks as _factorize
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from tests import toy

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def run(transform, model=toy.residual, package=None):
    t = toy.task(model)
    return transform.apply(package or Package(t.build()), toy.context(t)), t


def reloaded(package, task, folder):
    package.save(folder, task.build)
    return Package.load(folder, task.build)


@pytest.mark.parametrize(
    "settings",
    [
        {"form": "activation", "samples": 40},
        {"rank_by": "energy", "energy": 0.6, "round_to": 1},
        {"rank_by": "energy", "energy": 0.6, "form": "activation", "round_to": 4},
        {"convolutions": "none"},
        {"ratio": 0.0},
        {"ratio": 1.0, "round_to": 1},
    ],
)
@pytest.mark.parametrize("model", [toy.residual, toy.plain, toy.depthwise, toy.Concat])
def test_conformance_of_other_settings(settings, model):
    check_transform(Factorize(**settings), toy.task(model))


def test_what_is_factorized_and_why_the_rest_is_not():
    package, t = run(Factorize(ratio=0.5, round_to=4), toy.depthwise)
    note = package.notes[-1]
    # 0.5 * 16 * 32 / 48 = 5.3
    assert {p: (v["form"], v["ranks"]) for p, v in note["layers"].items()} == {"4": ("pointwise", [4])}
    assert note["whole"]["2"] == "it is a grouped convolution" and note["whole"]["8"] == "it makes the model's output"
    assert note["whole"]["0"] == "rank [1, 4] is a full rank"  # one input channel: nothing to gain
    assert note["layers"]["4"]["params"] == [512, 4 * 48]
    assert package.edits == ({"edit": "factorize", "path": "4", "form": "pointwise", "ranks": [4]},)
    example = {"image": X[:1]}
    assert params(package.module) < params(t.build()) and macs(package.module, example) < macs(t.build(), example)


def test_each_form_of_layer_saves_at_least_the_ratio():
    package, t = run(Factorize(ratio=0.4, round_to=1), toy.plain)
    note = package.notes[-1]
    assert {v["form"] for v in note["layers"].values()} == {"linear", "tucker2"}
    for layer in note["layers"].values():
        before, after = layer["params"]
        assert after <= 0.6 * before
    assert macs(package.module, {"image": X[:1]}) < 0.75 * macs(t.build(), {"image": X[:1]})


@pytest.mark.parametrize("form", ["svd", "activation"])
def test_a_model_of_low_rank_keeps_its_function(form):
    """Weights that have the rank that is kept: the factorized model computes the same."""
    t = toy.task(toy.plain)
    net = t.build()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        net[6].weight.copy_(torch.randn(32, 4, generator=g) @ torch.randn(4, 512, generator=g) / 40)
        net[3].weight.copy_(
            torch.einsum(
                "op,pqk,qi->oik", *(torch.randn(s, generator=g) / 3 for s in ((32, 3), (3, 2, 9), (2, 16)))
            ).view(32, 16, 3, 3)
        )
    package, _ = run(Factorize(rank_by="energy", energy=1 - 1e-9, round_to=1, form=form), toy.plain, Package(net))
    assert {p: v["ranks"] for p, v in package.notes[-1]["layers"].items()} == {"3": [2, 3], "6": [4]}
    with torch.no_grad():
        torch.testing.assert_close(package.module(X), net(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("energy", [0.9, 0.99])
def test_energy_is_what_the_note_says(energy):
    net = toy.task(toy.plain).build()
    net[6].weight.data *= torch.arange(1, 33)[:, None] ** -1.0
    package, _ = run(Factorize(rank_by="energy", energy=energy, round_to=1), toy.plain, Package(net))
    old, new = net[6].weight.detach(), package.module[6]
    product = (new[1].weight @ new[0].weight).detach()
    kept = 1 - float((old - product).square().sum() / old.square().sum())
    assert kept == pytest.approx(package.notes[-1]["layers"]["6"]["kept"], abs=1e-5) and kept >= energy


def test_activation_aware_has_the_smaller_error_on_the_outputs():
    t = toy.task(toy.plain)
    x = torch.stack([torch.from_numpy(t.splits().train.batch([i])[0]["image"][0]) for i in range(64)])
    errors = {}
    for form in ("svd", "activation"):
        package, _ = run(Factorize(form=form, ratio=0.8, round_to=1, skip=("3",), samples=200), toy.plain)
        with torch.no_grad():
            before, after = t.build()[:7](x), package.module[:7](x)
        errors[form] = float((before - after).norm() / before.norm())
    assert errors["activation"] < 0.75 * errors["svd"]


def test_grams_are_the_inputs_products_in_however_many_passes(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 1, stride=2, padding=1), nn.Flatten(), nn.Linear(3 * 25, 4)).eval()
    x = torch.randn(20, 2, 8, 8)
    got = _factorize.grams_of(net, ["0", "2"], {"image": x})
    padded = nn.functional.pad(x, (1, 1, 1, 1))[:, :, ::2, ::2].movedim(1, -1).reshape(-1, 2).double()
    hidden = net[:2](x).detach().double()
    torch.testing.assert_close(got["0"], padded.T @ padded)
    torch.testing.assert_close(got["2"], hidden.T @ hidden)
    assert not net[0]._forward_pre_hooks
    whole, t = run(Factorize(form="activation", round_to=4))
    monkeypatch.setattr(_factorize, "GRAM_BYTES", 1)
    single, _ = run(Factorize(form="activation", round_to=4))
    with torch.no_grad():
        assert torch.equal(whole.module(X), single.module(X)) and len(whole.edits) > 2


CONVS = {
    "plain": nn.Conv2d(16, 24, 3, padding=1),
    "strided": nn.Conv2d(16, 24, (3, 5), stride=(2, 1), padding=(1, 0), bias=False),
    "dilated": nn.Conv2d(16, 24, 3, dilation=2, padding="same"),
    "circular": nn.Conv2d(16, 24, 3, padding=1, padding_mode="circular"),
    "pointwise": nn.Conv2d(16, 24, 1, stride=2, padding=1),
    "1d": nn.Conv1d(16, 24, 5, stride=3, padding=2),
    "3d": nn.Conv3d(16, 24, (1, 3, 3), padding=(0, 1, 1)),
    "linear": nn.Linear(16, 24),
}


@pytest.mark.parametrize("name", CONVS)
def test_full_ranks_give_the_same_function(name):
    layer = copy.deepcopy(CONVS[name]).eval()
    low = decompose(layer.weight)
    parts = factorized(layer, _factorize.form(layer), low.full)
    _fill(parts, layer, low.factors(low.full))
    shape = {"1d": (2, 16, 11), "3d": (2, 16, 2, 5, 6), "linear": (2, 3, 16)}.get(name, (2, 16, 9, 8))
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(parts(x), layer(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in parts.parameters()) == sum(low.sizes(low.full)) + (0 if layer.bias is None else 24)
    assert not parts.training and [p.bias is not None for p in parts][:-1] == [False] * (len(parts) - 1)


@pytest.mark.parametrize(
    "form, ranks",
    [("linear", [4]), ("tucker2", [4]), ("tucker2", [4, 0]), ("pointwise", [99]), ("cp", [4]), ("pointwise", ["4"])],
)
def test_an_edit_that_does_not_fit_is_refused(form, ranks):
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
    with pytest.raises(StoreError, match="cannot be factorized"):
        edit(net, {"edit": "factorize", "path": "0", "form": form, "ranks": ranks})
    with pytest.raises(StoreError, match="cannot be factorized"):
        edit(net, {"edit": "factorize", "path": "1", "form": "pointwise", "ranks": [1]})


@pytest.mark.parametrize(
    "others",
    [
        (Prune(ratio=0.3, round_to=4), None),
        (None, Prune(ratio=0.3, round_to=2)),
        (DropBlocks(), None),
        (None, DropBlocks()),
    ],
)
def test_it_goes_with_other_surgery_and_reloads(others, tmp_path):
    before, after = others
    t = toy.task(
        lambda: nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), *toy.residual(32)[3:5], *toy.residual(32)[5:])
    )
    package = Package(t.build())
    for step in (before, Factorize(ratio=0.5, round_to=4), after):
        if step is not None:
            package = step.apply(package, toy.context(t))
    assert any(e["edit"] == "factorize" for e in package.edits)
    back = reloaded(package, t, tmp_path)
    with torch.no_grad():
        assert torch.equal(back.module(X), package.module(X))
    assert back.edits == package.edits
    if isinstance(after, Prune):
        ranks = next(n["layers"] for n in package.notes if n["step"] == "factorize")
        assert any(package.module.get_submodule(f"{p}.0").weight.shape[0] < v["ranks"][0] for p, v in ranks.items()), (
            "new layers are pruned too"
        )


def test_preconditions_are_checked():
    for step in (Quantize(), Factorize()):
        with pytest.raises(RecipeError, match="cannot follow"):
            Recipe(step, Factorize()).check()
    Recipe(Prune(), DropBlocks(), Factorize(), Quantize()).check()


def test_skip_names_layers_or_what_holds_them():
    package, _ = run(Factorize(round_to=4, skip=("3", "4.conv2")))
    note = package.notes[-1]
    assert {p for p, why in note["whole"].items() if why == "it is skipped"} == {"3.conv1", "3.conv2", "4.conv2"}
    assert "4.conv1" in note["layers"]
    with pytest.raises(InputError, match="names no layer"):
        run(Factorize(skip=("3.conv9",)))


class Odd(nn.Module):
    """Layers that cannot be replaced: shared, tied, inside torch's own attention, unused."""

    def __init__(self):
        super().__init__()
        self.a = self.again = nn.Linear(64, 64)
        self.tied, self.other = nn.Linear(64, 64), nn.Linear(64, 64)
        self.other.weight = self.tied.weight
        self.unused = nn.Linear(64, 64)
        self.encoder = nn.TransformerEncoderLayer(64, 4, 64, batch_first=True)
        self.packed = nn.MultiheadAttention(64, 4, batch_first=True, add_bias_kv=True)
        self.good, self.out = nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x):
        x = self.other(self.tied(self.again(self.a(x.flatten(1)))))
        x = self.encoder(x[:, None])
        return self.out(torch.relu(self.good(self.packed(x, x, x)[0][:, 0])))


def test_layers_that_cannot_be_replaced_are_named(tmp_path):
    package, t = run(Factorize(), Odd)
    note = package.notes[-1]
    apart = [f"encoder.self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
    assert list(note["layers"]) == [*apart, "good"]
    want = {
        "a": "it is shared",
        "tied": "it is shared",
        "other": "it is shared",
        "unused": "it is not called in a forward pass",
        "encoder.linear1": "its module reads its weight itself",
        "encoder.linear2": "its module reads its weight itself",
        "packed.out_proj": "it is a NonDynamicallyQuantizableLinear, whose weight others read or make",
        "out": "it makes the model's output",
    }
    assert note["whole"] == want
    with torch.inference_mode():
        assert torch.equal(reloaded(package, t, tmp_path).module(X), package.module(X))


class Reads(nn.Module):
    """Its code reads the weight of `a` and asks whether `b` has one; `c` is a layer like any."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x):
        x = self.a(x.flatten(1).to(self.a.weight.dtype))
        x = self.b(x) if hasattr(self.b, "weight") else x
        return self.out(self.c(x))


def test_a_layer_that_the_models_code_reads_is_left_whole():
    package, _ = run(Factorize(), Reads)
    note = package.notes[-1]
    said = "the model's code reads its weight, or how wide it is"
    assert list(note["layers"]) == ["c"] and [note["whole"][p] for p in "ab"] == [said, said]
    assert type(package.module.a) is type(package.module.b) is nn.Linear


def test_a_model_that_does_not_run_with_the_factors_is_refused_with_a_way_out():
    class Asks(Reads):
        def forward(self, x):
            assert not isinstance(self.c, nn.Sequential)
            return super().forward(x)

    with pytest.raises(InputError, match="factorize.skip"):
        run(Factorize(), Asks)
    assert run(Factorize(skip=("c",)), Asks)[0].notes[-1]["layers"] == {}


def test_ranks_by_latency_are_those_measured_faster(monkeypatch):
    """A stand-in for the clock: a pair takes time in proportion to its parameters plus
    0.1 ms for each layer."""

    def race(self, layer, parts, shape):
        before, after = (
            sum(p.numel() for p in m.parameters()) / 4000 + 0.1 * max(1, len(list(m.children())))
            for m in (layer, parts)
        )
        return after < before, before, after

    monkeypatch.setattr(_factorize.Bench, "race", race)
    t = toy.task(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)
        )
    )
    net = t.build()
    u, s = torch.linalg.qr(torch.randn(64, 64))[0], torch.ones(64) * 1e-3
    s[:16] = 1.0
    net[1].weight.data = u @ torch.diag(s) @ u.T
    package = Factorize(rank_by="latency").apply(Package(net), toy.context(t))
    note = package.notes[-1]
    # 8 loses half, 16 nothing that counts, 24 saves less
    assert note["layers"]["1"]["ranks"] == [16]
    before, after = note["layers"]["1"]["ms"]
    assert before == pytest.approx(4160 / 4000 + 0.1) and after == pytest.approx((16 * 128 + 64) / 4000 + 0.2)
    monkeypatch.setattr(_factorize.Bench, "race", lambda *a: (False, 1.0, 0.5))
    package = Factorize(rank_by="latency").apply(Package(net), toy.context(t))
    assert not package.edits and package.notes[-1]["whole"]["1"] == "no rank is measured faster on onnxruntime"


def test_the_bench_measures_in_this_process(monkeypatch):
    monkeypatch.setattr(_factorize, "_SECONDS", 0.05)
    torch.manual_seed(0)
    layer, bench = nn.Linear(768, 768).eval(), _factorize.Bench("onnxruntime")
    thin = factorized(layer, "linear", [8])
    for p in thin.parameters():
        p.data.normal_()
    won, before, after = bench.race(layer, thin, (1, 32, 768))
    assert won and 0 < after < before
    assert bench.race(layer, thin, (1, 32, 768)) == (won, before, after)  # from memory


def test_measured_ranks_belong_to_a_machine():
    assert Factorize().depends == "" and "onnxruntime" not in Factorize(rank_by="energy").depends
    assert Factorize(rank_by="latency").depends != Factorize(rank_by="latency", on="openvino").depends != ""
