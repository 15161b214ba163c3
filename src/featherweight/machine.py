"""Facts about this machine: what its processor can do, and what is kept with every
measurement. No torch here."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "onnx", "onnxruntime", "openvino", "nncf")


def machine() -> dict[str, Any]:
    """{"cpu", "cores", "flags", "memory_bytes", "os", "python", "versions"}; flags: which of the
    vector and 8-bit instruction sets the processor lists (all False where the system lists none);
    versions: of the packages that are installed."""
    import psutil

    known = flags()
    sets = {
        "avx2": "avx2" in known,
        "avx512": "avx512f" in known,
        "vnni": bool(known & {"avx512_vnni", "avx_vnni"}),
        "amx_int8": "amx_int8" in known,
        "amx_bf16": "amx_bf16" in known,
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


@cache
def flags() -> frozenset[str]:
    """The processor's feature flags as Linux names them (`avx512_vnni`);
    empty where the system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((row for row in text.splitlines() if row.lower().startswith(("flags", "features"))), "")
    return frozenset(line.partition(":")[2].split())


def saturates() -> bool:
    """Does an unsigned-by-signed 8-bit product overflow its 16-bit sum here?

    x86 without VNNI multiplies with `vpmaddubsw`, which adds two products into 16 bits with
    saturation, so full-range 8-bit weights give wrong sums; 7-bit weights cannot
    (255 * 64 * 2 < 2^15). ONNX Runtime, "Quantize ONNX models", section on U8S8 and `reduce_range`.
    """
    return "avx" in flags() and not flags() & {"avx512_vnni", "avx_vnni"}
