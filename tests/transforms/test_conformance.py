"""Every transform passes the suite that the package ships; and the suite finds what it
is there to find."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from featherweight import registry
from featherweight.nets.conv_net import ConvNet
from featherweight.recipe import Recipe, Shape, Transform
from featherweight.space import Float, param
from featherweight.testing import check_transform
from featherweight.testing.transforms import check_application, check_fields, check_shape, check_zeros
from featherweight.transforms.cut_randomly import CutRandomly
from featherweight.transforms.drop_blocks import DropBlocks
from featherweight.transforms.factorize import Factorize
from featherweight.transforms.mixed_precision import MixedPrecision
from featherweight.transforms.prune import Prune
from featherweight.transforms.quantize import Quantize
from featherweight.transforms.train import Train
from tests import kinds, toy

OF_TEXT = {"truncate", "trim_vocabulary", "merge_tokens", "replace_activations"}  # which suit no plain convolutions
SETTINGS = {
    "train": {"epochs": 1, "batch_size": 16},
    "distill": {"epochs": 1, "batch_size": 16},
    "prune": {"round_to": 4, "criterion": "taylor"},
}
SETTINGS["build"] = {"net": ConvNet(in_channels=1, classes=4, depths=(1,), widths=(8,))}
SETTINGS["distill_blocks"] = {"epochs": 1, "batch_size": 16}
SETTINGS["gate"] = {"transform": registry.find("transforms", "drop_blocks")(), "knob": "drop", "max_drop": 1.0}


MORE = [  # what the default settings do not reach
    ("prune", {"granularity": "weight", "steps": 2, "recover": Recipe(Train(epochs=1))}),
    ("prune", {"granularity": "2:4"}),
    ("prune", {"granularity": "weight", "ratio": 0.0}),
    ("prune", {"granularity": "weight", "criterion": "obs", "update": True, "allocation": "uniform"}),
    ("prune", {"round_to": 2, "allocation": "uniform", "ratio": 0.75}),
    (
        "quantize",
        {
            "scheme": "weight-only",
            "bits": 4,
            "granularity": "group",
            "group": 8,
            "rounding": "gptq",
            "symmetric": False,
        },
    ),
    ("quantize", {"range": "mse", "equalize": "cle", "correct_bias": True}),
    ("qat", {"epochs": 1, "granularity": "tensor"}),
    ("distill", {"epochs": 1, "batch_size": 16, "features": 1.0}),
    ("cut_randomly", {"unit": "block", "tolerance": 10.0, "proposals": 4}),
    ("prune", {"round_to": 1, "allocation": "uniform", "ratios": (0.25, 0.5), "steps": 2, "recover": Train(epochs=1)}),
    ("prune", {"round_to": 4, "allocation": "sensitivity"}),
    ("factorize", {"round_to": 1, "form": "activation", "ratio": 0.3}),
    ("factorize", {"round_to": 1, "rank_by": "energy"}),
    ("drop_blocks", {"criterion": "last"}),
    ("factorize", {"ratio": 0.0}),
    ("prune", {"ratio": 0.0}),
    ("prune", {"ratio": 0.0, "granularity": "2:4"}),  # a pattern cuts whatever the ratio is
    ("drop_blocks", {"drop": 0}),
    ("drop_blocks", {"criterion": "random"}),
    ("mixed_precision", {"scheme": "weight-only", "sensitivity": "taylor", "max_drop": 1.0, "samples": 32}),
    ("gate", {"transform": Quantize(samples=16), "knob": "calibrate", "values": ("minmax", "mse"), "max_drop": 1.0}),
    (
        "gate",
        {
            "transform": Prune(granularity="weight"),
            "how": "step",
            "steps": 2,
            "max_drop": 1.0,
            "recover": Train(epochs=1),
        },
    ),
]


@pytest.mark.parametrize("kind", registry.names("transforms"))
def test_transform(kind):
    t = kinds.task("two layers of attention") if kind in OF_TEXT else toy.task()
    check_transform(registry.find("transforms", kind)(**SETTINGS.get(kind, {})), t)


@pytest.mark.parametrize(("kind", "fields"), MORE, ids=str)
def test_more_settings_of_a_transform(kind, fields):
    check_transform(registry.find("transforms", kind)(**fields), toy.task())


@dataclasses.dataclass(frozen=True)
class Bad(Transform):
    how: str = param("", doc="what it does wrong")

    @property
    def idle(self):
        return self.how == "idle"

    def apply(self, model, context):
        with torch.no_grad():
            if self.how == "changed":
                next(model.module.parameters()).add_(1)
            elif self.how == "idle":
                model = model.edited(module=copy.deepcopy(model.module))
                next(model.module.parameters()).add_(1)
            elif self.how == "same seed":
                model = model.edited(module=copy.deepcopy(model.module))
                next(model.module.parameters()).add_(torch.randn(()))
            elif self.how == "training mode":
                model.module.train()
        return model if self.how == "note" else model.noted(step=self.kind)


@pytest.mark.parametrize("how", ["changed", "same seed", "training mode", "note", "idle"])
def test_the_suite_finds_it(how):
    with pytest.raises(AssertionError, match=how):
        check_application(Bad(how), toy.task(), 0)


@dataclasses.dataclass(frozen=True)
class Says(Transform):
    """Does what another does, and says something else of it."""

    what: Any = param(None, doc="the other")
    word: Any = param(None, doc="what it says")

    @property
    def shape(self):
        return None if self.word is None else Shape(self.word)

    def apply(self, model, context):
        return self.what.apply(model, context)


@pytest.mark.parametrize(
    ("what", "word", "match"),
    [
        (
            DropBlocks(criterion="last"),
            None,
            "says does not say what it does to a model's structure.*Shape.KEEPS, Shape.FIELDS",
        ),
        (
            DropBlocks(criterion="last"),
            "keeps",
            "says states Shape.KEEPS, but changes the structure: parameters [0-9]+ and [0-9]+, multiply",
        ),
        (DropBlocks(criterion="last"), "formats", "says states Shape.FORMATS, but changes the structure"),
        (Factorize(round_to=1), "keeps", "changes the structure: .*3.conv1.weight .* and not there"),
        (
            Prune(round_to=1, criterion="magnitude"),
            "fields",
            "says states Shape.FIELDS, but the structure that it leaves follows from weights or chance",
        ),
        (CutRandomly(tolerance=10.0), "fields", "follows from weights or chance"),
        (MixedPrecision(save=0.3, max_drop=1.0, samples=32), "keeps", "number formats that it plans follow from"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_the_suite_finds_a_shape_that_is_not_so(what, word, match):
    with pytest.raises(AssertionError, match=match):
        check_shape(Says(what, word), toy.task(), 0)


def test_the_whole_suite_asks_for_the_shape(monkeypatch):
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda group, kind: Noise if kind == "noise" else find(group, kind))
    with pytest.raises(AssertionError, match="noise does not say what it does"):
        check_transform(Noise("honest"), toy.task())


@dataclasses.dataclass(frozen=True)
class Noise(Transform):
    """Adds noise to weights, and says nothing of their zeros."""

    how: str = param("", doc="what it does wrong, if it does")

    def apply(self, model, context):
        module = model.module if self.how == "in place" else copy.deepcopy(model.module)
        model = model.edited(module=module)
        last = dict(module.named_parameters())["8.weight"]
        with torch.no_grad():
            if self.how == "one":
                last.flatten()[int((last == 0).flatten().int().argmax())] = 1.0
            elif self.how not in ("new", "gone"):
                for p in module.parameters():
                    p.add_(0.1)
        claims = {"new": ("8.weight",), "gone": ("9.weight",), "honest": ()}.get(self.how, model.sparse)
        return model.edited(sparse=claims).noted(step=self.kind)


@pytest.mark.parametrize("how", ["all", "one", "in place"])
def test_the_suite_finds_zeros_that_were_filled(how, monkeypatch):
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda group, kind: Noise if kind == "noise" else find(group, kind))
    with pytest.raises(
        AssertionError, match=r"noise claims zeros of a sparse model that are not there.*zeros are zero no more"
    ):
        check_zeros(Noise(how), toy.task(), 0)
    with pytest.raises(
        AssertionError, match="changed the model" if how == "in place" else "claims zeros of a sparse model"
    ):
        check_transform(Noise(how), toy.task())


@pytest.mark.parametrize(("how", "why"), [("new", "none of its 128 weights is zero"), ("gone", "no such parameter")])
def test_the_suite_finds_claims_without_zeros(how, why):
    with pytest.raises(AssertionError, match=f"noise claims zeros that are not there.*{why}"):
        check_application(Noise(how), toy.task(), 0)


def test_a_step_may_fill_zeros_that_it_claims_no_more():
    check_zeros(Noise("honest"), toy.task(), 0)
    check_application(Noise("honest"), toy.task(), 0)


def test_a_search_range_beyond_the_legal_one_is_found():
    @dataclasses.dataclass(frozen=True)
    class Wide(Transform):
        a: float = param(0.5, search=Float(0, 2), legal=Float(0, 1), doc="too wide")

    with pytest.raises(Exception, match="out of its range"):
        check_fields(Wide)


def test_a_pattern_is_never_idle():
    assert Prune(ratio=0.0).idle and not Prune(ratio=0.0, granularity="2:4").idle
