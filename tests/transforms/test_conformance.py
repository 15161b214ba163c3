"""Every transform passes the suite that the package ships; and the suite finds what it is there to find."""

import dataclasses

import pytest
import torch

from featherweight import registry
from featherweight.nets.conv_net import ConvNet
from featherweight.recipe import Transform
from featherweight.space import Float, param
from featherweight.testing import check_transform
from featherweight.testing.transforms import check_application, check_fields
from tests import toy

SETTINGS = {"train": {"epochs": 1, "batch_size": 16}, "distill": {"epochs": 1, "batch_size": 16}, "prune": {"round_to": 4, "criterion": "taylor"}}
SETTINGS["build"] = {"net": ConvNet(in_channels=1, classes=4, depths=(1,), widths=(8,))}
SETTINGS["distill_blocks"] = {"epochs": 1, "batch_size": 16}
SETTINGS["gate"] = {"transform": registry.find("transforms", "drop_blocks")(), "knob": "drop", "max_drop": 1.0}


@pytest.mark.parametrize("kind", registry.names("transforms"))
def test_transform(kind):
    check_transform(registry.find("transforms", kind)(**SETTINGS.get(kind, {})), toy.task())


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


def test_a_search_range_beyond_the_legal_one_is_found():
    @dataclasses.dataclass(frozen=True)
    class Wide(Transform):
        a: float = param(0.5, search=Float(0, 2), legal=Float(0, 1), doc="too wide")

    with pytest.raises(Exception, match="out of its range"):
        check_fields(Wide)
