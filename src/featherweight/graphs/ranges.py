"""Activation ranges with the least squared error, from histograms of the calibration rows.

Notation: h [B] counts of a tensor's values in B equal bins with centres c [B]; [a, b] the clip
range with a <= 0 <= b; n levels; s = (b - a) / (n - 1), z = round(-a / s);
Q(c) = (clip(round(c / s) + z, 0, n - 1) - z) s. Wanted: argmin over a, b of sum h (c - Q(c))^2
(Nagel et al. 2021, arXiv:2106.08295, section 3.1, "MSE").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .export import onnxruntime
from .session import Inputs

BINS, CHUNK = 2048, 8
# shares of the observed end that are tried first; then finer around the best
COARSE = np.linspace(0.04, 1.0, 25)


def least_error_range(
    counts: np.ndarray, low: float, high: float, symmetric: bool, levels: int = 256
) -> tuple[float, float]:
    """(a, b) for a histogram over [low, high]; symmetric: a = -b and an odd number of levels."""
    centres = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    kept = counts > 0
    c, h = centres[kept], counts[kept].astype(np.float64)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        end = max(-low, high)
        _, b = _search(c, h, (0.0, end), levels - 1, True)
        return -b, b
    return _search(c, h, (low, high), levels, False)


def _search(
    c: np.ndarray, h: np.ndarray, ends: tuple[float, float], levels: int, symmetric: bool
) -> tuple[float, float]:
    """Every pair of shares of the two ends, three times, each time closer around the best."""
    best, width = (1.0, 1.0), float(COARSE[1] - COARSE[0])
    shares = [COARSE if end != 0 else np.ones(1) for end in ends]
    for _ in range(3):
        tried = [
            (_error(c, h, -ends[1] * q if symmetric else ends[0] * p, ends[1] * q, levels), p, q)
            for p in shares[0]
            for q in shares[1]
        ]
        _, *found = min(tried)
        best = (float(found[0]), float(found[1]))
        shares = [
            np.clip(b + width * np.linspace(-1, 1, 9), 1e-3, 1.0) if end != 0 else np.ones(1)
            for b, end in zip(best, ends, strict=True)
        ]
        width /= 4
    return ends[0] * best[0], ends[1] * best[1]


def _error(c: np.ndarray, h: np.ndarray, a: float, b: float, levels: int) -> float:
    """sum h (c - Q(c))^2."""
    s = (b - a) / (levels - 1)
    if s <= 0:
        return float((h * c * c).sum())
    z = np.rint(-a / s)
    q = np.clip(np.rint(c / s) + z, 0, levels - 1)
    return float((h * (c - (q - z) * s) ** 2).sum())


def mse_ranges(
    prepared: Path, rows: Inputs, ops: list[str] | None, symmetric: bool, tmp: Path
) -> dict[str, tuple[float, float]]:
    """{tensor: (a, b)} for the float inputs and outputs of the operators `ops` (None:
    all that ONNX Runtime quantizes).

    Two passes over the rows, 8 at a time: the extremes, then a histogram between them,
    so no activation is kept.
    """
    import onnx
    from onnxruntime.quantization.calibrate import MinMaxCalibrater
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    chosen = ops or sorted({*QDQRegistry, *QLinearOpsRegistry})
    calibrater = MinMaxCalibrater(prepared, chosen, str(tmp / "unused.onnx"))
    model = onnx.load(prepared)
    constant = {w.name for w in model.graph.initializer}
    names = sorted(set(calibrater.select_tensors_to_calibrate(model)[0]) - constant)
    known = {o.name for o in model.graph.output}
    inputs = {i.name for i in model.graph.input}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in known | inputs)
    file = tmp / "watched.onnx"
    onnx.save(model, file)
    ends: dict[str, tuple[float, float]] = {}
    for name, x in _watched(file, names, rows):
        low, high = ends.get(name, (np.inf, -np.inf))
        if x.size:
            ends[name] = (min(low, float(x.min())), max(high, float(x.max())))
    counts = {
        name: np.zeros(BINS, np.int64)
        for name, (low, high) in ends.items()
        if np.isfinite([low, high]).all() and high > low
    }
    for name, x in _watched(file, names, rows):
        if name in counts:
            counts[name] += np.histogram(x, BINS, ends[name])[0]
    return {name: least_error_range(h, *ends[name], symmetric) for name, h in counts.items()}


def _watched(file: Path, names: list[str], rows: Inputs) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of every watched tensor, chunk after chunk of the rows."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    fed = [n for n in names if n in rows]
    wanted = [n for n in names if n not in rows]
    for start in range(0, len(next(iter(rows.values()))), CHUNK):
        part = {k: v[start : start + CHUNK] for k, v in rows.items()}
        yield from ((n, part[n]) for n in fed)
        yield from zip(wanted, map(np.asarray, session.run(wanted, part)), strict=True)
