"""An ONNX file as a module of PyTorch, by onnx2torch, and held to what ONNX Runtime computes."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import MissingExtra, TaskError
from ._opsets import as_before, teach

if TYPE_CHECKING:
    from torch import nn

HALF_TOLERANCE = 3e-2  # the same, of a file in float16, which has 11 bits
TOLERANCE = 1e-3  # of what the module gives, relative to the file's largest output
ROWS = 4  # samples that the two are compared on


@dataclass(frozen=True)
class Onnx:
    """A file's module, and the names of its inputs and outputs, in order."""

    path: Path
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: tuple[Path, ...]  # itself, and those in which it keeps weights
    half: bool = False  # is it in float16? The module is in float32

    def check(self, inputs: Mapping[str, np.ndarray], names: tuple[str, ...], out: Any) -> None:
        """TaskError if the module gives other outputs than ONNX Runtime does, sample by sample.
        names: of the inputs in the module's order; out: what it gave for all of them at once."""
        import torch

        session = _session(self.path)
        kinds = {i.name: np.float16 for i in session.get_inputs() if i.type == "tensor(float16)"}
        tolerance = HALF_TOLERANCE if self.half else TOLERANCE
        given = [out] if isinstance(out, torch.Tensor) else list(out)
        rows = min(ROWS, len(inputs[names[0]]))
        for i in range(rows):
            rows_of = zip(self.inputs, (inputs[n][i : i + 1] for n in names), strict=True)
            one = {own: np.ascontiguousarray(row, dtype=kinds.get(own, row.dtype)) for own, row in rows_of}
            try:
                expected = session.run(None, one)
            except Exception as e:  # ONNX Runtime's exceptions have no common base below Exception
                raise TaskError("ONNX Runtime does not run this file on the data", got=str(e)[:300]) from e
            for name, want, found in zip(self.outputs, expected, given, strict=True):
                mine = found[i : i + 1].detach().cpu().numpy()
                far = float(np.abs(mine - want).max()) if mine.shape == np.shape(want) else float("nan")
                if not far <= tolerance * (float(np.abs(want).max()) + 1e-6):
                    raise TaskError(
                        "the module made of this ONNX file computes something else than the file",
                        got=f"output {name!r} of sample {i} differs by {far:.2g}; its shape is {list(mine.shape)}, and "
                        f"{list(np.shape(want))} in the file",
                        fix="export the model with a free batch axis, or give the PyTorch module",
                    )


def onnx_of(path: Path) -> Onnx:
    """The module of a file. TaskError for one that cannot be read, or has operators that PyTorch
    has no form of; MissingExtra without onnx2torch."""
    import onnx

    from ._linears import with_linears

    if not path.is_file():
        raise TaskError("there is no such file", got=str(path), allowed="an .onnx file")
    try:
        onnx.checker.check_model(str(path))  # by its path: of more than 2 GB there is no other way
        bare = onnx.load(path, load_external_data=False)
        told = [e.value for t in bare.graph.initializer for e in t.external_data if e.key == "location"]
        beside = {path.parent / name for name in told}
        model = onnx.load(path)
    except Exception as e:  # protobuf's, the checker's and the system's have no common base
        raise TaskError("this ONNX file cannot be read", got=f"{path}: {type(e).__name__}: {str(e)[:300]}") from e
    weights = {t.name for t in model.graph.initializer}
    inputs = tuple(i.name for i in model.graph.input if i.name not in weights)
    outputs = tuple(o.name for o in model.graph.output)
    half = _in_float32(model)
    as_before(model)  # before zeros are written into reshapes: it looks for those that mean zero
    _free_batch(model, inputs)
    _plain_names(model)
    convert = _converter()
    teach()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that it changes
            module = with_linears(convert(model))
    except NotImplementedError as e:
        raise TaskError(
            "PyTorch has no form of this ONNX file",
            got=f"{path}: {str(e)[:300]}",
            allowed="floating-point models of the usual operators; quantized files and recurrent layers are none",
            fix="give the PyTorch module that the file was exported from",
        ) from e
    except Exception as e:  # the converter's own mistakes come as any type
        raise TaskError("this ONNX file cannot be converted", got=f"{path}: {type(e).__name__}: {str(e)[:300]}") from e
    return Onnx(path, module.eval(), inputs, outputs, (path, *sorted(beside)), half)


def _session(path: Path) -> Any:
    """ONNX Runtime with the file as it is."""
    import onnxruntime as ort

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1  # errors come as exceptions
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions have no common base below Exception
        raise TaskError("ONNX Runtime cannot load this file", got=f"{path}: {str(e)[:300]}") from e


def _in_float32(model: Any) -> bool:
    """A file in float16 made one in float32, in which models are trained and certified. In place;
    was there any float16?"""
    from onnx import AttributeProto, TensorProto, numpy_helper

    half, found = TensorProto.FLOAT16, False

    def tensor(t: Any) -> None:
        nonlocal found
        if t.data_type == half:
            found = True
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))

    def graph(g: Any) -> None:
        nonlocal found
        for t in g.initializer:
            tensor(t)
        for value in (*g.input, *g.output, *g.value_info):
            if value.type.tensor_type.elem_type == half:
                value.type.tensor_type.elem_type, found = TensorProto.FLOAT, True
        for node in g.node:
            for a in node.attribute:
                if a.type == AttributeProto.TENSOR:
                    tensor(a.t)
                elif a.type == AttributeProto.GRAPH:
                    graph(a.g)
                elif a.name in ("to", "dtype") and a.i == half:
                    a.i, found = TensorProto.FLOAT, True

    graph(model.graph)
    return found


def _free_batch(model: Any, inputs: Sequence[str]) -> None:
    """Let a model that was exported for one sample take any number: reshapes to [1, ..] of what is
    made of an input keep what is there instead (those of a parameter stay). In place; `Onnx.check`
    tells whether that is right."""
    from onnx import numpy_helper

    shapes = {t.name: t for t in model.graph.initializer}
    constants = {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute}
    moving = set(inputs)  # values that depend on an input
    freed: list[Any] = []
    for node in model.graph.node:
        if not moving & set(node.input):
            continue
        moving |= set(node.output)
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[0] not in moving:
            continue
        held = shapes.get(node.input[1]) or constants.get(node.input[1])
        if held is None:
            continue
        to = numpy_helper.to_array(held).copy()
        real = any(a.name == "allowzero" and a.i for a in node.attribute)  # a side without anything
        if to.ndim == 1 and len(to) > 1 and to[0] == 1 and not real:
            to[0] = 0
            # one of its own: a reshape that stays may have the same
            freed.append(numpy_helper.from_array(to, f"{node.output[0]} free shape"))
            node.input[1] = freed[-1].name
    model.graph.initializer.extend(freed)
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_value == 1:
            shape.dim[0].dim_param = "batch"


def _converter() -> Any:
    """onnx2torch's `convert`. It imports torchvision for two operators of detectors; where there is
    none it is imported without those."""
    if importlib.util.find_spec("onnx2torch") is None:
        raise MissingExtra("onnx2torch", "onnx")
    absent = importlib.util.find_spec("torchvision") is None
    if absent and "onnx2torch" not in sys.modules:
        vision, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
        vision.ops, ops.roi_align = ops, None  # type: ignore[attr-defined]
        sys.modules |= {"torchvision": vision, "torchvision.ops": ops}
        try:
            return importlib.import_module("onnx2torch").convert
        finally:
            del sys.modules["torchvision"], sys.modules["torchvision.ops"]
    return importlib.import_module("onnx2torch").convert


def _plain_names(model: Any) -> None:
    """Give nodes and values names that are Python's. In place.

    Exporters write scopes into names; and what converts them writes Python code, into which a name
    with quotes in it would put code of its own."""
    graph, taken = model.graph, set[str]()

    def plain(name: str, other: str) -> str:
        found = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or other
        found = found if not found[0].isdigit() else f"{other}_{found}"
        new, n = found, 1
        while new in taken:
            n += 1
            new = f"{found}_{n}"
        taken.add(new)
        return new

    values = [*graph.input, *graph.initializer, *graph.output, *graph.value_info]
    every = [v.name for v in values] + [name for n in graph.node for name in (*n.input, *n.output)]
    names = {name: plain(name, "value") for name in dict.fromkeys(every) if name}
    for v in values:
        v.name = names[v.name]
    taken.clear()
    for node in graph.node:
        node.name = plain(node.name, re.sub(r"\W+", "_", node.op_type, flags=re.ASCII) or "node")
        for part in (node.input, node.output):
            part[:] = [names.get(name, "") for name in part]
