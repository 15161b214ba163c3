"""ONNX Runtime: one file, model.onnx. Plans: `graphs.static`, `graphs.dynamic`, and `graphs.small`
for weights that are only stored small."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TargetError
from ..graphs.coverage import coverage
from ..graphs.dynamic import quantize_dynamic
from ..graphs.export import OUTPUT, export_onnx, onnxruntime
from ..graphs.norms import part_norms
from ..graphs.parity import as_numpy, check_float, check_rows, compare, meant, reference, run_rows
from ..graphs.recurrent import shrink_recurrent
from ..graphs.session import Inputs, Session
from ..graphs.sites import Site
from ..graphs.small import shrink, shrink_graph
from ..graphs.static import UNTAKEN, quantize_static
from ..plan import Plan, check_plan, integer_problem, needs_calibration, required
from .base import Runtime, Target

if TYPE_CHECKING:
    import torch

    from ..models.package import Package

FILE = "model.onnx"


class Onnxruntime(Runtime):
    """The `onnxruntime` target: fp32 and int8 on the CPU, fp32 with CUDA where the
    installed build has it."""

    packages = ("torch", "onnxruntime")

    def problem(self, target: Target, plan: Plan | None) -> str | None:
        if target.dtype != "fp32":
            return (
                f"{target.dtype} is not supported on the CPU by ONNX Runtime: "
                "use fp32 or an int8 plan, or the openvino target"
            )
        if target.device not in ("cpu", "cuda"):
            return f"onnxruntime runs on cpu or cuda, not on {target.device!r}"
        if target.device == "cuda" and "CUDAExecutionProvider" not in onnxruntime().get_available_providers():
            return "this onnxruntime has no CUDAExecutionProvider: pip install onnxruntime-gpu on a machine with CUDA"
        if target.device == "cuda" and plan is not None:
            return "int8 plans run on the cpu with onnxruntime, not on cuda"
        return None if plan is None else check_plan(plan) or integer_problem(plan, "onnxruntime")

    def export(
        self,
        package: Package,
        example: dict[str, torch.Tensor],
        calibration: dict[str, torch.Tensor] | None,
        target: Target,
        folder: Path,
    ) -> dict[str, Any]:
        plan, final = package.plan, folder / FILE
        if (problem := self.problem(target, plan)) is not None:
            raise TargetError(f"the target {target} cannot be used here", got=problem)
        with tempfile.TemporaryDirectory(prefix="featherweight-") as tmp:
            plain = Path(tmp) / "float.onnx"
            notes: dict[str, Any] = {"files": [FILE], **export_onnx(package.module, example, calibration, plain)}
            if plan is None:
                shutil.copyfile(plain, final)
            else:
                notes["quantization"], found, held = _realise(plain, final, package, calibration, Path(tmp))
            if target.device == "cpu":
                part_norms(final)
            if plan is not None:
                notes["coverage"] = coverage(final, package, found, held, lambda file, to: _session(file, Target(), to))
        rows = check_rows(example, calibration)
        expected = reference(meant(package, calibration), rows)
        session = self.load(folder, target, target.batch)
        try:
            got = run_rows(session, as_numpy(rows), target.batch)
        except TargetError as e:
            if plan is None:
                raise
            # whether a graph that the quantizer made wrongly is refused when it is made or when it
            # runs depends on what the processor's kernels fuse
            raise TargetError(
                "ONNX Runtime's quantizer does not take this model: its graph does not run", got=e.got, fix=UNTAKEN
            ) from e
        notes["parity"] = (
            check_float(expected, got, "the ONNX Runtime artifact") if plan is None else compare(expected, got)
        )
        return notes | {"bytes": final.stat().st_size}

    def snippet(self, target: Target, example: list[str]) -> list[str]:
        return [
            "import numpy as np",
            "import onnxruntime as ort",
            "",
            "options = ort.SessionOptions()",
            f"options.intra_op_num_threads = {target.threads}",
            f'session = ort.InferenceSession("{FILE}", options, providers=["CPUExecutionProvider"])',
            *example,
            "output = session.run(None, inputs)[0]",
        ]

    def load(self, folder: Path, target: Target, batch: int) -> Session:
        file = folder / FILE
        if not file.is_file():
            raise TargetError("this is no ONNX Runtime artifact", got=f"no {FILE} in {folder}")
        return _OrtSession(_session(file, target))


class _OrtSession(Session):
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Inputs) -> np.ndarray:
        try:
            return np.asarray(self._session.run([OUTPUT], inputs)[0])
        except Exception as e:  # ONNX Runtime's exceptions have no common base below Exception
            want = {i.name: f"{i.type} {i.shape}" for i in self._session.get_inputs()}
            got = {k: f"{v.dtype} {v.shape}" for k, v in inputs.items()}
            raise TargetError("ONNX Runtime refused these inputs", got=f"{got}: {e}", allowed=want) from e


def _session(file: Path, target: Target, optimized: Path | None = None) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads, options.inter_op_num_threads = target.threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Spinning threads of an idle session would take the processor from the one that is measured
    # beside it, and from whoever shares the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    provider = "CUDAExecutionProvider" if target.device == "cuda" else "CPUExecutionProvider"
    try:
        return ort.InferenceSession(str(file), options, providers=[provider])
    except Exception as e:
        raise TargetError("ONNX Runtime cannot load this artifact", got=f"{file}: {e}") from e


def _realise(
    plain: Path, final: Path, package: Package, calibration: dict[str, torch.Tensor] | None, tmp: Path
) -> tuple[dict[str, Any], list[Site], dict[str, str]]:
    """Write `final` as the plan says: (report, the sites of the layers,
    how weights edited by hand are held, by node)."""
    import onnx

    plan = required(package.plan)
    if plan.scheme == "int8-dynamic":
        return quantize_dynamic(plain, final, package, tmp)
    if plan.scheme == "weight-only":
        model = onnx.load(plain)
        found, held = shrink_graph(model, package, "ort")
        onnx.save(model, final)
        return {"scheme": plan.scheme, "weight_bits": plan.bits}, found, held
    if calibration is None:
        raise needs_calibration()
    n = min(plan.ranges().samples, len(next(iter(calibration.values()))))
    report, found = quantize_static(plain, final, package, as_numpy({k: v[:n] for k, v in calibration.items()}), tmp)
    small = [
        s
        for s in found
        if s.setting.bits in (4, 16) or (s.setting.bits == 8 and s.op not in ("Conv", "Gemm", "MatMul"))
    ]
    model = onnx.load(final)
    held = (shrink(model, small, package.scales, "ort") if small else {}) | shrink_recurrent(model, package)
    if held:
        onnx.save(model, final)
    return report, found, held
