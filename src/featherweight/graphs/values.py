"""Where a model's code looks at the values of its inputs while it runs: whatever it does with them
in Python (a branch, a count of rounds) is frozen into a traced graph as the traced rows had it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.utils._python_dispatch import TorchDispatchMode

from ..models.hooks import tensors

_FRESH = ("new_", "_shape_as_tensor", "sym_size")  # of the shape alone
_TORCH = str(Path(torch.__file__).parent)


def frozen(module: nn.Module, inputs: tuple[Tensor, ...], warned: Iterable[Any]) -> list[str]:
    """The lines ("file:line: code") that a trace of the module on `inputs` has frozen as these rows
    had them. warned: what was warned of during the trace. It warns of shapes, too; so those lines
    count that make a Python value of what was computed from the inputs, and do more than check it
    (asserts, an `if` that does nothing but raise, what nobody keeps)."""
    lines = {(w.filename, w.lineno) for w in warned if issubclass(w.category, TracerWarning)}
    if not lines:
        return []
    with _Looks(inputs) as looks:
        module(*inputs)
    found = []
    for file, line in dict.fromkeys(at for at in looks.places if at in lines):
        statement = _statement(file, line)
        if statement is None or not _only_checks(statement):
            code = "" if statement is None else ast.unparse(statement).splitlines()[0]
            found.append(f"{Path(file).name}:{line}: {code}".rstrip(": "))
    return found


class _Looks(TorchDispatchMode):
    """While it is entered, `places` takes note of each (file, line) outside of torch that makes a
    Python value of what was computed from `inputs`; of its shape alone does not count."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # kept alive, for the address of what is gone is used again
        self._computed = {t.untyped_storage()._cdata: t.untyped_storage() for t in inputs}
        self.places: list[tuple[str, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(self._knows(t) for t in tensors((args, kwargs or {}))):
            name = func.overloadpacket.__name__
            if torch.Tag.data_dependent_output in func.tags:
                self._look(sys._getframe(1))
            elif not name.startswith(_FRESH) and not name.endswith("_like"):
                for t in (t for t in tensors(out) if t.layout == torch.strided):
                    self._computed[t.untyped_storage()._cdata] = t.untyped_storage()
        return out

    def _knows(self, t: Tensor) -> bool:
        return t.layout == torch.strided and t.untyped_storage()._cdata in self._computed

    def _look(self, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
            frame = frame.f_back  # the way from torch to here lies within torch
        if frame is not None:
            self.places.append((frame.f_code.co_filename, frame.f_lineno))


@lru_cache(64)
def _parsed(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_text())
    except (OSError, SyntaxError, ValueError):
        return None  # typed in by hand


def _statement(file: str, line: int) -> ast.stmt | None:
    """The smallest statement that this line is in."""
    tree = _parsed(file)
    found = [
        node
        for node in (ast.walk(tree) if tree else ())
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return min(found, key=lambda s: ((s.end_lineno or s.lineno) - s.lineno, -s.col_offset), default=None)


def _only_checks(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return not statement.orelse and all(isinstance(s, ast.Raise) for s in statement.body)
    return isinstance(statement, (ast.Assert, ast.Expr, ast.Raise))
