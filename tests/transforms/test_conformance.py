"""Every transform passes the suite that the package ships; and the suite finds what it is there to find."""

import dataclasses

import pytest
import torch

from featherweight import registry
from featherweight.nets.conv_net import ConvNet
from featherweight.recipe import Recipe, Transform
from featherweight.space import Float, param
from featherweight.testing import check_transform
from featherweight.testing.transforms import check_application, check_fields, check_zeros
from featherweight.transforms.prune import Prune
from featherweight.transforms.train import Train
from tests import toy

SETTINGS = {"train": {"epochs": 1, "batch_size": 16}, "distill": {"epochs": 1, "batch_size": 16}, "prune": {"round_to": 4, "criterion": "taylor"}}
SETTINGS["build"] = {"net": ConvNet(in_channels=1, classes=4, depths=(1,), widths=(8,))}
SETTINGS["distill_blocks"] = {"epochs": 1, "batch_size": 16}
SETTINGS["gate"] = {"transform": registry.find("transforms", "drop_blocks")(), "knob": "drop", "max_drop": 1.0}


MORE = [  # what the default settings do not reach
    ("prune", {"granularity": "weight", "steps": 2, "recover": Recipe(Train(epochs=1))}),
    ("prune", {"granularity": "2:4"}),
    ("prune", {"granularity": "weight", "ratio": 0.0}),
    ("prune", {"granularity": "weight", "criterion": "obs", "update": True, "allocation": "uniform"}),
    ("prune", {"round_to": 2, "allocation": "uniform", "ratio": 0.75}),
    ("quantize", {"scheme": "weight-only", "bits": 4, "granularity": "group", "group": 8, "rounding": "gptq", "symmetric": False}),
    ("quantize", {"range": "mse", "equalize": "cle", "correct_bias": True}),
    ("qat", {"epochs": 1, "granularity": "tensor"}),
    ("distill", {"epochs": 1, "batch_size": 16, "features": 1.0}),
    ("cut_randomly", {"unit": "block", "tolerance": 10.0, "proposals": 4}),
    ("gate", {"transform": Prune(granularity="weight"), "how": "step", "steps": 2, "max_drop": 1.0, "recover": Train(epochs=1)}),
]


@pytest.mark.parametrize("kind", registry.names("transforms"))
def test_transform(kind):
    check_transform(registry.find("transforms", kind)(**SETTINGS.get(kind, {})), toy.task())


@pytest.mark.parametrize(("kind", "fields"), MORE, ids=str)
def test_more_settings_of_a_transform(kind, fields):
    check_transform(registry.find("transforms", kind)(**fields), toy.task())


@dataclasses.dataclass(frozen=True)
class Bad(Transform):
    how: str = param("", doc="what it does wrong")

    def apply(self, model, context):
        with torch.no_grad():
            if self.how == "changed":
                next(model.module.parameters()).add_(1)
            elif self.how == "same seed":
                import copy

                model = model.edited(module=copy.deepcopy(model.module))
                next(model.module.parameters()).add_(torch.randn(()))
            elif self.how == "training mode":
                model.module.train()
        return model if self.how == "note" else model.noted(step=self.kind)


@pytest.mark.parametrize("how", ["changed", "same seed", "training mode", "note"])
def test_the_suite_finds_it(how):
    with pytest.raises(AssertionError, match=how):
        check_application(Bad(how), toy.task(), 0)


@dataclasses.dataclass(frozen=True)
class Noise(Transform):
    """Adds noise to weights, and says nothing of their zeros."""

    how: str = param("", doc="what it does wrong, if it does")

    def apply(self, model, context):
        import copy

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
    with pytest.raises(AssertionError, match=r"noise claims zeros of a sparse model that are not there.*zeros are zero no more"):
        check_zeros(Noise(how), toy.task(), 0)
    with pytest.raises(AssertionError, match="changed the model" if how == "in place" else "claims zeros of a sparse model"):
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
