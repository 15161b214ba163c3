"""Resize: against torch's own resampling, inside every exported file, with every other step."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import featherweight as fw
from featherweight.engine.export import graph, write_artifact
from featherweight.engine.weights import load_model
from featherweight.errors import InputError, RecipeError, StoreError
from featherweight.graphs.export import export_onnx
from featherweight.measure.ops import layer_macs, macs
from featherweight.models.copies import copied
from featherweight.models.entry import changed, changes, weights
from featherweight.models.package import Package
from featherweight.models.surgery import edit
from featherweight.recipe import Recipe
from featherweight.targets.base import Target
from featherweight.task.data import ArraySplit
from featherweight.task.splitting import split
from featherweight.task.task import Task
from featherweight.testing import check_transform
from featherweight.train.loop import predict
from featherweight.transforms.distill import Distill
from featherweight.transforms.drop_blocks import DropBlocks
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.mixed_precision import MixedPrecision
from featherweight.transforms.prune import Prune
from featherweight.transforms.qat import Qat
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.resize import Resize
from tests import toy
from tests.lean import some

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Seen(nn.Module):
    """Gives what it is given, and a sum of it."""

    def forward(self, image):
        self.image = image
        return image.flatten(1)[:, :4]


def made(transform, task=None, package=None):
    task = task or toy.task()
    return transform.apply(package or Package(task.build()), toy.context(task))


def seen(*steps, side=(8, 8), x=None):
    """What the model's own forward is given, of X or x."""
    x = X if x is None else x
    rows = np.random.default_rng(0).random((60, *x.shape[1:]), np.float32)
    t = Task(name="seen", model=Seen, data=lambda: split(ArraySplit({"image": rows}, np.arange(60) % 2)))
    package = Package(Seen().eval())
    for step in steps:
        package = made(step, t, package)
    package.module(x)
    return package.module.image


@pytest.mark.parametrize("scale", [0.25, 0.3, 0.625, 0.75, 0.875])
@pytest.mark.parametrize("how", ["area", "bilinear"])
def test_conformance(scale, how):
    check_transform(Resize(scale, how), toy.task())


def test_it_is_the_mean_of_what_each_pixel_covers():
    assert torch.equal(seen(Resize(0.5)), F.avg_pool2d(X, 2))
    by_hand = torch.stack(
        [sum(X[..., 2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)) / 4 for i in range(4) for j in range(4)], -1
    )
    assert torch.allclose(seen(Resize(0.5)).flatten(2), by_hand, atol=1e-6)
    # three from eight: 8/3 of a pixel each
    w = weights(8, 3, "area")
    assert torch.allclose(w[0], torch.tensor([3, 3, 2, 0, 0, 0, 0, 0]) / 8)
    assert torch.allclose(w[1], torch.tensor([0, 0, 1, 3, 3, 1, 0, 0]) / 8)
    assert torch.allclose(seen(Resize(0.375)), w @ X @ w.t(), atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.375, 0.5, 0.75, 0.875])
def test_bilinear_is_that_of_torch(scale):
    side = round(8 * scale)
    want = F.interpolate(X, size=(side, side), mode="bilinear", antialias=True)
    assert torch.allclose(seen(Resize(scale, "bilinear")), want, atol=1e-5)


@pytest.mark.parametrize("how", ["area", "bilinear"])
@pytest.mark.parametrize(("of", "to"), [(8, 1), (8, 3), (7, 7), (9, 4), (224, 168)])
def test_weights_are_means(of, to, how):
    w = weights(of, to, how)
    assert w.shape == (to, of) and bool((w >= 0).all())
    assert torch.allclose(w.sum(1), torch.ones(to), atol=1e-6)
    assert torch.allclose(w, w.flip(0).flip(1), atol=1e-6)
    assert of != to or torch.allclose(w, torch.eye(of), atol=1e-6)


def test_images_that_are_not_square_and_volumes():
    x = torch.randn(3, 2, 8, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(seen(Resize(0.5), x=x), F.avg_pool2d(x, 2))
    assert seen(Resize(0.7), x=x).shape == (3, 2, 6, 8)
    x = torch.randn(3, 2, 5, 8, 6, generator=torch.Generator().manual_seed(1))

    module = Seen()
    edit(module, {"edit": "resize_input", "input": 0, "name": "image", "of": [8, 6], "to": [4, 3], "how": "area"})
    module(x)
    assert torch.allclose(module.image, F.avg_pool3d(x, (1, 2, 2)))
    module = Seen()
    edit(module, {"edit": "resize_input", "input": 0, "name": "image", "of": [8, 6], "to": [5, 4], "how": "area"})
    module(x)
    assert torch.allclose(module.image, weights(8, 5, "area") @ x @ weights(6, 4, "area").t(), atol=1e-6)


def test_two_after_each_other():
    assert torch.allclose(seen(Resize(0.5), Resize(0.5)), F.avg_pool2d(X, 4), atol=1e-6)
    assert torch.allclose(
        seen(Resize(0.5), Resize(0.75)),
        weights(4, 3, "area") @ F.avg_pool2d(X, 2) @ weights(4, 3, "area").t(),
        atol=1e-6,
    )


def test_the_work_shrinks_and_the_paths_stay():
    t = toy.task()
    before, after = t.build(), made(Resize(0.5), t).module
    assert [p for p, _ in before.named_modules()] == [p for p, _ in after.named_modules()]
    assert before.state_dict().keys() == after.state_dict().keys() and len(after) == len(before)
    assert layer_macs(after, [X[:1]])["3.conv1"] == layer_macs(before, [X[:1]])["3.conv1"] / 4
    assert 0.24 < macs(after, {"image": X}) / macs(before, {"image": X}) < 0.26
    assert torch.equal(after(X), before(F.avg_pool2d(X, 2)))
    assert changes(before) == ()  # the input is left alone


def test_it_idles_where_nothing_changes():
    package = made(Resize(1.0))
    assert Resize(1.0).idle and not Resize(0.99).idle and package.edits == ()
    nothing = made(Resize(0.99))  # of 8 pixels 8 are left
    assert nothing.edits == () and nothing.notes[-1]["images"] == {}
    for scale in (0.0, 1.5, -1.0):
        with pytest.raises(InputError, match="out of its range"):
            Resize(scale)


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.places = nn.Conv2d(1, 8, 2, 2), nn.Parameter(torch.zeros(1, 16, 8))
        self.body, self.out = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, image):
        return self.out(self.body(self.patch(image).flatten(2).transpose(1, 2) + self.places).mean(1))


class Grows(nn.Module):
    def forward(self, image):
        return image.flatten(1)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 4)

    def forward(self, image):
        return self.out(image)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (
            toy.plain,
            r"takes no smaller images(.|\n)*\[8, 8\] to \[4, 4\]; the layer '6' \(Linear\) fails(.|\n)*AvgPool2d",
        ),
        (Positions, r"the model's own code \(Positions\) fails: The size of tensor(.|\n)*position embedding"),
        (Grows, r"its output would be \[2, 16\], and is \[2, 64\]"),
    ],
)
def test_models_for_one_size_are_refused_by_name(model, match):
    with pytest.raises(InputError, match=match):
        made(Resize(0.5), toy.task(model))


def test_what_is_no_image_is_refused():
    t = Task(
        "flat",
        Words,
        lambda: split(ArraySplit({"image": np.random.default_rng(0).random((60, 4), np.float32)}, np.arange(60) % 4)),
    )
    with pytest.raises(InputError, match=r"takes no images to resize(.|\n)*image: float32\[2, 4\]"):
        made(Resize(0.5), t)
    with pytest.raises(RecipeError, match="resize cannot follow quantize"):
        Recipe(Quantize(), Resize()).check()


@pytest.mark.parametrize(
    "change",
    [
        {"of": [8, 8], "to": [9, 9], "how": "area"},
        {"of": [8, 8], "to": [0, 4], "how": "area"},
        {"of": [8, 8], "to": [4, 4], "how": "nearest"},
        {"of": [2**20, 8], "to": [4, 4], "how": "bilinear"},
    ],
)
def test_a_saved_edit_that_cannot_be_is_refused(change):
    with pytest.raises(StoreError, match="cannot be resized so"):
        edit(Seen(), {"edit": "resize_input", "input": 0, "name": "image", **change})


def test_torchscript_is_refused():
    with pytest.raises(InputError, match="TorchScript"):
        edit(torch.jit.script(nn.ReLU()), {"edit": "cut_input", "input": 0, "name": "x", "axis": 1, "length": 1})


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_copies_and_graph_modules_keep_it(scale):
    package = made(Resize(scale))
    want = package.module(X)
    assert torch.equal(copied(package.module)(X), want) and torch.equal(copy.deepcopy(package.module)(X), want)
    traced = toy.task(lambda: torch.fx.symbolic_trace(toy.residual()))
    package = made(Resize(scale), traced)
    again = copied(copied(package.module))
    assert torch.equal(again(X), package.module(X)) and len(changes(again)) == 1
    twice = made(Resize(0.5), traced, package)
    assert len(changes(twice.module)) == 2 and torch.equal(copied(twice.module)(X), twice.module(X))


def test_inputs_by_name():
    module = toy.Concat()
    edit(module, {"edit": "resize_input", "input": 0, "name": "x", "of": [8, 8], "to": [4, 4], "how": "area"})
    assert torch.equal(module(x=X), module(X))
    edit(
        other := toy.Concat(),
        {"edit": "resize_input", "input": 0, "name": "image", "of": [8, 8], "to": [4, 4], "how": "area"},
    )
    with pytest.raises(InputError, match="the input 'image', by this name or as number 1 by position"):
        other(x=X)


def test_a_saved_package_and_its_weights(tmp_path):
    t = toy.task()
    package = made(Resize(0.5), t, made(Resize(0.75), t))
    package.save(tmp_path, t.build)
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert [e["to"] for e in spec["edits"]] == [[6, 6], [3, 3]] and spec["sizes"] == {}
    assert torch.equal(Package.load(tmp_path, t.build).module(X), package.module(X))
    assert torch.equal(load_model(tmp_path, toy.residual)(X), package.module(X))


class Named(nn.Module):
    """Takes its input by name, and gives a dict."""

    def __init__(self):
        super().__init__()
        self.net = toy.residual(8)

    def forward(self, *, image):
        return {"logits": self.net(image)}


def test_weights_of_a_model_that_was_wrapped(tmp_path):
    from featherweight.task.accept._adapter import Adapter

    t = toy.task(lambda: Adapter(Named(), ("image",), "logits"))
    package = made(Resize(0.5), t)
    package.save(tmp_path, t.build)
    loaded = load_model(tmp_path, Named)
    assert type(loaded) is Named
    assert torch.equal(loaded(image=X)["logits"], package.module(X))


STEPS = {
    "channels": [Prune(ratio=0.25, round_to=4, criterion="magnitude")],
    "blocks": [DropBlocks(drop=1, samples=8)],
    "low rank": [Factorize(ratio=0.2, round_to=2)],
    "distilled": [Distill(epochs=1, batch_size=32, features=1.0)],
    "int8": [Quantize(samples=16)],
    "int8 with grids": [Quantize(samples=16, rounding="gptq", equalize="cle")],
    "int8 dynamic": [Quantize(scheme="int8-dynamic")],
    "4 bits": [Quantize(scheme="weight-only", bits=4)],
    "trained": [Qat(epochs=1, batch_size=32, samples=16)],
    "mixed": [MixedPrecision(samples=16, max_drop=1.0)],
    "all": [
        Prune(ratio=0.25, round_to=4, criterion="magnitude"),
        Resize(0.75),
        Distill(epochs=1),
        Quantize(samples=16),
    ],
}


@pytest.mark.parametrize("scale", [0.5, 0.75])
@pytest.mark.parametrize("steps", some(STEPS, ("channels", "int8", "distilled", "all")))
def test_other_steps_follow_it(steps, scale, tmp_path):
    t = toy.task(lambda: toy.residual(8), n=96)
    base = Package(t.build())
    context = toy.context(t, teacher=predict(base.module, t.splits().train), model=base)
    package = Resize(scale).apply(base, context)
    for step in STEPS[steps]:
        package = step.apply(package, context)
    assert len(changes(package.module)) == (2 if steps == "all" else 1)
    package.save(tmp_path, t.build)
    again = Package.load(tmp_path, t.build)
    assert torch.equal(again.module(X), package.module(X))
    for runtime in ("openvino",) if scale == 0.75 else ("onnxruntime", "torch"):
        if runtime == "torch" and package.plan is not None:
            continue
        folder = tmp_path / runtime
        folder.mkdir()
        write_artifact(t, again, Target(runtime), Recipe(Resize(scale), *STEPS[steps]), folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["inputs"]["image"]["shape"] == ["batch", 1, 8, 8]
        assert manifest["export"]["parity"]["agreement"] >= (1.0 if package.plan is None else 0.8)


@pytest.mark.parametrize("scale", [0.5, 0.7])
def test_what_resizes_is_not_quantized(scale, tmp_path):
    """In ONNX Runtime's static and dynamic files, and with weights of 4 bits."""
    import onnx

    rng = np.random.default_rng(0)
    data = ArraySplit({"image": rng.random((64, 3, 16, 16), np.float32)}, np.arange(64) % 4)
    net = [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ]
    t = Task("plain", lambda: nn.Sequential(*copy.deepcopy(net)), lambda: split(data))
    for scheme in ("int8-static", "int8-dynamic", "weight-only"):
        package = made(Quantize(scheme=scheme, samples=16), t, made(Resize(scale), t))
        folder = tmp_path / scheme
        folder.mkdir()
        write_artifact(t, package, Target("onnxruntime"), Recipe(Resize(scale)), folder)
        nodes = onnx.load(folder / "model.onnx").graph.node
        of = {o: n for n in nodes for o in n.output}
        first = next(n for n in nodes if "image" in n.input)
        assert first.op_type == ("AveragePool" if scale == 0.5 else "MatMul")
        assert all(of[i].op_type == "Constant" for i in first.input if i in of)
        if scale == 0.7:
            second = next(n for n in nodes if first.output[0] in n.input)
            assert second.op_type == "MatMul"
            assert all(of[i].op_type == "Constant" for i in second.input if i in of and i != first.output[0])


def test_the_dynamo_exporter_takes_it_too(tmp_path, monkeypatch):
    from featherweight.graphs import export

    def refused(*_):
        raise RuntimeError("not this one")

    monkeypatch.setattr(export, "_trace", refused)
    for scale in (0.5, 0.75):
        package = made(Resize(scale))
        told = export_onnx(package.module, {"image": X[:1]}, {"image": X}, tmp_path / f"{scale}.onnx")
        assert told["exporter"] == "dynamo" and told["float_parity"]["max_abs_error"] < 1e-4


def test_other_sides_are_other_graphs():
    """Files that compute on other sizes share no measured speed."""
    t = toy.task()
    every = [
        Package(t.build()),
        *(made(Resize(s, h), t) for s in (0.25, 0.5, 0.75, 0.875) for h in ("area", "bilinear")),
    ]
    hashes = {graph(p.module, Recipe(), {}, Target("onnxruntime")) for p in every}
    assert len(hashes) == len(every)


def test_what_a_forward_is_given_can_be_asked_for():
    package = made(Resize(0.5))
    assert torch.equal(changed(package.module, (X,))[0], F.avg_pool2d(X, 2))


def test_the_step_is_in_the_list_of_methods():
    assert fw.Resize is Resize and pickle.loads(pickle.dumps(Resize(0.5))) == Resize(0.5)
