"""What this machine's processor can do, as far as a runtime's choices depend on it. No torch here."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def flags() -> frozenset[str]:
    """The processor's feature flags as Linux names them (`avx512_vnni`); empty where the system does not list them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((row for row in text.splitlines() if row.lower().startswith(("flags", "features"))), "")
    return frozenset(line.partition(":")[2].split())


def saturates() -> bool:
    """Does an unsigned-by-signed 8-bit product overflow its 16-bit sum here?

    x86 without VNNI multiplies with `vpmaddubsw`, which adds two products into 16 bits with saturation, so full-range
    8-bit weights give wrong sums; 7-bit weights cannot (255 * 64 * 2 < 2^15). ONNX Runtime, "Quantize ONNX models", section on
    U8S8 and `reduce_range`.
    """
    return "avx" in flags() and not flags() & {"avx512_vnni", "avx_vnni"}
