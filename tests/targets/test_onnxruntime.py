"""What is particular to ONNX Runtime: operators that it fuses, models that its quantizer does not
take."""

import onnx
import pytest
import torch
from torch import nn

from featherweight.errors import TargetError
from featherweight.models.package import Package
from featherweight.targets.base import Target
from featherweight.targets.onnxruntime import _session
from tests.targets.nets import attention, plan


@pytest.mark.parametrize("scheme", [None, "int8-dynamic", "weight-only"])
def test_no_residual_sum_is_fused_into_a_slow_normalization(scheme, tmp_path):
    """ONNX Runtime's SkipLayerNormalization is slower on the CPU than a sum and a normalization."""
    module, example, rows = attention()
    package = Package(module, plan=None if scheme is None else plan(scheme))
    target = Target()
    runtime = target.load_runtime()
    runtime.export(package, example, rows, target, tmp_path)
    written = [n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node]
    assert written.count("Sum") == 4 and written.count("LayerNormalization") == 4
    _session(tmp_path / "model.onnx", target, tmp_path / "optimized.onnx")
    run = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "SkipLayerNormalization" not in run and run.count("LayerNormalization") == 4


class TwoAxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.o(nn.functional.layer_norm(self.a(x) + x, (5, 16)))


def test_what_the_quantizer_does_not_take_is_a_target_error(tmp_path):
    torch.manual_seed(0)
    rows = {"x": torch.randn(16, 5, 16)}
    package = Package(TwoAxes().eval(), plan=plan("int8-static"))
    target = Target()
    with pytest.raises(TargetError, match=r"quantizer does not take this model[\s\S]*skip="):
        target.load_runtime().export(package, {"x": rows["x"][:1]}, rows, target, tmp_path)
