"""Does the artifact give what the PyTorch module gives? numpy only, except `reference`,
which runs the module.

Notation: y [n, ...] the module's outputs, z [n, ...] the artifact's, on the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..columns import magnitude, spread
from ..errors import TargetError
from .session import Inputs, Session

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.package import Package

# largest error allowed to a float artifact, relative to what each column of the output spreads
FLOAT_TOLERANCE = 1e-3
ROUNDING = 1e-4  # and what rounding may do besides, relative to the column's largest magnitude
HOPELESS = 100.0  # times the power of the outputs, as noise: no quantization is that coarse
ROWS = 64  # rows that a parity check looks at
BATCHES = (1, 3)  # and how many at a time, besides all


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode without gradients; every submodule's own mode is put back afterwards.

    torch's fused attention path is off meanwhile: it can be neither exported nor counted,
    and computes the same.
    """
    import torch

    from ..models.hooks import slow_attention

    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), slow_attention():
            yield
    finally:
        for m, training in before:
            m.training = training


def varied(example: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
    """`n` rows made from one sample: floats with noise (a tenth of their spread, fixed seed),
    whole numbers rolled.

    Rolling along the last axis keeps token ids and masks within the values that the sample
    shows to be legal.
    """
    import torch

    rng = torch.Generator().manual_seed(0)
    rows = {}
    for name, value in example.items():
        one = value[:1].detach().cpu()
        if one.is_floating_point():
            spread = float(one.std()) if one.numel() > 1 else 0.0
            many = one.repeat(n, *[1] * (one.dim() - 1))
            rows[name] = many + 0.1 * (spread or 1.0) * torch.randn(many.shape, generator=rng, dtype=many.dtype)
        else:
            rows[name] = torch.cat([one.roll(i, dims=-1) if one.dim() > 1 else one for i in range(n)])
    return rows


def check_rows(
    example: dict[str, torch.Tensor], calibration: dict[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """The rows that parity is checked on: the first calibration rows, or 8 variations of the
    example where there are none."""
    return varied(example, 8) if calibration is None else {k: v[:ROWS] for k, v in calibration.items()}


def reference(module: nn.Module, rows: dict[str, torch.Tensor], batch: int = ROWS) -> np.ndarray:
    """The module's output [n, ...] for `rows`, `batch` at a time, on the module's own device.
    TargetError if it gives anything but one tensor."""
    import torch

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    out = []
    with evaluating(module):
        n = len(next(iter(rows.values())))
        for start in range(0, n, batch):
            y = module(*[v[start : start + batch].to(device) for v in rows.values()])
            if not isinstance(y, torch.Tensor):
                raise TargetError(
                    "the model gives more than one tensor",
                    got=type(y).__name__,
                    allowed="one tensor whose first axis is the batch",
                    fix="wrap the model in a module that returns the tensor that is wanted (its logits)",
                )
            out.append(y.float().cpu().numpy())
    y = np.concatenate(out)
    if len(y) != n:
        raise TargetError("the first axis of the model's output is not the batch", got=f"{y.shape} for {n} rows")
    return y


def check_module(module: nn.Module, rows: dict[str, torch.Tensor], expected: np.ndarray) -> None:
    """TargetError if no file can stand for the module: it computes in float64, or what it gives for
    a row depends on the rows beside it. expected: its outputs for all rows."""
    import torch

    from ..models.batch_norms import check_statistics

    check_statistics(module, "exported", TargetError)
    double = [name for name, v in module.named_parameters() if v.dtype == torch.float64]
    double += [name for name, v in rows.items() if v.dtype == torch.float64]
    if double:
        raise TargetError(
            "a model that computes in float64 cannot be exported",
            got=f"float64: {', '.join(double[:5])}" + (", .." if len(double) > 5 else ""),
            allowed="float32, in which every runtime here computes",
            fix="build the model with .float() and give its data as float32",
        )
    _check_certain(module, rows, expected)
    for size in BATCHES:
        worst, allowed = _worst(expected, reference(module, rows, size))
        if worst > allowed:
            raise TargetError(
                "what the model gives for a sample depends on the samples beside it",
                got=f"in batches of {size} outputs that differ by {worst:.3g} from those of all rows",
                allowed=f"at most {allowed:.3g}",
                fix="no Python control flow on values (`if x.mean() > 0`: use torch.where, row by row), "
                "and no statistics over the batch",
            )


def _check_certain(module: nn.Module, rows: dict[str, torch.Tensor], expected: np.ndarray) -> None:
    """TargetError if the outputs are not numbers, or other ones when they are computed again."""
    bad = np.flatnonzero(~np.isfinite(expected).reshape(len(expected), -1).all(1))
    if len(bad):
        raise TargetError(
            "the model gives values that are not finite",
            got=f"for {len(bad)} of {len(expected)} rows: {', '.join(map(str, bad[:10]))}"
            + (", .." if len(bad) > 10 else ""),
            allowed="finite numbers, without which nothing can be compared",
            fix="look at the model's outputs for these rows of the calibration data: a logarithm or a root of what is "
            "below zero, a division by zero, a training that diverged",
        )
    worst, allowed = _worst(expected, reference(module, rows))
    if worst > allowed:
        raise TargetError(
            "the model gives other outputs when it computes the same rows again",
            got=f"outputs that differ by {worst:.3g}",
            allowed=f"at most {allowed:.3g}",
            fix="draw no random numbers in eval mode (noise, F.dropout without training=self.training), "
            "and keep nothing from one pass for the next",
        )


def meant(package: Package, calibration: dict[str, torch.Tensor] | None) -> nn.Module:
    """The module whose outputs the artifact should give: the package's own; where training learned
    the grids of its inputs, so that its floating-point outputs mean little, one that computes with
    these grids."""
    if not any(name.endswith(".input.scale") for name in package.scales):
        return package.module
    from ..machine import saturates
    from ..models.quant.fake import simulate

    return simulate(package, calibration or {}, saturates())


def as_numpy(rows: dict[str, torch.Tensor]) -> Inputs:
    """Tensors as contiguous arrays by the same names."""
    return {name: np.ascontiguousarray(v.detach().cpu().numpy()) for name, v in rows.items()}


def run_rows(
    session: Session,
    rows: Inputs,
    batch: int,
    store: Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray] | None = None,
) -> np.ndarray:
    """The session's outputs [n, ...] for all rows, `batch` at a time; a last partial batch is
    filled with its last row.

    store: makes the array that is filled, from (shape, dtype); in memory if None. TargetError if
    the outputs' first axis is not the batch.
    """
    n = len(next(iter(rows.values())))
    if n == 0:
        raise TargetError("there are no samples to run", got="inputs with an empty first axis")
    out = np.empty(0)
    for start in range(0, n, batch):
        size = min(batch, n - start)
        part = {k: np.ascontiguousarray(v[start : start + batch]) for k, v in rows.items()}
        if size < batch:
            part = {k: np.concatenate([v, np.repeat(v[-1:], batch - size, axis=0)]) for k, v in part.items()}
        z = session.run(part)
        if z.shape[:1] != (batch,):
            raise TargetError(
                "the first axis of the artifact's output is not the batch", got=f"{z.shape} for {batch} samples"
            )
        if start == 0:
            shape = (n, *z.shape[1:])
            out = np.empty(shape, z.dtype) if store is None else store(shape, z.dtype)
        out[start : start + size] = z[:size]
    return out


def compare(y: np.ndarray, z: np.ndarray) -> dict[str, Any]:
    """How close z is to y: the largest error, the signal-to-quantization-noise ratio in dB
    (None if z equals y), and the share of rows with the same argmax (None if the output is not
    2-d). TargetError if z has another shape, is not finite, or is what no rounding makes of y: far
    larger (HOPELESS), or the same in every row of several."""
    if y.shape != z.shape:
        raise TargetError("the artifact's output has another shape than the model's", got=z.shape, allowed=y.shape)
    if not np.isfinite(z).all() and np.isfinite(y).all():
        raise TargetError(
            "the artifact gives values that are not finite", got=f"{int((~np.isfinite(z)).sum())} of {z.size}"
        )
    error = y.astype(np.float64) - z.astype(np.float64)
    noise, signal = float((error**2).sum()), float((y.astype(np.float64) ** 2).sum())
    flat = len(y) >= 3 and not np.ptp(z, axis=0).any() and bool(np.ptp(y, axis=0).any())
    if signal > 0.0 and (noise > HOPELESS * signal or flat):
        raise TargetError(
            "the artifact computes something else than the model",
            got="the same output for every row" if flat else f"outputs up to {np.abs(z).max():.3g}",
            allowed=f"what rounding makes of the model's, which are up to {np.abs(y).max():.3g}",
            fix="use another target or quantization scheme: a runtime's kernel may be wrong for this model",
        )
    sqnr = None if noise == 0.0 or signal == 0.0 else 10.0 * math.log10(signal / noise)
    agreement = float((y.argmax(1) == z.argmax(1)).mean()) if y.ndim == 2 and y.shape[1] > 1 else None
    return {
        "max_abs_error": float(np.abs(error).max(initial=0.0)),
        "sqnr_db": sqnr,
        "agreement": agreement,
        "rows": len(y),
    }


def check_float(y: np.ndarray, z: np.ndarray, what: str) -> dict[str, Any]:
    """`compare`, and TargetError if the error of a column exceeds FLOAT_TOLERANCE times its spread,
    and rounding."""
    result = compare(y, z)
    worst, allowed = _worst(y, z)
    if worst > allowed:
        raise TargetError(
            f"{what} does not give what the PyTorch model gives",
            got=f"an error of {worst:.3g}",
            allowed=f"at most {allowed:.3g}",
        )
    return result


def close(y: np.ndarray, z: np.ndarray) -> bool:
    """Could z be y but for rounding, column by column?"""
    if y.shape != z.shape:
        return False
    worst, allowed = _worst(y, z)
    return worst <= allowed


def _worst(y: np.ndarray, z: np.ndarray) -> tuple[float, float]:
    """(the error, the largest that is allowed) where z is worst by the measure of its column; (inf,
    0) where one of them is no number and the other is."""
    if y.shape != z.shape:
        raise TargetError("the output has another shape", got=z.shape, allowed=y.shape)
    if y.size == 0:
        return 0.0, 0.0
    both = np.isfinite(y) & np.isfinite(z)
    if bool((~both & ~((y == z) | (np.isnan(y) & np.isnan(z)))).any()):
        return math.inf, 0.0
    error = np.abs(np.where(both, y.astype(np.float64) - np.where(both, z, 0), 0))
    allowed = np.broadcast_to(_bound(y), y.shape)
    at = np.unravel_index(int((error / allowed).argmax()), y.shape)
    return float(error[at]), float(allowed[at])


def _bound(y: np.ndarray) -> np.ndarray:
    """The largest errors that a float artifact may make on outputs y: [1, ...], the same for all
    rows."""
    size = magnitude(y)
    # a single row spreads nothing
    own = np.maximum(FLOAT_TOLERANCE * (spread(y) if len(y) > 1 else size), ROUNDING * size)
    whole = float(size.max(initial=0.0))
    return np.maximum(own, max(2 * float(np.finfo(np.float32).eps) * whole, 1e-9))
