"""The evaluator of the onnx package: one file, model.onnx, run operator by operator in numpy.

Slow, and written to be right rather than fast: where two runtimes differ, it says which is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featherweight.errors import TargetError
from featherweight.graphs.export import export_onnx
from featherweight.graphs.parity import as_numpy, check_float, check_rows, reference, run_rows
from featherweight.graphs.session import Inputs, Session
from featherweight.plan import Plan
from featherweight.targets.base import Runtime, Target

if TYPE_CHECKING:
    import torch

    from featherweight.models.package import Package

FILE = "model.onnx"


class OnnxReference(Runtime):
    """The `onnx_reference` target: fp32 on the CPU, no quantization plans."""

    automatic = False
    packages = ("torch", "onnx")

    def problem(self, target: Target, plan: Plan | None) -> str | None:
        if target.dtype != "fp32" or target.mode or target.device != "cpu":
            return "the onnx package's evaluator computes in fp32 on the cpu, and compiles nothing"
        if plan is not None:
            return "onnx_reference runs no quantization plan: use onnxruntime or openvino"
        return None

    def export(
        self,
        package: Package,
        example: dict[str, torch.Tensor],
        calibration: dict[str, torch.Tensor] | None,
        target: Target,
        folder: Path,
    ) -> dict[str, Any]:
        if (problem := self.problem(target, package.plan)) is not None:
            raise TargetError(f"the target {target} cannot be used here", got=problem)
        notes = export_onnx(package.module, example, calibration, folder / FILE)
        rows = check_rows(example, calibration)
        got = run_rows(self.load(folder, target, target.batch), as_numpy(rows), target.batch)
        parity = check_float(reference(package.module, rows), got, "the onnx evaluator")
        return {"files": [FILE], **notes, "parity": parity}

    def snippet(self, target: Target, example: list[str]) -> list[str]:
        return [
            "import numpy as np",
            "from onnx.reference import ReferenceEvaluator",
            "",
            f'model = ReferenceEvaluator("{FILE}")',
            *example,
            "output = model.run(None, inputs)[0]",
        ]

    def load(self, folder: Path, target: Target, batch: int) -> Session:
        from onnx.reference import ReferenceEvaluator

        if not (folder / FILE).is_file():
            raise TargetError("this is no artifact of onnx_reference", got=f"no {FILE} in {folder}")
        return Evaluator(ReferenceEvaluator(str(folder / FILE)))


class Evaluator(Session):
    """A loaded graph."""

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator

    def run(self, inputs: Inputs) -> np.ndarray:
        return np.asarray(self.evaluator.run(None, inputs)[0])
