"""Facts about this machine, kept with every measurement. No torch here."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from ..targets import _cpu

PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "openvino", "nncf")


def machine() -> dict[str, Any]:
    """{"cpu", "cores", "flags", "memory_bytes", "os", "python", "versions"}; flags: which of the vector and 8-bit instruction
    sets the processor lists (all False where the system lists none); versions: of the packages that are installed."""
    import psutil

    flags = _cpu.flags()
    sets = {
        "avx2": "avx2" in flags,
        "avx512": "avx512f" in flags,
        "vnni": bool(flags & {"avx512_vnni", "avx_vnni"}),
        "amx_int8": "amx_int8" in flags,
        "amx_bf16": "amx_bf16" in flags,
    }
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "threads": psutil.cpu_count() or 1,
        "flags": sets,
        "memory_bytes": int(psutil.virtual_memory().total),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: v for name in PACKAGES if (v := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
