"""PyTorch itself: model.pt2, an exported program, run as it is (eager) or through torch.compile.

It is a target to name, not one of `auto`: eager at batch 1 took 8 to 16 times as long as ONNX
Runtime on small CNNs and 1.3 times on an encoder.

The file holds the graph as JSON and the weights as bytes. The format also allows what would run
code when loaded; a file that contains any of that is refused before PyTorch reads it (`pt2`).
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import machine
from ..errors import TargetError
from ..graphs.parity import (
    as_numpy,
    check_float,
    check_module,
    check_rows,
    compare,
    evaluating,
    reference,
    run_rows,
    varied,
)
from ..graphs.session import Inputs, Session
from ..plan import Plan
from ..pt2 import checked
from .base import Runtime, Target

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.package import Package

FILE = "model.pt2"
# inside the file: the inputs' names in the order in which the program takes them
ORDER = "inputs.json"


class Torch(Runtime):
    """The `torch` target: fp32, bf16 and fp16, eager or compiled (`torch:compile`),
    on the CPU or a CUDA device."""

    # twice, as it stands in the keys of artifacts that are stored already
    packages = ("torch", "torch")

    automatic = False

    def problem(self, target: Target, plan: Plan | None) -> str | None:
        import torch

        if plan is not None:
            return "the torch target runs no quantization plan: use onnxruntime or openvino"
        if target.device != "cpu" and not (target.device.startswith("cuda") and torch.cuda.is_available()):
            return f"torch runs on cpu, and on cuda where it finds a device; got {target.device!r}"
        if target.device == "cpu" and target.dtype != "fp32" and not _has_half(target.dtype):
            return f"this processor has no {target.dtype} arithmetic: use fp32"
        if target.mode == "compile" and target.device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            return "torch.compile needs a C++ compiler: install g++, or leave out `compile`"
        return None

    def export(
        self,
        package: Package,
        example: dict[str, torch.Tensor],
        calibration: dict[str, torch.Tensor] | None,
        target: Target,
        folder: Path,
    ) -> dict[str, Any]:
        import torch

        if (problem := self.problem(target, package.plan)) is not None:
            raise TargetError(f"the target {target} cannot be used here", got=problem)
        dtype = _dtype(target)
        module = _cast(package.module if dtype == torch.float32 else package.copied().to(dtype), dtype)
        rows = check_rows(example, calibration)
        expected = reference(package.module, rows)
        check_module(package.module, rows, expected)
        shapes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in example),)  # one *args parameter
        try:
            with evaluating(package.module), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                program = torch.export.export(module.eval(), tuple(varied(example, 2).values()), dynamic_shapes=shapes)
                torch.export.save(program, folder / FILE, extra_files={ORDER: json.dumps(list(example))})
        except Exception as e:  # the exporter raises many types; all mean the same to the user
            raise TargetError(
                "the model cannot be exported by torch.export",
                got=f"{type(e).__name__}: {str(e)[:400]}",
                fix=(
                    "keep the forward free of Python control flow on tensor values, and the batch axis free; "
                    "or use the onnxruntime target"
                ),
            ) from e
        got = run_rows(self.load(folder, target, target.batch), as_numpy(rows), target.batch)
        parity = (
            check_float(expected, got, "the exported program") if target.dtype == "fp32" else compare(expected, got)
        )
        return {"files": [FILE], "inputs": list(example), "parity": parity, "bytes": (folder / FILE).stat().st_size}

    def snippet(self, target: Target, example: list[str]) -> list[str]:
        return [
            "import numpy as np",
            "import torch",
            "",
            f"torch.set_num_threads({target.threads})",
            f'model = torch.export.load("{FILE}").module()',
            *(["model = torch.compile(model)"] if target.mode == "compile" else []),
            *example,
            "with torch.no_grad():",
            "    output = model(*(torch.from_numpy(value) for value in inputs.values()))",
        ]

    def deployed(self, target: Target) -> dict[str, Any]:
        return {"compile": target.mode == "compile"}

    def load(self, folder: Path, target: Target, batch: int) -> Session:
        import torch

        file = folder / FILE
        if not file.is_file():
            raise TargetError("this is no torch artifact", got=f"no {FILE} in {folder}")
        torch.set_num_threads(target.threads)
        try:
            with checked(file) as copy, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                extra = {ORDER: ""}
                module = torch.export.load(copy, extra_files=extra).module(check_guards=False).to(target.device)
                names = [str(name) for name in json.loads(extra[ORDER])]
        except (RuntimeError, ValueError, KeyError, OSError) as e:
            raise TargetError("PyTorch cannot load this artifact", got=f"{file}: {e}") from e
        return _TorchSession(module, target, names)


class _TorchSession(Session):
    def __init__(self, module: nn.Module, target: Target, names: list[str]) -> None:
        import torch

        self._names = names
        self._device = target.device
        self._run: Any = torch.compile(module, dynamic=False) if target.mode == "compile" else module
        self._frozen = target.mode == "compile"

    def run(self, inputs: Inputs) -> np.ndarray:
        import torch

        if sorted(inputs) != sorted(self._names):
            raise TargetError("the program takes other inputs", got=sorted(inputs), allowed=self._names)
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device) for name in self._names]
        freezing: Any = contextlib.nullcontext()
        if self._frozen:
            import torch._inductor.config as inductor

            # weights are constants: they may be laid out anew
            freezing = inductor.patch(freezing=True)
        try:
            with torch.no_grad(), freezing:
                return self._run(*tensors).cpu().numpy()  # type: ignore[no-any-return]
        except (RuntimeError, TypeError, ValueError, AssertionError) as e:
            got = {k: f"{v.dtype} {v.shape}" for k, v in inputs.items()}
            raise TargetError("PyTorch refused these inputs", got=f"{got}: {str(e)[:400]}") from e


def _dtype(target: Target) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[target.dtype]


def _has_half(dtype: str) -> bool:
    return bool(
        machine.flags()
        & ({"amx_bf16", "avx512_bf16", "avx_ne_convert"} if dtype == "bf16" else {"amx_fp16", "avx512_fp16"})
    )


def _cast(inner: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`inner` with floating inputs cast to `dtype` and its output cast to float32."""
    import torch
    from torch import nn

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            if dtype == torch.float32:
                return self.inner(*inputs)  # type: ignore[no-any-return]
            return self.inner(*[x.to(dtype) if x.is_floating_point() else x for x in inputs]).float()  # type: ignore[no-any-return]

    return Cast()
