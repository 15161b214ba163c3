"""Numbers as people write them: 820 us, 56.2 KB, 1.3 M, 2 min 51 s. Decimal multiples, as in the
limits (1 KB = 1000 bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence

NONE = "n/a"
# metrics that are a share of 1, shown in percent
_SHARES = {"accuracy", "top5", "macro_f1", "micro_f1", "weighted_f1", "f1", "precision", "recall", "balanced_accuracy"}
_SHARES |= {"exact_match", "label_accuracy", "agreement", "pixel_accuracy", "token_accuracy", "miou", "iou"}
_SHARES |= {"entity_f1", "cer", "wer", "recall_at_1", "recall_at_5", "recall_at_10"}


def _digits(value: float) -> str:
    """Three significant digits without an exponent: 0.123, 1.23, 12.3, 123, 1234."""
    if value == 0:
        return "0"
    # of the rounded value: 0.9999 is 1.00
    places = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{min(places, 9)}f}"


def _scaled(value: float | None, steps: Sequence[tuple[float, str]]) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    for scale, unit in steps[:-1]:
        if abs(value) >= scale * 0.9995:
            return f"{_digits(value / scale)} {unit}".rstrip()
    scale, unit = steps[-1]
    return f"{_digits(value / scale)} {unit}".rstrip()


def milliseconds(value_ms: float | None) -> str:
    """A duration given in milliseconds: `820 us`, `1.24 ms`, `1.20 s`."""
    return _scaled(value_ms, ((1e3, "s"), (1.0, "ms"), (1e-3, "us")))


def size(size_bytes: float | None) -> str:
    """Bytes: `812 B`, `56.2 KB`, `1.20 MB`."""
    if size_bytes is not None and math.isfinite(size_bytes) and abs(size_bytes) < 999.5:
        return f"{size_bytes:.0f} B"
    return _scaled(size_bytes, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")))


def count(value: float | None) -> str:
    """A count: `812`, `56.2 k`, `1.30 M`, `4.00 G`."""
    if value is not None and math.isfinite(value) and abs(value) < 999.5:
        return f"{value:.0f}"
    return _scaled(value, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")))


def seconds(value_s: float | None) -> str:
    """A duration given in seconds: `0.35 s`, `12 s`, `2 min 51 s`, `3 h 05 min`."""
    if value_s is None or not math.isfinite(value_s):
        return NONE
    if value_s < 9.95:
        return f"{value_s:.2g} s"
    whole = round(value_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio(value: float | None) -> str:
    """A multiple: `0.42x`, `3.10x`, `12.5x`."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.2f}x" if abs(value) < 9.995 else f"{_digits(value)}x"


def percent(value: float | None) -> str:
    """A share of 1 in percent: `24 %`, `2.4 %`."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{100 * value:.0f} %" if abs(value) >= 0.0995 else f"{100 * value:.1f} %"


def is_share(metric_name: str) -> bool:
    """Is this metric a share of 1, to be shown in percent?"""
    return metric_name.partition("@")[0] in _SHARES


def metric(value: float | None, name: str) -> str:
    """A metric's value: `98.2 %` for accuracy and its kin, else four digits."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{100 * value:.1f} %" if is_share(name) else f"{value:.4g}"


def difference(value: float | None, name: str) -> str:
    """A difference of two values of a metric: `0.72 points` (hundredths of a share), `-0.012`."""
    if value is None or not math.isfinite(value):
        return NONE
    if not is_share(name):
        return f"{value + 0.0:.3g}"  # -0.0 is 0
    shown = f"{100 * value:.2f}".rstrip("0").rstrip(".")
    shown = "0" if shown == "-0" else shown
    return f"{shown} point{'' if shown in ('1', '-1') else 's'}"


def change(drop: float | None, name: str) -> str:
    """A drop in words: `0.72 points worse`, `0.1 points better`, `unchanged`."""
    if drop is None or not math.isfinite(drop):
        return NONE
    if drop == 0:
        return "unchanged"
    return f"{difference(abs(drop), name)} {'worse' if drop > 0 else 'better'}"


def many(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def between(low: str, high: str) -> str:
    """`2.9x to 3.3x`; `n/a` if an end is missing."""
    return NONE if NONE in (low, high) else f"{low} to {high}"
