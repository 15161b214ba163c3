"""Every kind of block and cell reaches both runtimes, on images of odd size too,
and can be slimmed down."""

import importlib.util

import pytest
import torch
from torch import nn

from featherweight.models.package import Package
from featherweight.nets.cell import Cell
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.mlp import Mlp
from featherweight.targets.base import Target
from featherweight.testing.transforms import check_application
from featherweight.transforms.drop_blocks import DropBlocks
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from tests import toy
from tests.targets.nets import plan

HAS_OPENVINO = all(importlib.util.find_spec(p) for p in ("openvino", "nncf"))
RUNTIMES = [
    "onnxruntime",
    pytest.param("openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="needs openvino and nncf")),
]
SIZES = {"in_channels": 1, "classes": 4, "stem": 8, "widths": (8, 16), "depths": (2, 1)}
NETS = {
    "cell": Cell(
        1, 4, 8, 1, "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3", "skip_connect", "avg_pool_3x3", "nor_conv_1x1"
    ),
    "cell with a dead end": Cell(
        1, 4, 8, 2, "nor_conv_3x3", "nor_conv_1x1", "nor_conv_3x3", "skip_connect", "avg_pool_3x3", "none"
    ),
    "plain": ConvNet(block="plain", kernel=(3, 5), **SIZES),
    "no normalisation": ConvNet(norm="none", **SIZES),
    "group normalisation": ConvNet(norm="group", block="inverted", expansion=2.0, **SIZES),
}


def built(name):
    """With statistics of normalisation as after training."""
    module, g = NETS[name].build(), torch.Generator().manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1, generator=g)
            m.running_var.uniform_(0.5, 1.5, generator=g)
    return module


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtimes_compute_what_the_module_does(runtime, name, tmp_path):
    rows = {"image": torch.randn(16, 1, 13, 11, generator=torch.Generator().manual_seed(0))}
    target = Target.parse(runtime)
    notes = target.load_runtime().export(Package(built(name)), {"image": rows["image"][:1]}, rows, target, tmp_path)
    assert notes["parity"]["max_abs_error"] < 1e-4 and notes["parity"]["agreement"] == 1.0


@pytest.mark.parametrize("name", NETS)
def test_static_int8(name, tmp_path):
    rows = {"image": torch.randn(48, 1, 13, 11, generator=torch.Generator().manual_seed(0))}
    target = Target.parse("onnxruntime")
    notes = target.load_runtime().export(
        Package(built(name), plan=plan()), {"image": rows["image"][:1]}, rows, target, tmp_path
    )
    assert notes["parity"]["sqnr_db"] > 15 and sum(notes["coverage"]["quantized"].values()) >= 5


STEPS = {
    "prune": Prune(ratio=0.25, round_to=2, criterion="magnitude"),
    "drop": DropBlocks(drop=1, samples=8),
    "factorize": Factorize(ratio=0.2, round_to=2),
    "int4": Quantize(scheme="weight-only", bits=4, granularity="group", group=8, rounding="gptq", samples=16),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("step", STEPS)
def test_nets_survive_the_transforms(step, name):
    t = toy.task(lambda: NETS[name].build(), n=48)
    check_application(STEPS[step], t, 0)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_mlp_of_flat_features_keeps_the_name_of_its_input(runtime, tmp_path):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    module, x = (
        Mlp(features=6, classes=3, hidden=(8,)).build(0),
        torch.randn(2, 6, generator=torch.Generator().manual_seed(0)),
    )
    target = Target.parse(runtime)
    target.load_runtime().export(Package(module), {"x": x[:1]}, None, target, tmp_path)
    got = target.load_runtime().load(tmp_path, target, 2).run({"x": x.numpy()})
    assert abs(got - module(x).detach().numpy()).max() < 1e-4
