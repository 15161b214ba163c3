"""OpenVINO: model.xml + model.bin, converted from the ONNX file.

Plans: int8-static is NNCF's post-training quantization (u8: asymmetric activations, preset MIXED;
s8: symmetric, preset PERFORMANCE), or, where the plan brings grids of its own, the QDQ graph that
is made for ONNX Runtime. weight-only puts the codes into the ONNX graph (`graphs.small`), which
OpenVINO keeps compressed; int8-dynamic does so with 8 bits per channel and lets the runtime
quantize activations in groups where the processor can.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TargetError
from ...graphs.coverage import layer_report
from ...graphs.export import export_onnx
from ...graphs.parity import as_numpy, check_float, check_rows, compare, meant, reference, run_rows
from ...graphs.recurrent import recurrent_report
from ...graphs.session import Session
from ...plan import Plan, check_plan, integer_problem
from ..base import Runtime, Target
from ._recurrent import recurrent
from .realise import fix_shapes, realise
from .session import FILE, GROUP, PRECISION, WEIGHTS, capabilities, from_onnx, load, openvino_module

if TYPE_CHECKING:
    import torch

    from ...models.package import Package


class Openvino(Runtime):
    """The `openvino` target on the CPU: fp32, bf16 and fp16 where the processor has
    them, int8 plans."""

    packages = ("torch", "openvino", "nncf")

    def problem(self, target: Target, plan: Plan | None) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed: pip install 'featherweight[openvino]'"
        if target.device != "cpu":
            return f"the openvino target runs on cpu, not on {target.device!r}"
        needed = {"fp32": None, "bf16": "BF16", "fp16": "FP16"}[target.dtype]
        if needed is not None and needed not in (can := capabilities()):
            return (
                f"this processor has no {target.dtype} arithmetic for OpenVINO (it lists {', '.join(can)}): "
                "use fp32 or an int8 plan"
            )
        if plan is None:
            return None
        if importlib.util.find_spec("nncf") is None:
            return "nncf, which int8 plans need, is not installed: pip install 'featherweight[openvino]'"
        if (malformed := check_plan(plan)) is not None:
            return malformed
        if plan.scheme == "int8-dynamic" and plan.granularity != "channel":
            return "int8-dynamic on openvino scales weights per channel: use granularity 'channel'"
        return integer_problem(plan, "openvino")

    def export(
        self,
        package: Package,
        example: dict[str, torch.Tensor],
        calibration: dict[str, torch.Tensor] | None,
        target: Target,
        folder: Path,
    ) -> dict[str, Any]:
        plan = package.plan
        if (problem := self.problem(target, plan)) is not None:
            raise TargetError(f"the target {target} cannot be used here", got=problem)
        ov = openvino_module()
        with tempfile.TemporaryDirectory(prefix="featherweight-") as tmp:
            plain = Path(tmp) / "float.onnx"
            notes: dict[str, Any] = {
                "files": [FILE, WEIGHTS],
                **export_onnx(package.module, example, calibration, plain),
            }
            if plan is None:
                model = from_onnx(plain)
                fix_shapes(model, example)
            else:
                model, notes["quantization"], found, held = realise(plain, package, example, calibration, Path(tmp))
            # 16-bit arithmetic gains nothing from 32-bit files; fp32 must keep every bit.
            ov.save_model(model, str(folder / FILE), compress_to_fp16=target.dtype != "fp32")
        session = load(folder, target, target.batch)
        if plan is not None:
            notes["coverage"] = session.coverage() | {
                "layers": layer_report(package, found, lambda s: held.get(s.node) or session.computed(s.node))
                | recurrent_report(package.module, recurrent(model), held, "OpenVINO")
            }
        rows = check_rows(example, calibration)
        expected = reference(meant(package, calibration), rows)
        got = run_rows(session, as_numpy(rows), target.batch)
        strict = plan is None and target.dtype == "fp32"
        notes["parity"] = check_float(expected, got, "the OpenVINO artifact") if strict else compare(expected, got)
        return notes | {"bytes": sum((folder / f).stat().st_size for f in (FILE, WEIGHTS))}

    def snippet(self, target: Target, example: list[str]) -> list[str]:
        hint, threads = PRECISION[target.dtype], target.threads
        return [
            "import numpy as np",
            "import openvino as ov",
            "",
            f'model = ov.Core().read_model("{FILE}")',
            *example,
            "model.reshape({name: list(value.shape) for name, value in inputs.items()})",
            f"group = {GROUP}  # of activations that share a scale; left alone, the runtime chooses one",
            "size = int(model.get_rt_info(group).astype(int)) if model.has_rt_info(group) else 0",
            (
                f'settings = {{"INFERENCE_PRECISION_HINT": "{hint}", "INFERENCE_NUM_THREADS": {threads}, '
                f'"NUM_STREAMS": 1, "DYNAMIC_QUANTIZATION_GROUP_SIZE": size}}'
            ),
            'compiled = ov.compile_model(model, "CPU", settings)',
            "output = compiled(inputs)[0]",
        ]

    def deployed(self, target: Target) -> dict[str, Any]:
        return {"precision": PRECISION[target.dtype]}

    def load(self, folder: Path, target: Target, batch: int) -> Session:
        return load(folder, target, batch)
