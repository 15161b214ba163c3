"""What a runtime is, and how a target names one. numpy only:
a fresh measuring process imports this, never torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .. import registry
from ..errors import InputError, TargetError
from ..graphs.session import Session
from ..plan import Plan
from ..space import Choice, Int, Node, param

if TYPE_CHECKING:
    import torch

    from ..models.package import Package


@dataclass(frozen=True)
class Target(Node):
    """What the model will run on: runtime + dtype + mode + threads + batch + device. Written
    `openvino:bf16:threads=2:batch=8`."""

    runtime: str = param("onnxruntime", doc="which runtime loads the artifact")
    dtype: str = param(
        "fp32", legal=Choice("fp32", "bf16", "fp16"), doc="arithmetic of the layers that are not quantized"
    )
    mode: str = param("", legal=Choice("", "compile"), doc="compile: by the torch runtime's compiler, before it runs")
    threads: int = param(1, legal=Int(1, 4096), doc="threads of one inference")
    batch: int = param(1, legal=Int(1, 65536), doc="samples in one inference")
    device: str = param("cpu", doc="cpu, or cuda where the runtime has it")

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that `str(target)` wrote; InputError names what is not understood."""
        runtime, *rest = text.strip().split(":")
        registry.find("targets", runtime)
        values: dict[str, Any] = {"runtime": runtime}
        for part in rest:
            name, eq, value = part.partition("=")
            if not eq:
                name, value = ("mode" if part == "compile" else "dtype"), part
            if name not in ("dtype", "mode", "threads", "batch", "device") or (
                name in ("threads", "batch") and not (value.isascii() and value.isdecimal() and len(value) < 10)
            ):
                raise InputError(
                    "this target is not understood",
                    got=text[:200],
                    allowed="RUNTIME[:DTYPE][:compile][:threads=N][:batch=N][:device=NAME], as openvino:bf16:threads=2",
                )
            values[name] = int(value) if name in ("threads", "batch") else value
        return cls(**values)

    def __str__(self) -> str:
        out = self.runtime + ("" if self.dtype == "fp32" else f":{self.dtype}") + (f":{self.mode}" if self.mode else "")
        out += "" if self.threads == 1 else f":threads={self.threads}"
        out += "" if self.batch == 1 else f":batch={self.batch}"
        return out + ("" if self.device == "cpu" else f":device={self.device}")

    def load_runtime(self) -> Runtime:
        """The runtime's class, ready to use; TargetError if it cannot run this target here."""
        runtime: Runtime = registry.find("targets", self.runtime)()
        problem = runtime.problem(self, None)
        if problem is not None:
            raise TargetError(f"the target {self} cannot be used here", got=problem)
        return runtime


class Runtime(ABC):
    """Abstract: one runtime. Its heavy imports are inside its methods."""

    automatic: ClassVar[bool] = True  # is it among what the target `auto` stands for?
    # distributions whose versions decide what it writes; part of an artifact's key
    packages: ClassVar[tuple[str, ...]] = ("torch",)

    @abstractmethod
    def problem(self, target: Target, plan: Plan | None) -> str | None:
        """Why this target (with this quantization plan) cannot be realised here;
        None if it can. Cheap."""

    @abstractmethod
    def export(
        self,
        package: Package,
        example: dict[str, torch.Tensor],
        calibration: dict[str, torch.Tensor] | None,
        target: Target,
        folder: Path,
    ) -> dict[str, Any]:
        """Write the deployable file(s) into an existing empty folder and return what the manifest
        should say of them.

        example: one sample per input, batch 1; calibration: training inputs [n, ...] by name, those
        that calibrate if the package has a plan, on which parity is checked (None: there are none).
        """

    def snippet(self, target: Target, example: list[str]) -> list[str] | None:
        """Lines of Python that load what `export` wrote, from its folder, and run it once, for
        whoever deploys it; None: there are none.

        example: lines that make `inputs`, arrays by name, for one batch;
        `output` is what the model gives."""
        return None

    def deployed(self, target: Target) -> dict[str, Any]:
        """What else `deploy.predict.session` has to know to run a file of this runtime."""
        return {}

    @abstractmethod
    def load(self, folder: Path, target: Target, batch: int) -> Session:
        """Load what `export` wrote, for inferences of `batch` samples.
        Imports no torch unless the runtime is torch."""
