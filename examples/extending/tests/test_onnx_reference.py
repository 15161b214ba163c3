"""OnnxReference: the suite, which compares it with the model, and what it refuses."""

import pytest
import torch
from torch import nn

from featherweight.errors import TargetError
from featherweight.targets.base import Target
from featherweight.testing import check_target


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, image):
        return self.out(torch.relu(self.norm(self.conv(image))).mean((2, 3)))


@pytest.mark.parametrize("text", ["onnx_reference", "onnx_reference:batch=2"])
def test_it_passes_the_suite(text):
    check_target(Target.parse(text), Net().eval(), {"image": torch.randn(1, 1, 8, 8)})


@pytest.mark.parametrize("text", ["onnx_reference:bf16", "onnx_reference:device=cuda"])
def test_it_says_what_it_cannot_do(text):
    with pytest.raises(TargetError, match="cannot be used here"):
        Target.parse(text).load_runtime()


def test_a_folder_without_a_model(tmp_path):
    target = Target.parse("onnx_reference")
    with pytest.raises(TargetError, match="no model.onnx"):
        target.load_runtime().load(tmp_path, target, 1)
