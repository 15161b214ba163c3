"""ReplaceActivations: told by what they compute, replaced where they stand, the least first."""

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.engine.export import write_artifact
from featherweight.errors import InputError, RecipeError, StoreError
from featherweight.models.activations import COSTLY, replace_activation, replaceable, replaced
from featherweight.models.package import Package
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.testing import check_transform
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.replace_activations import ReplaceActivations, changes
from tests import kinds, toy

MODULES = {
    "gelu": nn.GELU(),
    "gelu, by tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "elu": nn.ELU(),
    "softplus": nn.Softplus(),
    "hardswish": nn.Hardswish(),
}


def text():
    return kinds.task("two layers of attention")


@pytest.mark.parametrize("name", MODULES)
def test_torchs_modules_are_told_by_what_they_compute(name):
    assert replaceable(nn.Sequential(MODULES[name]), "relu") == {"0": name}


def test_those_of_transformers_are_told():
    activations = pytest.importorskip("transformers.activations")
    net = nn.ModuleDict({k: activations.ACT2FN[k] for k in ("gelu", "gelu_new", "quick_gelu", "silu", "relu", "tanh")})
    told = replaceable(net, "relu")
    assert told == {"gelu": "gelu", "gelu_new": "gelu, by tanh", "quick_gelu": "gelu, by sigmoid", "silu": "silu"}
    assert replaceable(nn.Sequential(nn.Hardswish()), "hardswish") == {}


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity(), nn.Softmax(-1), nn.PReLU(), nn.Linear(13, 13), nn.Flatten()],
    ids=lambda m: type(m).__name__,
)
def test_others_are_none(module):
    assert replaceable(nn.Sequential(module), "relu") == {}


def test_a_function_of_a_transformer_layer_of_torch():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True).eval()
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    assert replaceable(net, "relu") == {"layers.0": "gelu", "layers.1": "gelu"}
    x = torch.randn(2, 3, 16)
    with replaced(net, "layers.1", "relu"):
        assert replaceable(net, "relu") == {"layers.0": "gelu"}
    assert replaceable(net, "relu") == {"layers.0": "gelu", "layers.1": "gelu"}
    for path in ("layers.0", "layers.1"):
        replace_activation(net, path, "relu")
    like = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, activation="relu", batch_first=True), 2, enable_nested_tensor=False
    ).eval()
    like.load_state_dict(net.state_dict())
    with torch.no_grad():  # the fused path and the plain one
        torch.testing.assert_close(net(x), like(x))
    torch.testing.assert_close(net(x), like(x))


@pytest.mark.parametrize("to", ["relu", "hardswish"])
@pytest.mark.parametrize("function", [nn.GELU(), nn.ReLU(), "gelu"], ids=["a module", "a relu", "a function"])
def test_torchs_fused_layers_compute_what_is_put_in(function, to):
    """In eval mode without gradients torch runs one kernel for a whole layer."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation=function, batch_first=True).eval()
    net = nn.Sequential(layer)
    x = torch.randn(2, 3, 16)
    with torch.inference_mode():
        before = net(x)
    for path in replaceable(net, to):
        with replaced(net, path, to), torch.inference_mode():
            inside = net(x)
        with torch.inference_mode():
            assert torch.equal(net(x), before)
        replace_activation(net, path, to)
        with torch.inference_mode():
            assert torch.equal(net(x), inside)
    plain = net(x).detach()  # with gradients torch does not fuse
    with torch.inference_mode():
        torch.testing.assert_close(net(x), plain)
    assert isinstance(function, nn.ReLU) == torch.allclose(plain, before, atol=1e-6)


def test_what_works_in_place_still_does():
    class Ignores(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.SiLU(inplace=True)

        def forward(self, x):
            y = x * 1
            self.act(y)
            return y

    net = Ignores()
    replace_activation(net, "act", "relu")
    assert net(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


def test_one_module_in_several_places_is_replaced_in_all():
    act = nn.GELU()
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), act), nn.Sequential(nn.Linear(4, 4), act))
    assert list(replaceable(net, "relu")) == ["0.1"]
    replace_activation(net, "0.1", "relu")
    assert isinstance(net[0][1], nn.ReLU) and net[0][1] is net[1][1]


def test_the_least_important_go_first():
    task = text()
    base = Package(task.build())
    context = toy.context(task)
    every = list(replaceable(base.module, "relu"))
    x = tuple(torch.as_tensor(v) for v in task.splits().train.batch(np.arange(8))[0].values())
    before = base.module(*x)
    told = changes(base.module, every, "relu", x)
    for path in every:  # by hand, on a copy
        module = base.copied()
        parent, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.ReLU())
        assert told[path] == pytest.approx(float((module(*x) - before).square().mean().detach()), rel=1e-4)
    assert torch.equal(base.module(*x), before)
    half = ReplaceActivations(share=0.5).apply(base, context)
    assert len(half.notes[-1]["replaced"]) == len(every) // 2 and half.notes[-1]["of"] == len(every)
    whole = ReplaceActivations("hardswish").apply(base, context)
    assert replaceable(whole.module, "hardswish") == {} and len(whole.edits) == len(every)


def test_conforms():
    check_transform(ReplaceActivations(share=0.5), text())
    check_transform(ReplaceActivations("hardswish"), text())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("steps", [[], [Prune(ratio=0.5)], [Quantize(samples=16)]], ids=["alone", "pruned", "int8"])
def test_files_of_it(runtime, steps, tmp_path):
    if runtime == "torch" and any(isinstance(s, Quantize) for s in steps):
        pytest.skip("no int8 there")
    task = text()
    package = ReplaceActivations().apply(Package(task.build()), toy.context(task))
    for step in steps:
        package = step.apply(package, toy.context(task))
    package.save(tmp_path, task.build)
    x = tuple(torch.as_tensor(v) for v in task.splits().train.batch(np.arange(8))[0].values())
    assert torch.equal(Package.load(tmp_path, task.build).module(*x), package.module(*x))
    (tmp_path / "out").mkdir()
    write_artifact(task, package, Target(runtime), Recipe(ReplaceActivations(), *steps), tmp_path / "out")


def test_what_has_none_is_refused_and_orders_that_cannot_be():
    task = toy.task()
    with pytest.raises(InputError, match="no activation to replace"):
        ReplaceActivations().apply(Package(task.build()), toy.context(task))
    with pytest.raises(RecipeError, match="integer grids"):
        Recipe(Quantize(rounding="gptq"), ReplaceActivations()).check()
    with pytest.raises(InputError):
        ReplaceActivations("gelu")
    with pytest.raises(StoreError, match="no such activation"):
        replace_activation(nn.Sequential(nn.GELU()), "0", "gelu")
    assert ReplaceActivations(share=0.0).idle and set(COSTLY) > {"gelu", "silu"}
