"""A torch module as an ONNX file, checked against the module. Both runtimes start from it.

The trace exporter is tried first: it takes 0.2-3 s where the dynamo exporter takes 2-12 s, and the
resulting speed is the same.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TargetError
from .parity import BATCHES, as_numpy, check_float, check_module, check_rows, evaluating, reference, varied

if TYPE_CHECKING:
    import torch
    from torch import nn

# the first with LayerNormalization as one operator, and one that every tool of the tested set reads
OPSET = 17
OUTPUT = "output"
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the dynamo exporter writes a node's module path
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


def onnxruntime() -> Any:
    """The onnxruntime module, imported so that it reports nothing.

    Its official builds collect and upload usage events by default, from the moment they are loaded,
    unless this variable is set before (Privacy.md of the package: "Disable all 1DS telemetry at
    runtime"); `disable_telemetry_events` alone comes too late for the first.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    ort.disable_telemetry_events()
    return ort


def export_onnx(
    module: nn.Module, example: dict[str, torch.Tensor], calibration: dict[str, torch.Tensor] | None, file: Path
) -> dict[str, Any]:
    """Write `file`: inputs named as `example` in its order, one output "output",
    the first axis of each dynamic.

    Returns {"exporter": "trace"|"dynamo", "exporter_why": reason for not using the first, or None,
    "float_parity": {...}}. The caller's module is left as it was. TargetError if no exporter gives
    a file that computes what the module computes (on up to 64 calibration rows, one, three and all
    at a time; errors of at most 1e-3 of what a column spreads), or the module itself gives a row
    another output in another batch.
    """
    _check_example(example)
    onnxruntime()  # before an exporter can import it in its own way
    rows = check_rows(example, calibration)
    expected = reference(module, rows)
    check_module(module, rows, expected)
    failures: list[str] = []
    exporters: tuple[tuple[str, Callable[..., None]], ...] = (("trace", _trace), ("dynamo", _dynamo))
    for name, exporter in exporters:
        try:
            with evaluating(module), _quiet():
                exporter(module, varied(example, 2), file)
            parity = _file_parity(file, rows, expected)
        except Exception as e:
            # whatever an exporter raises (their types are many and change), the other one may work
            failures.append(f"{name}: {type(e).__name__}: {_first_lines(e)}")
            continue
        return {"exporter": name, "exporter_why": failures[0] if failures else None, "float_parity": parity}
    raise TargetError(
        "the model cannot be exported to ONNX",
        got="; ".join(failures),
        fix="keep the forward free of Python control flow on tensor values, and the batch axis free",
    )


def _check_example(example: dict[str, torch.Tensor]) -> None:
    import torch

    bad = {
        k: type(v).__name__ for k, v in example.items() if not isinstance(v, torch.Tensor) or v.dim() < 1 or len(v) < 1
    }
    if bad or not example:
        raise TargetError(
            "the example input is not usable",
            got=bad or "no inputs",
            allowed="a tensor per input name, first axis the batch",
        )


def _trace(module: nn.Module, rows: dict[str, torch.Tensor], file: Path) -> None:
    import torch

    from .values import frozen

    axes = {name: {0: "batch"} for name in [*rows, OUTPUT]}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.onnx.export(
            module,
            tuple(rows.values()),
            str(file),
            dynamo=False,
            input_names=list(rows),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
        )
    if places := frozen(module, tuple(rows.values()), warned):
        raise TargetError(
            "the model's code decides by values of its inputs, which a trace would freeze",
            got="; ".join(places[:5]),
            allowed="code that does the same whatever the values are",
            fix="torch.where, row by row",
        )


def _dynamo(module: nn.Module, rows: dict[str, torch.Tensor], file: Path) -> None:
    import torch

    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in rows)
    torch.onnx.export(
        module,
        tuple(rows.values()),
        str(file),
        dynamo=True,
        input_names=list(rows),
        output_names=[OUTPUT],
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, log lines or "[torch.onnx]" prints, and not the graph that C++ writes to file 1
    on failure; exceptions pass."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    before = [log.level for log in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for log in loggers:
            log.setLevel(logging.CRITICAL)
        try:
            with _closed_stdout():
                yield
        finally:
            for log, level in zip(loggers, before, strict=True):
                log.setLevel(level)


@contextlib.contextmanager
def _closed_stdout() -> Iterator[None]:
    """File 1 of this process leads nowhere meanwhile; as it was where there is no such file."""
    try:
        kept = os.dup(1)
    except OSError:  # started without a standard output
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _first_lines(e: BaseException, n: int = 3) -> str:
    return " ".join(line.strip() for line in str(e).splitlines()[:n])[:400]


def _file_parity(file: Path, rows: dict[str, torch.Tensor], expected: np.ndarray) -> dict[str, Any]:
    """All rows in batches of 1 and of 3, then at once: a batch size frozen into the graph shows as
    an error or a wrong shape, a branch frozen into it in the rows that take the other."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    known = {i.name for i in session.get_inputs()}
    if known != set(rows):
        raise TargetError(
            "the exported file has other inputs than the example",
            got=sorted(known),
            allowed=sorted(rows),
            fix="leave out of the example what the model does not use",
        )
    inputs = as_numpy(rows)

    def run(size: int) -> np.ndarray:
        parts = [{k: v[i : i + size] for k, v in inputs.items()} for i in range(0, len(expected), size)]
        return np.concatenate([np.asarray(session.run([OUTPUT], part)[0]) for part in parts])

    for size in BATCHES:
        check_float(expected, run(size), f"the ONNX file at batch {size}")
    return check_float(expected, run(len(expected)), "the ONNX file")


def layers(graph: Any) -> dict[str, set[str]]:
    """Node name -> torch module paths that it comes from (mostly one),
    for an onnx GraphProto of either exporter.

    Read from the node's name (/layer1/layer1.0/conv/Conv), the dynamo exporter's metadata,
    and the names of its weights.
    """
    weights = {w.name for w in graph.initializer}
    out: dict[str, set[str]] = {}
    for node in graph.node:
        paths = {path_of(node.name)}
        for p in node.metadata_props:
            if p.key == _SCOPES:
                scopes = p.value.strip("[]").replace("'", "").split(", ")
                paths.add(scopes[-2] if len(scopes) > 1 else "")
        paths |= {i.rpartition(".")[0] for i in node.input if i in weights}
        out[node.name] = paths - {""}
    return out


def path_of(name: str) -> str:
    """The torch module path in a trace exporter's node name:
    /enc/layers.0/layers.0.1/lin/MatMul -> enc.layers.0.1.lin.

    A child of a Sequential repeats its parent's local name (stem/stem.0), one of a ModuleList
    brings its own (layers.0).
    """
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        if parts and part.startswith(parts[-1] + "."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)


def skipped(graph: Any, skip: list[str]) -> list[str]:
    """Names of the nodes that belong to the modules `skip` or lie inside them. TargetError names
    those that match nothing."""
    found = layers(graph)
    matches = {
        s: [n for n, paths in found.items() if any(p == s or p.startswith(s + ".") for p in paths)] for s in skip
    }
    empty = [s for s, nodes in matches.items() if not nodes]
    if empty:
        raise TargetError(
            "these layers to skip are not in the exported graph",
            got=empty,
            allowed=sorted(set().union(*found.values()))[:40],
        )
    return sorted({n for nodes in matches.values() for n in nodes})
