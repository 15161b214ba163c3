"""What torch.export.save wrote, as a module with layers.

A program calls operators: `conv2d(x, weight, bias, ..)`. Layers that are nothing but such a call
are made again, under the names that their weights have, so that they can be cut, trained and
quantized as those of the module that was exported; all else stays as it is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ...errors import TargetError, TaskError
from ...pt2 import checked
from ._exported_layers import make_layers, operator_name

TOLERANCE = 1e-3  # of what the module gives, relative to the program's largest output
ROWS = 4  # samples that the two are compared on
_FIX = "torch.export.export(net.eval(), args, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), one for each input"
_CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "_assert_async", "sym_constrain_range")


@dataclass(frozen=True)
class Exported:
    """A program's module, and the names of its inputs and outputs, in order."""

    path: Path
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: tuple[Path, ...]

    def check(self, inputs: Mapping[str, np.ndarray], names: tuple[str, ...], out: Any) -> None:
        """TaskError if the module gives other outputs than the program does, sample by sample.
        names: of the inputs in the module's order; out: what it gave for all of them at once."""
        from ..tensors import as_tensor

        program = _program(self.path)
        given = [out] if isinstance(out, Tensor) else list(out)
        for i in range(min(ROWS, len(inputs[names[0]]))):
            rows = [as_tensor(inputs[name][i : i + 1]) for name in names]
            try:
                with torch.no_grad():
                    expected = program.module(check_guards=False)(*rows)
            except Exception as e:  # whatever an operator raises
                raise TaskError(
                    "this program does not run on one sample of the data",
                    got=f"{self.path}: {(str(e).splitlines() or [type(e).__name__])[0][:300]}",
                    fix=f"export it with a free number of samples: {_FIX}",
                ) from e
            for name, want, found in zip(self.outputs, tree_leaves(expected), given, strict=True):
                mine = found[i : i + 1].detach().cpu()
                far = float((mine - want).abs().max()) if mine.shape == want.shape else float("nan")
                if not far <= TOLERANCE * (float(want.abs().max()) + 1e-6):
                    raise TaskError(
                        "the module made of this program computes something else than the program",
                        got=f"output {name!r} of sample {i} differs by {far:.2g}; its shape is {list(mine.shape)}, and "
                        f"{list(want.shape)} in the program",
                        fix=f"export it with a free number of samples: {_FIX}",
                    )


def exported_of(path: Path) -> Exported:
    """The module of a .pt2 file. TaskError for one that cannot be read or trusted, or that was
    exported in training mode or in other types than float32."""
    program = _program(path)
    held = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    odd = sorted({str(v.dtype) for v in held.values() if v.is_floating_point() and v.dtype != torch.float32})
    if odd or any(v.device.type != "cpu" for v in held.values()):
        raise TaskError(
            "this program's weights are not float32 numbers on the CPU",
            got=f"{path}: {', '.join(odd) or 'another device'}",
            fix="export net.float().cpu()",
        )
    try:
        made = program.module(check_guards=False)
    except Exception as e:  # torch's own code raises many types
        raise TaskError("this program cannot be taken apart", got=f"{path}: {type(e).__name__}: {str(e)[:300]}") from e
    module, inputs, outputs = with_layers(made, str(path))
    spec = program.call_spec.out_spec
    if spec is not None and spec.type is dict and len(spec.context) == len(outputs):
        outputs = tuple(map(str, spec.context))
    return Exported(path, module.eval(), inputs, outputs, (path,))


def _program(path: Path) -> Any:
    if not path.is_file():
        raise TaskError("there is no such file", got=str(path), allowed="a .pt2 file")
    try:
        with checked(path) as copy, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(copy)
    except TargetError as e:
        raise TaskError("this exported program cannot be read", got=str(e)) from e
    except Exception as e:  # torch's readers raise many types
        raise TaskError(
            "this exported program cannot be read", got=f"{path}: {type(e).__name__}: {str(e)[:300]}"
        ) from e


def with_layers(program: nn.Module, what: str) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """(a graph module that takes its inputs by position and gives one tensor, or a tuple of
    several; names of its inputs; of its outputs). what: the program, for errors."""
    graph: fx.Graph = program.graph  # type: ignore[assignment]
    plain = fx.Graph()
    output = plain.graph_copy(graph, {})
    given = [output] if isinstance(output, fx.Node) else list(_leaves(output))
    plain.output(given[0] if len(given) == 1 else tuple(given))
    module = fx.GraphModule(program, plain)
    for node in list(plain.nodes):
        if node.op == "call_function" and any(word in str(node.target) for word in _CHECKS):
            plain.erase_node(node)
    make_layers(module, what)
    _free_batch(plain)
    plain.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    inputs = tuple(node.name for node in plain.nodes if node.op == "placeholder")
    return module, inputs, tuple(n.name for n in given) if len(given) > 1 else ("output",)


def _leaves(value: Any) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [leaf for part in parts for leaf in _leaves(part)]


def _free_batch(graph: fx.Graph) -> None:
    """Let a program that was exported for one sample take any number: shapes [1, ..] that it gives
    what came from an input keep what is there. In place; `Exported.check` tells whether that is
    right."""
    known: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(n in known for n in node.all_input_nodes):
            known.add(node)
        shape = node.args[1] if len(node.args) > 1 else None
        if (
            node in known
            and operator_name(node) in ("view", "reshape", "_unsafe_view")
            and isinstance(shape, (list, tuple))
        ):
            if len(shape) > 1 and shape[0] == 1 and -1 not in shape:
                node.args = (node.args[0], [-1, *shape[1:]], *node.args[2:])
