"""What torch.export.save wrote, as a module with layers.

A program calls operators: `conv2d(x, weight, bias, ..)`. Layers that are nothing but such a call
are made again, under the names that their weights have, so that they can be cut, trained and
quantized as those of the module that was exported; all else stays as it is called.
"""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten_with_path, tree_leaves, tree_unflatten

from ...errors import TargetError, TaskError
from ...pt2 import checked
from ._exported_layers import drop_unread, make_layers, operator_name

TOLERANCE = 1e-3  # of what the module gives, relative to the program's largest output
FLOOR = 1e-6  # what it may differ by in any case
ROWS = 4  # samples that the two are compared on
_FIX = "torch.export.export(net.eval(), args, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), one for each input"
_FREE = f"export it with a free number of samples: {_FIX}"
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
                expected = _called(program, rows)
            except Exception as e:  # whatever an operator raises
                raise TaskError(
                    "this program does not run on one sample of the data",
                    got=f"{self.path}: {(str(e).splitlines() or [type(e).__name__])[0][:300]}",
                    fix=_FREE,
                ) from e
            for name, want, found in zip(self.outputs, expected, given, strict=True):
                mine = found[i : i + 1].detach().cpu()
                if mine.shape == want.shape and _close(mine, want):
                    continue
                raise TaskError(
                    "the module made of this program computes something else than the program",
                    got=f"output {name!r} of sample {i} differs by {_apart(mine, want):.2g}; its shape is "
                    f"{list(mine.shape)}, and {list(want.shape)} in the program",
                    fix=_changing(program, rows) or _FREE,
                )


def _called(program: Any, rows: list[Tensor]) -> list[Tensor]:
    """The tensors that a program gives for its inputs, in the form in which it was exported: by
    name, in a dictionary, among constants."""
    left = iter(rows)
    specs = [s.arg for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    flat = [a.value if type(a).__name__ == "ConstantArgument" else next(left) for a in specs]
    args, kwargs = tree_unflatten(flat, program.call_spec.in_spec)
    with torch.no_grad():
        out = program.module(check_guards=False)(*args, **kwargs)
    return [v.clone() for v in tree_leaves(out) if isinstance(v, Tensor)]


def _apart(mine: Tensor, want: Tensor) -> float:
    """The largest difference; infinities that are equal do not differ."""
    if mine.shape != want.shape or not mine.numel():
        return float("nan")
    if not (want.is_floating_point() or want.is_complex()):
        mine, want = mine.double(), want.double()
    same = (mine == want) | (mine.isnan() & want.isnan())
    return float((mine - want).abs().masked_fill(same, 0).max())


def _close(mine: Tensor, want: Tensor) -> bool:
    if not want.numel() or not (want.is_floating_point() or want.is_complex()):
        return torch.equal(mine, want)
    largest = float(want.abs().masked_fill(~want.isfinite(), 0).max())
    return _apart(mine, want) <= max(TOLERANCE * largest, FLOOR)


def _changing(program: Any, rows: list[Tensor]) -> str | None:
    """What to do about a program that gives something else each time it is called; None if it gives
    the same."""
    before = {name: v.clone() for name, v in program.named_buffers()}
    first, second = _called(program, rows), _called(program, rows)
    changed = [name for name, v in program.named_buffers() if not torch.equal(v, before[name])]
    if all(map(torch.equal, first, second)):
        return None
    if changed:
        return f"its forward changes the buffers {', '.join(changed)}: export one that leaves them as they are"
    return "it draws random numbers, and gives others for the same sample: export one that does not"


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
        module, inputs, outputs = with_layers(made, str(path), _labels(program))
    except TaskError:
        raise
    except Exception as e:  # torch's own code raises many types
        taken = sorted({part for name in held for part in name.split(".") if hasattr(fx.GraphModule, part)})
        raise TaskError(
            "this program cannot be taken apart",
            got=f"{path}: {type(e).__name__}: {str(e)[:300]}",
            fix=f"rename {', '.join(taken)} in the module and export it anew: PyTorch makes no graph with layers of "
            "such names"
            if taken
            else None,
        ) from e
    return Exported(path, module.eval(), inputs, outputs, (path,))


def _labels(program: Any) -> list[str]:
    """What a program's outputs are called, those that are no tensors too: the keys of a dictionary.
    Empty if they have only places."""
    spec = program.call_spec.out_spec
    if spec is None or spec.type is not dict:
        return []
    leaves, _ = tree_flatten_with_path(tree_unflatten(list(range(spec.num_leaves)), spec))
    return [".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in keys) for keys, _ in leaves]


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


def with_layers(program: nn.Module, what: str, labels: list[str]) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """(a graph module that takes its inputs by position and gives one tensor, or a tuple of
    several; names of its inputs; of its outputs). what: the program, for errors; labels: what its
    outputs are called, if they are."""
    graph: fx.Graph = program.graph  # type: ignore[assignment]
    plain = fx.Graph()
    output = plain.graph_copy(graph, {})
    leaves = _leaves(output)
    places = [i for i, leaf in enumerate(leaves) if _is_tensor(leaf)]
    given = [leaves[i] for i in places]
    if not given:
        raise TaskError("this program gives no tensor", got=what)
    plain.output(given[0] if len(given) == 1 else tuple(given))
    for node in list(plain.nodes):  # constants that it was exported with
        if node.op == "placeholder" and not node.users and not _is_tensor(node):
            plain.erase_node(node)
    module = fx.GraphModule(program, plain)
    for node in list(plain.nodes):
        if node.op == "call_function" and any(word in str(node.target) for word in _CHECKS):
            plain.erase_node(node)
    make_layers(module, what)
    _free_batch(plain)
    plain.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    drop_unread(module)
    inputs = tuple(map(_own_name, (node.name for node in plain.nodes if node.op == "placeholder")))
    if len(labels) == len(leaves):
        return module, inputs, tuple(labels[i] for i in places)
    return module, inputs, tuple(n.name for n in given) if len(given) > 1 else ("output",)


def _own_name(name: str) -> str:
    """What forward calls an input: graphs rename what has a name of Python's own (`input`)."""
    own = name.removesuffix("_1")
    return own if hasattr(builtins, own) else name


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list, Mapping)):
        parts = value.values() if isinstance(value, Mapping) else value
        return [leaf for part in parts for leaf in _leaves(part)]
    return [value]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val", torch.empty(0)), Tensor)


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
