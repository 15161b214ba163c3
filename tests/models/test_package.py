import json

import pytest
import torch

from featherweight.errors import StoreError
from featherweight.models.package import Package
from featherweight.transforms.prune import Prune
from tests import toy


def test_a_saved_model_is_spec_and_safetensors_and_nothing_else(tmp_path):
    t = toy.task()
    Prune(round_to=4).apply(Package(t.build()), toy.context(t)).save(tmp_path, t.build)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "spec.json"]
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec["format"] == 2 and spec["sizes"]["0"]["out_channels"] < 16


def test_a_model_of_another_builder_is_refused(tmp_path):
    t = toy.task()
    Package(t.build()).save(tmp_path, t.build)
    with pytest.raises(StoreError, match="cannot be loaded"):
        Package.load(tmp_path, toy.plain)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        '{"format": 1',
        '{"format": 2, "net": null, "edits": [{"edit": "nope"}], "sizes": {}, "sparse": [], "plan": null, "notes": []}',
    ],
)
def test_a_damaged_spec_is_refused(tmp_path, damage):
    t = toy.task()
    Package(t.build()).save(tmp_path, t.build)
    (tmp_path / "spec.json").write_text(damage)
    with pytest.raises(StoreError):
        Package.load(tmp_path, t.build)


@pytest.mark.parametrize(
    ("plan", "why"), [([], "no quantization plan"), ({"scheme": 8}, "the plan's scheme is 8; allowed: int8-static")]
)
def test_a_damaged_plan_is_refused(tmp_path, plan, why):
    t = toy.task()
    Package(t.build()).save(tmp_path, t.build)
    spec = json.loads((tmp_path / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"plan": plan}))
    with pytest.raises(StoreError, match="cannot be loaded") as caught:
        Package.load(tmp_path, t.build)
    assert why in str(caught.value)


def test_a_truncated_weights_file_is_refused(tmp_path):
    t = toy.task()
    Package(t.build()).save(tmp_path, t.build)
    raw = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(StoreError):
        Package.load(tmp_path, t.build)


def test_shared_weights_survive(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(4, 4)
            self.b = torch.nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    torch.manual_seed(0)
    net = Tied()
    Package(net).save(tmp_path, Tied)
    back = Package.load(tmp_path, Tied).module
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(back(x), net(x)) and back.a.weight is back.b.weight
